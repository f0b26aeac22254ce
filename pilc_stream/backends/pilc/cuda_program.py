"""The codec's kernels with their launches: a model on a card."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from pilc_stream.arith.blocks import QUARTERS
from pilc_stream.backends.cuda.program import BLOCK_LOG2, COPY_BLOCKS, I32, JOBS, NUMBER, U8, U16
from pilc_stream.backends.cuda.shim import SIMULATED, WARP, Kernel, cuda, types
from pilc_stream.backends.cuda.store import with_store
from pilc_stream.backends.pilc import cuda_coder
from pilc_stream.backends.pilc.base import block_grid
from pilc_stream.backends.pilc.cuda_network import make_convolution, make_network
from pilc_stream.backends.pilc.cuda_pixels import BLOCK_PIXELS, make_pixel_kernels
from pilc_stream.backends.pilc.plan import PilcPlan, pack_scales
from pilc_stream.backends.pilc.stages import STEPS_KEPT
from pilc_stream.models.pilc import PilcModel

THREADS = 1 << BLOCK_LOG2
LAYER_BLOCKS = 512
"""Of a layer's units of one group at most: each copies their weights to shared memory before its places."""

CHOOSE_THREADS = 64 if not SIMULATED else 8
"""Of a block that chooses: as many as the shipped model has predictors."""

I32_2 = types.int32[:, ::1]
_CHOICES, _SHAPE = U8, (NUMBER, NUMBER, NUMBER)

SIGNATURES = {
    "choose": (JOBS, *_SHAPE, U8, I32, I32, I32, I32, I32, I32, _CHOICES),
    "embed": (_CHOICES, NUMBER, NUMBER, I32_2, I32_2, I32),
    "convolution": (I32, NUMBER, NUMBER, NUMBER, NUMBER, I32, I32),
    "distribute": (I32, NUMBER, NUMBER, *_SHAPE, _CHOICES, I32, I32, U16, I32),
    "block_intervals": (_CHOICES, NUMBER, NUMBER, NUMBER, NUMBER, U8, U16, NUMBER, U16, NUMBER, I32),
    "residual_intervals": (JOBS, *_SHAPE, U8, I32, U16, _CHOICES, I32, I32),
    "undo": (JOBS, NUMBER, *_SHAPE, _CHOICES, I32, I32, U8),
    "blocks": (JOBS, NUMBER, NUMBER, NUMBER, U8, U16, NUMBER, U16, NUMBER, U16, _CHOICES, I32, I32, I32),
    "residuals": (JOBS, NUMBER, NUMBER, NUMBER, I32, I32, U16, I32, I32, I32, U8, I32),
    "lanes": (JOBS, NUMBER, NUMBER, NUMBER, I32, U16, I32_2, I32),
}
"""The types of each kernel's arguments; every layer is a `convolution`."""


class Tiles(NamedTuple):
    """Tiles of one shape that stand together in a batch: their jobs, their number, and their shape."""

    jobs: Any
    number: int
    height: int
    width: int
    channels: int
    lanes_log2: int
    team_log2: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of blocks of a tile."""
        return block_grid(self.height, self.width)

    @property
    def blocks(self) -> int:
        """Blocks of a tile."""
        rows, columns = self.grid
        return rows * columns

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.height, self.width, self.channels


def bodies(plan: PilcPlan) -> dict[str, Any]:
    """Every kernel of an architecture by name, not compiled; layers by their own names."""
    return {
        **make_pixel_kernels(plan)._asdict(),
        **make_network(plan)._asdict(),
        **{layer.name: make_convolution(layer) for layer in plan.layers},
        **{name: getattr(cuda_coder, name) for name in cuda_coder.__all__},
    }


def signature(name: str) -> tuple[Any, ...]:
    """The types of a kernel's arguments."""
    return SIGNATURES.get(name, SIGNATURES["convolution"])


@lru_cache(maxsize=16)
def _kernels(plan: PilcPlan) -> dict[str, Kernel]:
    return {
        name: Kernel(body, signature(name), partial(with_store, name=f"pilc-{name}", about=str(plan)))
        for name, body in bodies(plan).items()
    }


def shared_bytes(plan: PilcPlan, name: str, team_log2: int = BLOCK_LOG2) -> int:
    """Shared memory of a kernel's block."""
    layers = {layer.name: layer for layer in plan.layers}
    if name in layers:
        return 4 * layers[name].group_size
    if name == "undo":
        return 4 * STEPS_KEPT * max(1 << team_log2, THREADS)
    parts = QUARTERS * len(plan.spec.taps)
    words = {
        "choose": BLOCK_PIXELS * plan.pixel_words + parts * plan.spec.predictors,
        "distribute": 4 * plan.head_size,
        "blocks": max(WARP, THREADS),
    }
    return 4 * words.get(name, 0)


