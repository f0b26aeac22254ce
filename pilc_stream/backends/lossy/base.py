"""What a backend of the codec `lossy` does, and what all of them share: geometry, the order of coding, the stream.

A tile's stream is its quality (one byte), the number of bytes of escapes and these, then lanes as other codecs have
them. The lanes hold the hyper latents, then the latents pass by pass; within each part by row, column, channel. What
has the scale index 0 is 0 and is not coded; lanes count what is coded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.fixed import clamp
from pilc_stream.backends.base import Model, Tile, TileJob
from pilc_stream.errors import FormatError, TruncatedError
from pilc_stream.models.lossy import (
    ESCAPE,
    GAIN_BITS,
    MAGNITUDES,
    MEAN_LIMIT,
    QUALITIES,
    SCALE_BITS,
    VALUE_LIMIT,
    LossyModel,
    QualityTables,
)
from pilc_stream.models.lossy_spec import (
    CONTEXT_LIMIT,
    HYPER_INPUT,
    HYPER_STRIDE,
    LATENT_STRIDE,
    MEAN_STEPS,
    SCALE_COUNT,
    CodingPass,
)
from pilc_stream.records.payload import get_varint, put_varint

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

HYPER_PER_LATENT = HYPER_STRIDE // LATENT_STRIDE
STEPS_LOG2 = 4
OFFSET = MAGNITUDES - 1
"""The symbol of the value 0."""


class EncodedTile(NamedTuple):
    """A tile's `stream` and its decoded `latents`, as `decode_latents` gives them."""

    stream: bytes
    latents: NDArray[np.int32]


