"""The CUDA backend of the codec `pilc`: batches of tiles of one shape, one kernel after the other on one stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.blocks import QUARTERS
from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.base import Tile, TileJob, check_end, pack_stream, split_stream
from pilc_stream.backends.cuda.shim import SIMULATED, WARP, check_device, cuda
from pilc_stream.backends.pilc import cuda_kernels
from pilc_stream.backends.pilc.base import block_grid, parts, quarter_pixels
from pilc_stream.backends.planes import coding_planes, image_tile
from pilc_stream.errors import FormatError
from pilc_stream.models.pilc import PilcModel

BATCH_PIXELS = 1 << 23
"""Pixels of a batch: about half a gigabyte on the card when encoding, of which most are the sums of residuals."""

THREADS = 128
UNDO_THREADS = 128 if not SIMULATED else 8


@cache
def _kernel(name: str) -> Any:
    return cuda.jit(getattr(cuda_kernels, name))


def _launch(name: str, count: int, *arguments: Any) -> None:
    """Run a kernel with a thread for each of `count` elements."""
    threads = min(THREADS, count)
    _kernel(name)[-(-count // threads), threads](*arguments)


class _Program:
    """A model in the card's memory."""

    def __init__(self, model: PilcModel) -> None:
        self.model = model
        self.tensors = {name: cuda.to_device(np.ascontiguousarray(values)) for name, values in model.tensors.items()}
        self.layers = {
            name: tuple(cuda.to_device(np.ascontiguousarray(v)) for v in (layer.weight, layer.bias, layer.shift))
            for name, layer in model.layers.items()
        }
        self.taps = [cuda.to_device(np.array(taps, np.int32)) for taps in model.spec.taps]

    def predictor(self, channel: int) -> tuple[Any, Any, Any]:
        """Taps, weights and biases of a channel."""
        weight, bias = (self.tensors[f"predictor.{channel}.{part}"] for part in ("weight", "bias"))
        return self.taps[channel], weight, bias