class PilcProgram:
    """A model on the card. Its methods queue kernels on a stream, for tiles of one shape."""

    def __init__(self, model: PilcModel) -> None:
        self.plan = PilcPlan(model.spec)
        self._kernels = _kernels(self.plan)
        tensors = model.tensors

        def there(values: Any, dtype: DTypeLike | None = None) -> Any:
            return cuda.to_device(np.ascontiguousarray(values, dtype))

        self._predictors = there(self.plan.pack_predictors(model).reshape(-1))
        self._features = [there(words) for words in self.plan.pack_features(model)]
        self._layers = [(layer, there(layer.pack(model.layers[layer.name]))) for layer in self.plan.layers]
        self._head, self._scales = there(self.plan.pack_head(model)), there(pack_scales(model).reshape(-1))
        self._row_of = there(model.row_of.reshape(-1))
        self._choosing = [there(tensors[f"encoder.{name}"]) for name in ("log", "predictor")]
        self._choosing += [there(tensors[f"encoder.{name}"].T).reshape(-1) for name in ("slope", "level")]
        self._choosing.append(there(tensors["encoder.code"]))
        self._cdf = there(model.cdf.reshape(-1))
        self._coarse = there(np.ascontiguousarray(model.cdf[:, ::16]).reshape(-1).view(np.int32))
        self._cdf_words = self._cdf.view(np.int32)
        self._classes = there(tensors["code.class"])
        codes, predictors = (there(tensors[f"{name}.cdf"].reshape(-1)) for name in ("code", "predictor"))
        self._block_tables = (self._classes, codes, model.spec.codes, predictors, model.spec.predictors)
        # These copies are in the order of the default stream, for which those of batches do not wait.
        cuda.synchronize()

    def _launch(self, name: str, stream: Any, blocks: Any, threads: int, *arguments: Any, team_log2: int = 0) -> None:
        size = shared_bytes(self.plan, name, team_log2)
        self._kernels[name].launch(blocks, threads, stream, size, *arguments)

    def _each(self, name: str, stream: Any, count: int, *arguments: Any) -> None:
        """With a thread for each of so many."""
        self._launch(name, stream, -(-count // THREADS), THREADS, *arguments)

    def choose(self, stream: Any, tiles: Tiles, pixels: Any, choices: Any) -> None:
        """The codes and predictors of all blocks."""
        arguments = (tiles.jobs, *tiles.shape, pixels, self._predictors, *self._choosing, choices)
        self._launch("choose", stream, tiles.number * tiles.blocks, CHOOSE_THREADS, *arguments)

    def network(self, stream: Any, tiles: Tiles, choices: Any, scratch: tuple[Any, Any], tables: Any) -> None:
        """The table words of all sub-pixels; `scratch`: two buffers for activations."""
        rows, columns = tiles.grid
        values, other = scratch
        self._each(
            "embed", stream, tiles.number * tiles.blocks, choices, tiles.number, tiles.blocks, *self._features, values
        )
        words = sum(self.plan.feature_words)
        for layer, parameters in self._layers:
            places = tiles.number * rows * columns
            grid = (min(-(-places // THREADS), LAYER_BLOCKS), layer.groups)
            self._launch(
                layer.name, stream, grid, THREADS, values, words, tiles.number, rows, columns, parameters, other
            )
            values, other, words = other, values, layer.out_words
            if layer.splits:
                rows, columns = 2 * rows, 2 * columns
        places = tiles.number * rows * columns
        self._launch(
            "distribute", stream, min(-(-places // THREADS), COPY_BLOCKS), THREADS, values, words, tiles.number,
            *tiles.shape, choices, self._head, self._scales, self._row_of, tables
        )  # fmt: skip

    def intervals(self, stream: Any, tiles: Tiles, pixels: Any, choices: Any, tables: Any, intervals: Any) -> None:
        """The intervals of all symbols."""
        rows, columns = tiles.grid
        size = tiles.height * tiles.width
        symbols = 2 * tiles.blocks + tiles.channels * size
        about = (choices, tiles.number, rows, columns, symbols, *self._block_tables)
        self._each("block_intervals", stream, tiles.number * tiles.blocks, *about, intervals)
        self._each(
            "residual_intervals", stream, tiles.number * size, tiles.jobs, *tiles.shape, pixels, self._predictors,
            self._cdf, choices, tables, intervals
        )  # fmt: skip

    def lanes(self, stream: Any, tiles: Tiles, intervals: Any, words: Any, states: Any, lengths: Any) -> None:
        """Code the symbols."""
        symbols = 2 * tiles.blocks + tiles.channels * tiles.height * tiles.width
        threads = max(THREADS, 1 << tiles.lanes_log2)
        self._launch("lanes", stream, -(-(tiles.number << tiles.lanes_log2) // threads), threads, tiles.jobs,
                     tiles.lanes_log2, 2 * tiles.blocks, symbols, intervals, words, states, lengths)  # fmt: skip

    def blocks(
        self, stream: Any, tiles: Tiles, words: Any, choices: Any, states: Any, places: Any, status: Any
    ) -> None:
        """Decode codes and predictors; leaves the lanes where the residuals begin."""
        threads = max(WARP, THREADS)
        self._launch("blocks", stream, -(-tiles.number * WARP // threads), threads, tiles.jobs, tiles.lanes_log2,
                     *tiles.grid, *self._block_tables, words, choices, states, places, status)  # fmt: skip

    def residuals(
        self, stream: Any, tiles: Tiles, words: Any, tables: Any, states: Any, places: Any, found: Any, status: Any
    ) -> None:
        """Decode the residuals, and say what was found of each tile's stream."""
        threads = max(THREADS, 1 << tiles.lanes_log2)
        self._launch("residuals", stream, -(-(tiles.number << tiles.lanes_log2) // threads), threads, tiles.jobs,
                     tiles.lanes_log2, tiles.height * tiles.width, tiles.channels, self._coarse, self._cdf_words, words,
                     tables, states, places, found, status)  # fmt: skip

    def undo(self, stream: Any, tiles: Tiles, choices: Any, found: Any, pixels: Any) -> None:
        """Make pixels of residuals."""
        threads = max(THREADS, 1 << tiles.team_log2)
        teams = threads >> tiles.team_log2
        self._launch("undo", stream, -(-tiles.number // teams), threads, tiles.jobs, tiles.team_log2, *tiles.shape,
                     choices, self._predictors, found, pixels, team_log2=tiles.team_log2)  # fmt: skip
