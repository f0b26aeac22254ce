"""What a backend does: tiles to streams and back, under one model. Its results never depend on which one it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.rans import STATE_LOW
from pilc_stream.errors import FormatError, TruncatedError
from pilc_stream.models.model import WaveModel

Tile = NDArray[np.uint8]
Model = TypeVar("Model", contravariant=True)
STATE_BYTES = 4
WORD_BYTES = 2
WORDS_BEHIND = 32
"""Words of 0 behind those of streams taken at once, so that some may be read before it is known how many are."""


Place = Tile | tuple[Tile, ...]
"""Where a tile belongs: uint8 `(h, w, channels)`, or a plane `(h, w)` for each channel, of any strides."""


class TileJob(NamedTuple):
    """A tile to decode: its stream, its shape and its number of lanes as a power of two."""

    stream: memoryview
    height: int
    width: int
    channels: int
    lanes_log2: int


class TileEngine(Protocol[Model]):
    """A backend of a codec bound to a device; `Model` is the codec's kind of model."""

    @property
    def name(self) -> str:
        """The backend: "reference", "cpu" or "cuda"."""

    def encode_tiles(self, model: Model, tiles: Sequence[Tile], lanes_log2: Sequence[int]) -> list[bytes]:
        """One stream per tile; tiles are uint8 `(h, w, 1 or 3)` of any sizes."""

    def decode_tiles(self, model: Model, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles again. Raises FormatError for a stream that no encoder wrote."""


Engine = TileEngine[WaveModel]
"""A backend of the wave codec."""


@runtime_checkable
class PlacingEngine(TileEngine[Model], Protocol[Model]):
    """An engine that writes tiles to where they belong while its caches hold them."""

    def decode_to_places(self, model: Model, jobs: Sequence[TileJob], places: Sequence[Place]) -> None:
        """Decode each tile to its place."""


@runtime_checkable
class DeviceEngine(TileEngine[Model], Protocol[Model]):
    """An engine with memory of its own, where decoded pixels can stay."""

    def decode_to_tensor(
        self, model: Model, jobs: Sequence[TileJob], places: Sequence[tuple[int, int]], pixel_bytes: int
    ) -> Any:
        """A torch tensor uint8 `(pixel_bytes,)` there, each tile at its place: first byte, bytes from row to row."""


def pack_stream(states: NDArray[np.uint32], words: NDArray[np.uint16]) -> bytes:
    """A tile's stream: the lanes' first states, then the words in the order in which a decoder takes them."""
    return states.astype("<u4").tobytes() + words.astype("<u2").tobytes()


def split_stream(job: TileJob) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """States and words of a stream, checked for what every encoder's stream fulfils."""
    state_bytes = STATE_BYTES << job.lanes_log2
    length = len(job.stream)
    if length < state_bytes or length % WORD_BYTES:
        raise TruncatedError(
            f"tile: a stream of {length} bytes cannot hold {1 << job.lanes_log2} lanes and whole words"
        )
    states = np.frombuffer(job.stream[:state_bytes], "<u4").astype(np.uint32)
    if (states < STATE_LOW).any():
        raise FormatError("tile: a lane begins with a state below 2**16, which no encoder writes")
    return states, np.frombuffer(job.stream[state_bytes:], "<u2").astype(np.uint16)


def split_streams(jobs: Sequence[TileJob]) -> tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[np.int64]]:
    """States `(tiles, lanes)` of streams of equally many lanes, the words of all one after the other and
    `WORDS_BEHIND` of 0, and how many words each has. Raises as `split_stream`, but takes small streams all at once."""
    state_bytes = STATE_BYTES << jobs[0].lanes_log2
    lengths = np.array([len(job.stream) for job in jobs], np.int64) - state_bytes
    if (lengths < 0).any() or (lengths % WORD_BYTES).any():
        _check_each(jobs)
    states = np.frombuffer(b"".join([job.stream[:state_bytes] for job in jobs]), "<u4")
    if (states < STATE_LOW).any():
        _check_each(jobs)
    words = b"".join([*(job.stream[state_bytes:] for job in jobs), bytes(WORDS_BEHIND * WORD_BYTES)])
    return states.reshape(len(jobs), -1), np.frombuffer(words, "<u2"), lengths // WORD_BYTES


def _check_each(jobs: Sequence[TileJob]) -> None:
    for job in jobs:
        split_stream(job)


def check_ends(states: NDArray[np.uint32], words_used: NDArray[np.int64], words: NDArray[np.int64]) -> None:
    """`check_end` for many tiles at once; `states`: `(tiles, lanes)`."""
    if (words_used != words).any() or (states != STATE_LOW).any():
        for tile_states, used, there in zip(states, words_used, words, strict=True):
            check_end(tile_states, int(used), int(there))


def check_end(states: NDArray[np.uint32], words_used: int, words: int) -> None:
    """Raise FormatError unless all words were used and every lane ended where encoders begin."""
    if words_used != words:
        raise FormatError(f"tile: decoding used {words_used} of {words} words; the stream is not what was encoded")
    if (states != STATE_LOW).any():
        raise FormatError("tile: a lane does not end in the state that encoding begins with; the stream is damaged")