class PilcCudaEngine:
    """Codes batches of tiles on a card."""

    name = "cuda"

    def __init__(self, device: int | None = None, batch_pixels: int = BATCH_PIXELS) -> None:
        """Raises DeviceError without a card that can run the kernels."""
        self._device, self._batch_pixels = check_device(device), batch_pixels
        self._programs: dict[str, _Program] = {}

    def encode_tiles(self, model: PilcModel, tiles: Sequence[Tile], lanes_log2: Sequence[int]) -> list[bytes]:
        """One stream per tile."""
        out = [b""] * len(tiles)
        with cuda.gpus[self._device]:
            program = self._program(model)
            keys = [(*tile.shape, lanes) for tile, lanes in zip(tiles, lanes_log2, strict=True)]
            for members in self._batches(keys):
                planes = np.stack([coding_planes(tiles[i])[: _coded(tiles[i].shape[2])] for i in members])
                streams = _encode(program, planes.astype(np.uint8), keys[members[0]][3])
                for i, stream in zip(members, streams, strict=True):
                    out[i] = stream
        return out

    def decode_tiles(self, model: PilcModel, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles again."""
        out: list[Tile] = [np.empty(0, np.uint8)] * len(jobs)
        with cuda.gpus[self._device]:
            program = self._program(model)
            keys = [(job.height, job.width, job.channels, job.lanes_log2) for job in jobs]
            for members in self._batches(keys):
                planes = _decode(program, [jobs[i] for i in members])
                for i, of_tile in zip(members, planes, strict=True):
                    out[i] = image_tile(of_tile.astype(np.int64), jobs[i].channels)
        return out

    def _batches(self, keys: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
        by_key: dict[tuple[int, ...], list[int]] = {}
        for index, key in enumerate(keys):
            by_key.setdefault(key, []).append(index)
        for key, members in by_key.items():
            size = max(1, self._batch_pixels // (key[0] * key[1]))
            for first in range(0, len(members), size):
                yield members[first : first + size]

    def _program(self, model: PilcModel) -> _Program:
        if model.sha256 not in self._programs:
            self._programs[model.sha256] = _Program(model)
        return self._programs[model.sha256]


def _coded(channels: int) -> int:
    return parts(channels) // QUARTERS


def _choose(program: _Program, planes: Any, host_shape: tuple[int, ...]) -> Any:
    tiles, coded, height, width = host_shape
    rows, columns = block_grid(height, width)
    predictors = program.model.spec.predictors
    sums = cuda.to_device(np.zeros((tiles, rows, columns, QUARTERS * coded, predictors), np.int32))
    for c in range(coded):
        _launch("add_residuals", tiles * rows * columns * predictors, planes, c, *program.predictor(c), sums)
    choices = cuda.to_device(np.zeros((tiles, 2, rows, columns), np.uint8))
    counts = cuda.to_device(quarter_pixels(height, width).astype(np.int32))
    numbers = [program.tensors[f"encoder.{name}"] for name in ("log", "predictor", "slope", "level", "code")]
    _launch("choose", tiles * rows * columns, sums, counts, *numbers, choices)
    return choices


def _distributions(program: _Program, choices: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Table rows and centres of all three channels of tiles of `shape` `(tiles, _, h, w)`."""
    tiles, _, height, width = shape
    rows, columns = block_grid(height, width)
    spec, tensors = program.model.spec, program.tensors
    coarse, middle, fine, last = spec.widths

    def room(scale: int, channels: int) -> Any:
        return cuda.device_array((tiles, scale * rows, scale * columns, channels), np.uint8)

    def layer(name: str, values: Any, reach: int, scale: int, out: Any, split: int = 1) -> Any:
        weight, bias, shift = program.layers[name]
        units = tiles * scale * rows * scale * columns * weight.shape[0]
        _launch("convolve", units, values, reach, weight, bias, shift, split, out)
        return out

    features = spec.code_features + spec.predictor_features
    values = room(1, features)
    _launch(
        "embed", tiles * rows * columns * features, choices, tensors["code.features"], tensors["predictor.features"],
        values
    )  # fmt: skip
    values = layer("coarse", values, 1, 1, room(1, coarse))
    values = layer("coarse.split", values, 0, 1, room(2, middle), 2)
    values = layer("middle", values, 1, 2, room(2, middle))
    values = layer("middle.split", values, 0, 2, room(4, fine), 2)
    values = layer("fine", values, 1, 4, room(4, last))
    table_rows = cuda.device_array((tiles, CHANNELS, height, width), np.uint16)
    centres = cuda.device_array((tiles, CHANNELS, height, width), np.int16)
    _launch(
        "distribute", tiles * CHANNELS * height * width, values, *program.layers["head"], choices,
        tensors["code.scale"], tensors["predictor.scale"], tensors["row_of"], table_rows, centres
    )  # fmt: skip
    return table_rows, centres


def _encode(program: _Program, host_planes: NDArray[np.uint8], lanes_log2: int) -> list[bytes]:
    tiles, coded, height, width = host_planes.shape
    rows, columns = block_grid(height, width)
    tensors, planes = program.tensors, cuda.to_device(host_planes)
    choices = _choose(program, planes, host_planes.shape)
    table_rows, centres = _distributions(program, choices, host_planes.shape)
    first = 2 * rows * columns
    symbols = first + coded * height * width
    intervals = cuda.device_array((tiles, symbols, 2), np.int32)
    _launch(
        "block_intervals", tiles * rows * columns, choices, tensors["code.class"], tensors["code.cdf"],
        tensors["predictor.cdf"], intervals
    )  # fmt: skip
    for c in range(coded):
        _launch(
            "residual_intervals", tiles * height * width, planes, c, *program.predictor(c), choices, tensors["cdf"],
            table_rows, centres, first, intervals
        )  # fmt: skip
    states = cuda.device_array((tiles, 1 << lanes_log2), np.int64)
    words = cuda.device_array((tiles, symbols), np.uint16)
    used = cuda.device_array(tiles, np.int32)
    _kernel("encode_lanes")[tiles, WARP](intervals, first, lanes_log2, states, words, used)
    host_states, host_words, host_used = (array.copy_to_host() for array in (states, words, used))
    return [
        pack_stream(host_states[i].astype(np.uint32), host_words[i, symbols - host_used[i] :]) for i in range(tiles)
    ]


def _decode(program: _Program, jobs: Sequence[TileJob]) -> NDArray[np.uint8]:
    tiles, height, width = len(jobs), jobs[0].height, jobs[0].width
    coded, lanes_log2 = _coded(jobs[0].channels), jobs[0].lanes_log2
    rows, columns = block_grid(height, width)
    tensors = program.tensors
    streams = [split_stream(job) for job in jobs]
    ends = np.concatenate([[0], np.cumsum([len(words) for _, words in streams])]).astype(np.int64)
    # One word more than there are: a copy of nothing is refused.
    words = cuda.to_device(np.concatenate([*(words for _, words in streams), np.zeros(1, np.uint16)]))
    on_card = cuda.to_device(ends)
    states = cuda.to_device(np.stack([states for states, _ in streams]).astype(np.int64))
    used = cuda.to_device(np.zeros(tiles, np.int32))
    choices = cuda.to_device(np.zeros((tiles, 2, rows, columns), np.uint8))
    _launch(
        "decode_blocks", tiles, tensors["code.class"], tensors["code.cdf"], tensors["predictor.cdf"], lanes_log2, words,
        on_card, states, used, choices
    )  # fmt: skip
    table_rows, centres = _distributions(program, choices, (tiles, coded, height, width))
    found = cuda.to_device(np.zeros((tiles, coded, height, width), np.uint8))
    _kernel("decode_residuals")[tiles, WARP](
        tensors["cdf"], table_rows, centres, lanes_log2, words, on_card, states, used, found
    )
    for i, (host_states, host_used) in enumerate(zip(states.copy_to_host(), used.copy_to_host(), strict=True)):
        if host_used == cuda_kernels.OUT_OF_WORDS:
            raise FormatError("tile: the words end before the pixels do; the stream is damaged")
        check_end(host_states, int(host_used), int(ends[i + 1] - ends[i]))
    predictors = [array for c in range(CHANNELS) for array in program.predictor(c)]
    _kernel("undo")[tiles, UNDO_THREADS](found, choices, *predictors)
    pixels: NDArray[np.uint8] = found.copy_to_host()
    return pixels