class LossyEngine(Protocol[Model]):
    """A backend of the codec `lossy` bound to a device, for one kind of its models."""

    @property
    def name(self) -> str:
        """The backend: "reference", "cpu" or "cuda"."""

    def encode_tiles(
        self, model: Model, tiles: Sequence[Tile], qualities: Sequence[int], lanes_log2: Sequence[int]
    ) -> list[EncodedTile]:
        """Code tiles uint8 `(h, w, 3)` of any sizes."""

    def decode_latents(self, model: Model, jobs: Sequence[TileJob]) -> list[tuple[int, NDArray[np.int32]]]:
        """Of each tile the quality and the latents in 16ths, int32 `(h / 16, w / 16, latents)`: equal on all devices.

        Raises FormatError for a stream that no encoder wrote.
        """

    def decode_tiles(self, model: Model, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles: at most one grey level apart between devices. Raises as `decode_latents`."""

    def synthesise(
        self, model: Model, qualities: Sequence[int], latents: Sequence[NDArray[np.int32]], jobs: Sequence[Shape]
    ) -> list[Tile]:
        """The tiles of these heights and widths from their latents."""


def tiles_by_latents(engine: LossyEngine[Model], model: Model, jobs: Sequence[TileJob]) -> list[Tile]:
    """`LossyEngine.decode_tiles`, of every engine: the latents, then what they stand for."""
    found = engine.decode_latents(model, jobs)
    shapes = [Shape(job.height, job.width) for job in jobs]
    return engine.synthesise(model, [quality for quality, _ in found], [each for _, each in found], shapes)


class MeasuredTile(NamedTuple):
    """A tile's `stream`; the CRC-32C of its latents as int32; the sum of its pixels' and channels' squared errors."""

    stream: bytes
    checksum: int
    squared_error: int


@runtime_checkable
class LossyDeviceEngine(LossyEngine[Model], Protocol[Model]):
    """An engine with memory of its own, where latents stay, and decoded pixels can. `channels` are 1 (grey) or 3."""

    def encode_measured(
        self,
        model: Model,
        tiles: Sequence[Tile],
        qualities: Sequence[int],
        lanes_log2: Sequence[int],
        channels: Sequence[int],
    ) -> list[MeasuredTile]:
        """Code tiles uint8 `(h, w, 3)`, and measure what decoders make of them in so many channels."""

    def decode_to_tensor(
        self, model: Model, jobs: Sequence[TileJob], places: Sequence[tuple[int, int]], pixel_bytes: int
    ) -> tuple[Any, list[int]]:
        """A torch tensor uint8 `(pixel_bytes,)` there, each tile in its job's channels at its place (first byte, bytes
        from row to row), and the checksums of their latents. Raises as `decode_latents`."""


class Shape(NamedTuple):
    """Height and width of a tile in pixels."""

    height: int
    width: int


class Arithmetic(Protocol):
    """The entropy nets of a model on some device. Arrays are channels last; whole numbers, whatever their type."""

    def hyper_features(self, model: LossyModel, inputs: Ints) -> Any:
        """From hyper inputs `(h, w, c)` to features `(4 h, 4 w, hyper_width)`."""

    def outputs(
        self, model: LossyModel, number: int, context: Ints | None, features: Any, quality: Ints
    ) -> tuple[Ints, Ints]:
        """Means and scales of a pass before the gain, int64 `(h, w, c)`, for all places."""


class CodingTables(Protocol):
    """What a coder of values needs of a model."""

    @property
    def starts(self) -> NDArray[np.int32]:
        """Where each symbol's interval begins, and the end of the last: `(scale indices, 257)`."""


class ValueCoder(Protocol):
    """Where values go or come from: a stream that is written or read."""

    def values(self, index: Ints, wanted: NDArray[np.float64] | None) -> Ints:
        """The values of these scale indices (both `(n,)`); an encoder rounds what is `wanted`."""


def latent_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of latents of a tile."""
    return -(-height // LATENT_STRIDE), -(-width // LATENT_STRIDE)


def hyper_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of hyper latents of a tile."""
    return -(-height // HYPER_STRIDE), -(-width // HYPER_STRIDE)


def pass_places(each: CodingPass, rows: int, columns: int) -> tuple[Any, Any]:
    """Rows and columns of the places that a pass codes, in order."""
    ys, xs = np.indices((rows, columns)).reshape(2, -1)
    if each.parity is None:
        return ys, xs
    chosen = (ys + xs) % 2 == each.parity
    return ys[chosen], xs[chosen]


def context_inputs(decoded: Ints, unit: Ints, gain: Ints) -> Ints:
    """How decoded latents (16ths) enter the context nets: in `[-127, 127]`."""
    return np.asarray(clamp((decoded * unit + (gain >> 1)) // gain, -CONTEXT_LIMIT, CONTEXT_LIMIT))


def scaled_means(outputs: Ints, gain: Ints) -> Ints:
    """Means in 16ths of a step of the quantiser, from the net's outputs."""
    return np.asarray((clamp(outputs, -MEAN_LIMIT, MEAN_LIMIT) * gain + (1 << (GAIN_BITS - 1))) >> GAIN_BITS)


def scale_indices(outputs: Ints, offset: Ints) -> Ints:
    """Rows of the scale table, from the net's outputs."""
    limited = clamp(outputs, -MEAN_LIMIT, MEAN_LIMIT)
    total = ((limited << SCALE_BITS) + offset + (1 << (SCALE_BITS - 1))) >> SCALE_BITS
    return np.asarray(clamp(total, 0, SCALE_COUNT - 1))


def walk(
    model: LossyModel,
    tables: QualityTables,
    arithmetic: Arithmetic,
    coder: ValueCoder,
    shape: Shape,
    hyper: Floats | None = None,
    latents: Floats | None = None,
) -> NDArray[np.int32]:
    """Code (where `hyper` and `latents` are given) or decode a tile: its decoded latents.

    `hyper` `(h / 64, w / 64, c)`, `latents` `(h / 16, w / 16, c)`: in steps of the quantiser, not rounded.
    """
    spec = model.spec
    grid = hyper_grid(*shape)
    of_hyper = np.broadcast_to(scale_indices(np.zeros_like(tables.hyper), tables.hyper), (*grid, spec.hyper_channels))
    wanted = None if hyper is None else hyper.astype(np.float64).reshape(-1)
    values = coder.values(of_hyper.reshape(-1), wanted).reshape(*grid, spec.hyper_channels)
    planes = np.broadcast_to(tables.features, (*grid, spec.quality_features))
    inputs = np.concatenate([clamp(values * HYPER_INPUT, -CONTEXT_LIMIT, CONTEXT_LIMIT), planes], axis=2)
    rows, columns = latent_grid(*shape)
    features = arithmetic.hyper_features(model, inputs)[:rows, :columns]
    unit = model.tensors["context.unit"].astype(np.int64)
    decoded = np.zeros((rows, columns, spec.latents), np.int64)
    for number, each in enumerate(spec.passes()):
        known, own = slice(0, each.known), slice(each.start, each.stop)
        context = context_inputs(decoded[..., known], unit[known], tables.gain[known]) if each.known else None
        means, scales = arithmetic.outputs(model, number, context, features, tables.features)
        ys, xs = pass_places(each, rows, columns)
        mean = scaled_means(means[ys, xs], tables.gain[own])
        index = scale_indices(scales[ys, xs], tables.scale[own])
        wanted = None if latents is None else (latents[ys, xs, own].astype(np.float64) - mean / MEAN_STEPS).reshape(-1)
        found = coder.values(index.reshape(-1), wanted).reshape(mean.shape)
        decoded[ys, xs, own] = (found << STEPS_LOG2) + mean
    return decoded.astype(np.int32)


def rounded_values(index: Ints, wanted: NDArray[np.float64]) -> Ints:
    """The values that an encoder codes."""
    values = np.clip(np.rint(wanted), -VALUE_LIMIT, VALUE_LIMIT).astype(np.int64)
    return np.where(index == 0, 0, values)


def symbols_of(model: CodingTables, index: Ints, values: Ints) -> tuple[Ints, Ints]:
    """Symbols of values that are coded, and those values that are escapes."""
    symbols = np.clip(values + OFFSET, -1, ESCAPE)
    outside = (symbols < 0) | (symbols == ESCAPE)
    symbols = np.where(outside, ESCAPE, symbols)
    # A small scale gives no room to large values: they are escapes too.
    impossible = model.starts[index, symbols] == model.starts[index, symbols + 1]
    symbols = np.where(impossible, ESCAPE, symbols)
    return symbols, values[symbols == ESCAPE]


def pack_tile(quality: int, escapes: Sequence[int], lanes: bytes) -> bytes:
    """A tile's stream."""
    packed = bytearray()
    for value in escapes:
        put_varint(packed, 2 * value if value >= 0 else -2 * value - 1)
    head = bytearray([quality])
    put_varint(head, len(packed))
    return bytes(head + packed) + lanes


class OpenedTile(NamedTuple):
    """The parts of a tile's stream: `quality`, the values of `escapes`, the job of the lanes."""

    quality: int
    escapes: Ints
    lanes: TileJob


def open_tile(job: TileJob) -> OpenedTile:
    """Take a stream apart. Raises FormatError where it cannot be one."""
    view = job.stream
    if not len(view):
        raise TruncatedError("tile: an empty stream; the payload is damaged")
    quality = view[0]
    if not 1 <= quality <= QUALITIES:
        raise FormatError(f"tile: a quality of {quality}, not in 1..{QUALITIES}; the stream is damaged")
    length, position = get_varint(view, 1, "the length of the escapes")
    if length > len(view) - position:
        raise TruncatedError(f"tile: {length} bytes of escapes announced, {len(view) - position} left")
    escapes, end = [], position + length
    while position < end:
        zigzag, position = get_varint(view[:end], position, "an escape")
        value = -(zigzag + 1) // 2 if zigzag & 1 else zigzag // 2
        if abs(value) > VALUE_LIMIT:
            raise FormatError(f"tile: an escape of {value}, beyond {VALUE_LIMIT}; the stream is damaged")
        escapes.append(value)
    return OpenedTile(quality, np.array(escapes, np.int64), job._replace(stream=view[end:]))


class Escapes:
    """The values of escapes, taken one after the other."""

    def __init__(self, values: Ints) -> None:
        self._values, self._used = values, 0

    def fill(self, symbols: Ints) -> Ints:
        """Values of symbols. Raises FormatError where there are too few escapes."""
        values = symbols - OFFSET
        places = np.flatnonzero(symbols == ESCAPE)
        end = self._used + len(places)
        if end > len(self._values):
            raise FormatError("tile: more escapes than the stream holds; it is damaged")
        values[places] = self._values[self._used : end]
        self._used = end
        return values

    def finish(self) -> None:
        """Check that all were used."""
        if self._used != len(self._values):
            raise FormatError(f"tile: {len(self._values) - self._used} escapes are left over; the stream is damaged")
