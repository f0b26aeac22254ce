"""The CPU backend of the codec `pilc`: float32 BLAS for products, compiled loops for the rest, over threads if asked.

Tiles of one shape go through the network together, up to `BATCH_PIXELS`; the results do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilc_stream.arith.blocks import BLOCK, QUARTERS
from pilc_stream.arith.context import CHANNELS, COLUMNS_AROUND, ROWS_ABOVE
from pilc_stream.arith.perceptron import ACTIVATION_LIMIT, FRACTIONS
from pilc_stream.arith.rans import STATE_LOW
from pilc_stream.backends.base import Tile, TileJob, check_end, pack_stream, split_stream
from pilc_stream.backends.pilc import kernels
from pilc_stream.backends.pilc.base import MEAN_LIMIT, Choices, block_grid, parts, quarter_pixels
from pilc_stream.backends.planes import coding_planes, image_tile, padded
from pilc_stream.errors import FormatError
from pilc_stream.models.pilc import OUTPUTS, PilcModel

BATCH_PIXELS = 1 << 17

Floats = NDArray[np.float32]


class TileCoding(NamedTuple):
    """What an encoder knows of a tile before it codes it: its choices, and residuals int16 `(channels, h, w)`."""

    choices: Choices
    residuals: NDArray[np.int16]


class Program:
    """A model laid out for this backend."""

    def __init__(self, model: PilcModel) -> None:
        self.model = model
        tensors = model.tensors
        self.taps = [np.array(taps, np.int64) for taps in model.spec.taps]
        self.predictors = [model.predictor(c) for c in range(CHANNELS)]
        self.all_weights = [np.ascontiguousarray(weight.T, np.float32) for weight, _ in self.predictors]
        self.layers = {
            name: (
                np.ascontiguousarray(layer.weight.T, np.float32),
                layer.bias.astype(np.int32),
                layer.shift.astype(np.int32),
            )
            for name, layer in model.layers.items()
        }
        self.features = [tensors[f"{name}.features"].astype(np.float32) for name in ("code", "predictor")]
        self.scales = [tensors[f"{name}.scale"].astype(np.int32) for name in ("code", "predictor")]
        self.row_of = np.ascontiguousarray(model.row_of).reshape(-1)


class PilcCpuEngine:
    """Codes batches of tiles; results do not depend on the number of threads or on the machine."""

    name = "cpu"

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._programs: dict[str, Program] = {}

    def encode_tiles(self, model: PilcModel, tiles: Sequence[Tile], lanes_log2: Sequence[int]) -> list[bytes]:
        """One stream per tile."""
        program, out = self._program(model), [b""] * len(tiles)

        def code(members: Sequence[int]) -> None:
            codings = [code_tile(program, tiles[i]) for i in members]
            found = distributions(program, [coding.choices for coding in codings], *tiles[members[0]].shape[:2])
            for i, coding, (rows, centres) in zip(members, codings, found, strict=True):
                out[i] = _encode(program, coding, rows, centres, 1 << lanes_log2[i])

        self._for_each_batch([tile.shape for tile in tiles], code)
        return out

    def decode_tiles(self, model: PilcModel, jobs: Sequence[TileJob]) -> list[Tile]:
        """The tiles again."""
        program = self._program(model)
        out: list[Tile] = [np.empty(0, np.uint8)] * len(jobs)

        def code(members: Sequence[int]) -> None:
            begun = [_decode_choices(program, jobs[i]) for i in members]
            height, width = jobs[members[0]].height, jobs[members[0]].width
            found = distributions(program, [choices for choices, _, _, _ in begun], height, width)
            for i, (choices, states, words, used), (rows, centres) in zip(members, begun, found, strict=True):
                out[i] = _decode(program, jobs[i], choices, states, words, used, rows, centres)

        self._for_each_batch([(job.height, job.width, job.channels) for job in jobs], code)
        return out

    def codings(self, model: PilcModel, tiles: Sequence[Tile]) -> list[TileCoding]:
        """Choices and residuals of each tile: what the decoder network is trained on."""
        program = self._program(model)
        return [code_tile(program, tile) for tile in tiles]

    def _for_each_batch(self, shapes: Sequence[tuple[int, ...]], code: Callable[[Sequence[int]], None]) -> None:
        """Group equal shapes into batches and code each; several at once where there are threads."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, shape in enumerate(shapes):
            by_shape.setdefault(shape, []).append(index)
        batches = []
        for shape, members in by_shape.items():
            size = max(1, BATCH_PIXELS // (shape[0] * shape[1]))
            batches += [members[first : first + size] for first in range(0, len(members), size)]
        if self.threads == 1 or len(batches) < 2:
            for batch in batches:
                code(batch)
            return
        with ThreadPoolExecutor(min(self.threads, len(batches))) as pool:
            for done in [pool.submit(code, batch) for batch in batches]:
                done.result()

    def _program(self, model: PilcModel) -> Program:
        if model.sha256 not in self._programs:
            self._programs[model.sha256] = Program(model)
        return self._programs[model.sha256]


def code_tile(program: Program, tile: Tile) -> TileCoding:
    """An encoder's choices for a tile, and the residuals under them."""
    height, width, channels = tile.shape
    planes = coding_planes(tile)
    surrounded = padded(planes).astype(np.int16)
    coded = parts(channels) // QUARTERS
    rows, columns = block_grid(height, width)
    predictors = program.model.spec.predictors
    sums = np.zeros((coded, rows, columns, QUARTERS, predictors), np.int32)
    for c in range(coded):
        inputs = np.empty((height * width, len(program.taps[c])), np.float32)
        kernels.gather(surrounded, program.taps[c], inputs)
        # Whole numbers below 2**24 in magnitude: float32 holds every partial sum exactly.
        kernels.add_residuals(inputs @ program.all_weights[c], program.predictors[c][1], planes[c], sums[c])
    choices = np.empty((2, rows, columns), np.int64)
    tensors = program.model.tensors
    kernels.choose_blocks(
        sums, quarter_pixels(height, width), tensors["encoder.log"], tensors["encoder.predictor"],
        tensors["encoder.slope"], tensors["encoder.level"], tensors["encoder.code"], choices
    )  # fmt: skip
    residuals = np.empty((coded, height, width), np.int16)
    for c in range(coded):
        weight, bias = program.predictors[c]
        kernels.residuals(surrounded, c, program.taps[c], weight, bias, choices[1], residuals[c])
    return TileCoding(Choices(choices[0], choices[1]), residuals)


def distributions(
    program: Program, choices: Sequence[Choices], height: int, width: int
) -> list[tuple[NDArray[np.uint16], NDArray[np.int16]]]:
    """Of each tile (all of one shape): table rows uint16 and centres int16 `(3, h, w)`, by the decoder network."""
    codes, predictors = (np.stack([each[i] for each in choices]) for i in range(2))
    values = np.concatenate([program.features[0][codes], program.features[1][predictors]], axis=3)
    for level in ("coarse", "middle"):
        values = _shuffled(_hidden(program, f"{level}.split", _hidden(program, level, _surroundings(values))))
    values = _hidden(program, "fine", _surroundings(values))
    outputs = _shuffled(_outputs(program, "head", values))[:, :height, :width]
    mean = np.clip(outputs[..., :CHANNELS], -MEAN_LIMIT, MEAN_LIMIT) + FRACTIONS // 2
    added = program.scales[0][codes] + program.scales[1][predictors]
    scale = outputs[..., CHANNELS:OUTPUTS] + added.repeat(BLOCK, 1).repeat(BLOCK, 2)[:, :height, :width]
    np.clip(scale, 0, program.model.spec.scale_count - 1, out=scale)
    rows = program.row_of[FRACTIONS * scale + (mean & (FRACTIONS - 1))].transpose(0, 3, 1, 2)
    centres = (mean >> 4).astype(np.int16).transpose(0, 3, 1, 2)
    return [(np.ascontiguousarray(rows[i]), np.ascontiguousarray(centres[i])) for i in range(len(choices))]


def _outputs(program: Program, name: str, values: Floats) -> NDArray[np.int32]:
    weight, bias, shift = program.layers[name]
    # Exact in float32 whatever the order, as every sum is below 2**24.
    total = (values.reshape(-1, values.shape[-1]) @ weight).astype(np.int32)
    total += bias
    total >>= shift
    return total.reshape(*values.shape[:-1], len(bias))


def _hidden(program: Program, name: str, values: Floats) -> Floats:
    return np.clip(_outputs(program, name, values), 0, ACTIVATION_LIMIT).astype(np.float32)


def _surroundings(values: Floats) -> Floats:
    """`(n, h, w, c)` -> `(n, h, w, 9 c)`: each place with its eight neighbours, 0 outside."""
    count, height, width, channels = values.shape
    wide = np.zeros((count, height + 2, width + 2, channels), np.float32)
    wide[:, 1:-1, 1:-1] = values
    out = np.empty((count, height, width, 9, channels), np.float32)
    for y in range(3):
        for x in range(3):
            out[:, :, :, 3 * y + x] = wide[:, y : y + height, x : x + width]
    return out.reshape(count, height, width, 9 * channels)


def _shuffled(values: NDArray[Any]) -> NDArray[Any]:
    """`(n, h, w, 4 c)` -> `(n, 2 h, 2 w, c)`."""
    count, height, width, channels = values.shape
    groups = values.reshape(count, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(groups).reshape(count, 2 * height, 2 * width, channels // 4)


def _encode(
    program: Program, coding: TileCoding, rows: NDArray[np.uint16], centres: NDArray[np.int16], lanes: int
) -> bytes:
    tensors, choices = program.model.tensors, np.stack(coding.choices)
    blocks, count = 2 * choices[0].size, coding.residuals.size
    starts, sizes = np.empty(blocks + count, np.int32), np.empty(blocks + count, np.int32)
    kernels.block_intervals(
        tensors["code.class"], tensors["code.cdf"], tensors["predictor.cdf"], choices, starts, sizes
    )
    coded = len(coding.residuals)
    kernels.residual_intervals(
        program.model.cdf, rows[:coded].reshape(-1), centres[:coded].reshape(-1), coding.residuals.reshape(-1),
        starts[blocks:], sizes[blocks:]
    )  # fmt: skip
    states = np.full(lanes, STATE_LOW, np.uint32)
    # At most one word leaves per symbol.
    words = np.empty(blocks + count, np.uint16)
    used = kernels.encode_lanes(starts, sizes, blocks, states, words)
    return pack_stream(states, words[len(words) - used :])


def _decode_choices(program: Program, job: TileJob) -> tuple[Choices, NDArray[np.uint32], NDArray[np.uint16], int]:
    tensors = program.model.tensors
    states, words = split_stream(job)
    choices = np.zeros((2, *block_grid(job.height, job.width)), np.int64)
    used = kernels.decode_blocks(
        tensors["code.class"], tensors["code.cdf"], tensors["predictor.cdf"], states, words, choices
    )
    _check_words(used)
    return Choices(choices[0], choices[1]), states, words, used


def _decode(
    program: Program,
    job: TileJob,
    choices: Choices,
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
    used: int,
    rows: NDArray[np.uint16],
    centres: NDArray[np.int16],
) -> Tile:
    coded = parts(job.channels) // QUARTERS
    found = np.empty((coded, job.height, job.width), np.uint8)
    used = kernels.decode_residuals(
        program.model.cdf, rows[:coded].reshape(-1), centres[:coded].reshape(-1), states, words, used, found.reshape(-1)
    )
    _check_words(used)
    check_end(states, used, len(words))
    surrounded = np.empty((coded, job.height + ROWS_ABOVE, job.width + 2 * COLUMNS_AROUND), np.int16)
    for c in range(coded):
        weight, bias = program.predictors[c]
        kernels.undo(surrounded, c, program.taps[c], weight, bias, choices.predictors, found[c])
    inside = surrounded[:, ROWS_ABOVE:, COLUMNS_AROUND : COLUMNS_AROUND + job.width]
    return image_tile(inside.astype(np.int64), job.channels)


def _check_words(used: int) -> None:
    if used == kernels.OUT_OF_WORDS:
        raise FormatError("tile: the words end before the pixels do; the stream is damaged")
