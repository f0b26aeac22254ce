"""The kernels of the decoder network: products of bytes by DP4A, weights in shared memory (see `cuda_coder`)."""

# ruff: noqa: RUF005 - Numba types the sum of two tuples, not a display with stars.

from __future__ import annotations

from typing import Any, NamedTuple

from pilc_stream.arith.blocks import BLOCK, BLOCK_LOG2
from pilc_stream.arith.context import CHANNELS
from pilc_stream.backends.cuda.shim import cuda, device_function, narrow, shared_words
from pilc_stream.backends.pilc.plan import GROUP_UNITS, GROUP_WORDS, LayerPlan, PilcPlan
from pilc_stream.backends.pilc.stages import PilcStages, begin_stage, end_stage, products_stage


class NetworkKernels(NamedTuple):
    """The kernels before and behind the hidden layers, not compiled."""

    embed: Any
    distribute: Any


def make_network(plan: PilcPlan) -> NetworkKernels:
    """These kernels of an architecture."""
    stages = PilcStages(plan)
    load_place, tables_of = stages.load_place, stages.tables
    codes, head_size = plan.spec.codes, plan.head_size
    code_words, both_words = plan.feature_words[0], sum(plan.feature_words)

    def embed(choices: Any, tiles: Any, blocks: Any, code: Any, predictor: Any, out: Any) -> None:
        """What each block puts into the network; a thread for each tile and block."""
        number = cuda.grid(1)
        tile, block = number // blocks, number % blocks
        if tile >= tiles:
            return
        at = tile * both_words * blocks + block
        entry = choices[2 * tile * blocks + block]
        for j in range(code_words):
            out[at + j * blocks] = code[entry, j]
        entry = choices[(2 * tile + 1) * blocks + block]
        for j in range(code_words, both_words):
            out[at + j * blocks] = predictor[entry, j - code_words]

    def distribute(values: Any, tile_words: Any, tiles: Any, height: Any, width: Any, depth: Any, choices: Any,
                   parameters: Any, scales: Any, row_of: Any, tables: Any) -> None:  # fmt: skip
        """The last layer, and the tables' rows and centres that follow; a thread for each place of 2 x 2 pixels.

        A tile's `values` take `tile_words` planes.
        """
        shared = shared_words()
        thread, threads = narrow(cuda.threadIdx.x), narrow(cuda.blockDim.x)
        for i in range(thread, 4 * head_size, threads):
            shared[i] = parameters[i]
        cuda.syncthreads()
        block_columns = narrow((width + BLOCK - 1) >> BLOCK_LOG2)
        blocks = narrow(((height + BLOCK - 1) >> BLOCK_LOG2) * block_columns)
        columns, plane = narrow(4 * block_columns), narrow(16 * blocks)
        scale_count = narrow(row_of.shape[0] >> 4)
        for number in range(cuda.blockIdx.x * threads + thread, tiles * plane, threads * cuda.gridDim.x):
            tile, place = narrow(number // plane), narrow(number % plane)
            y, x = narrow(place // columns), narrow(place % columns)
            block = narrow((y >> 2) * block_columns + (x >> 2))
            code = narrow(choices[2 * tile * blocks + block])
            predictor = narrow(codes + choices[(2 * tile + 1) * blocks + block])
            words = load_place((values,), (tile * tile_words * plane + place, plane))
            for pixel in range(4):
                row, column = narrow(2 * y + (pixel >> 1)), narrow(2 * x + (pixel & 1))
                if row < height and column < width:
                    about = (pixel * head_size, 4 * code, 4 * predictor, scale_count)
                    found = tables_of((shared, scales, row_of), words + about)
                    at = (tile * depth * height + row) * width + column
                    tables[at] = found[0]
                    if depth == CHANNELS:
                        tables[at + height * width] = found[1]
                        tables[at + 2 * height * width] = found[2]

    return NetworkKernels(embed, distribute)


def make_convolution(layer: LayerPlan) -> Any:
    """The kernel of a hidden layer: `values` and `out` as planes, a tile's `values` in `tile_words` of them.

    A CUDA block has one group of units, ``blockIdx.y``, whose parameters it copies to shared memory; its threads have
    places, one after the other.
    """
    taps, words, size, out_words = layer.taps, len(layer.inputs), layer.group_size, layer.out_words
    reach, splits = int(taps > 1), layer.splits
    add_products = products_stage(words)

    if splits:

        @device_function
        def offset(number: Any, width: Any, plane: Any) -> Any:
            """Where the group's words lie for a place: in one of the four that it becomes."""
            word = narrow(cuda.blockIdx.y * GROUP_WORDS + number)
            group = word // out_words
            return narrow((word - group * out_words) * 4 * plane + (group >> 1) * 2 * width + (group & 1))

        @device_function
        def base(tile: Any, y: Any, x: Any, width: Any, plane: Any) -> Any:
            """The top left one of these, in the tile's first plane."""
            return narrow(tile * out_words * 4 * plane + 4 * y * width + 2 * x)

    else:

        @device_function
        def offset(number: Any, width: Any, plane: Any) -> Any:
            """Where the group's words lie for a place."""
            return narrow((cuda.blockIdx.y * GROUP_WORDS + number) * plane)

        @device_function
        def base(tile: Any, y: Any, x: Any, width: Any, plane: Any) -> Any:
            """The place in the tile's first plane."""
            return narrow(tile * out_words * plane + y * width + x)

    def convolution(
        values: Any, tile_words: Any, tiles: Any, height: Any, width: Any, parameters: Any, out: Any
    ) -> None:
        shared = shared_words()
        thread, threads = narrow(cuda.threadIdx.x), narrow(cuda.blockDim.x)
        for i in range(thread, size, threads):
            shared[i] = parameters[cuda.blockIdx.y * size + i]
        cuda.syncthreads()
        plane = narrow(height * width)
        o0, o1, o2, o3 = (offset(0, width, plane), offset(1, width, plane), offset(2, width, plane),
                          offset(3, width, plane))  # fmt: skip
        for number in range(cuda.blockIdx.x * threads + thread, tiles * plane, threads * cuda.gridDim.x):
            tile, place = narrow(number // plane), narrow(number % plane)
            y, x = narrow(place // width), narrow(place % width)
            first = narrow(tile * tile_words * plane + place)
            sums = begin_stage((shared,), (0,))
            weight = narrow(2 * GROUP_UNITS)
            for tap in range(taps):
                dy, dx = narrow(tap // 3 - reach), narrow(tap % 3 - reach)
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    at = narrow(first + dy * width + dx)
                    sums = add_products((shared, values), sums + (at, plane, weight))
                weight = narrow(weight + words * GROUP_UNITS)
            found = end_stage((shared,), sums)
            at = base(tile, y, x, width, plane)
            out[at + o0], out[at + o1], out[at + o2], out[at + o3] = found[0], found[1], found[2], found[3]

    return convolution
