"""The perceptron's layers on tensor cores, as stages that all threads of a warp run together. See `tensor_plan`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from pilc_stream.backends.cuda.plan import BYTES, words_of
from pilc_stream.backends.cuda.ring import pack_all
from pilc_stream.backends.cuda.stages import Known, own_inputs
from pilc_stream.backends.cuda.tensor_plan import LIFT, PAIR_WORDS, PRODUCT_WORDS, UNIT_WORDS, TensorPlan
from pilc_stream.backends.cuda.trace import stage

Values = Sequence[Any]


def put_inputs(plan: TensorPlan, ops: Any, memory: Values, values: Values) -> Values:
    """A pixel's inputs to shared memory. `values`: of `context`, then the thread's first word there, the stride."""
    *_, out, stride = values
    for word, value in enumerate(Known(plan, ops, values).inputs):
        memory[0][out + word * stride] = value
    return [0]


def put_own(c: int, plan: TensorPlan, ops: Any, memory: Values, values: Values) -> Values:
    """A head's own inputs to shared memory, behind the trunk's units. `values`: as `stages.head` takes them."""
    *_, out, stride = values
    own, _ = own_inputs(c, plan, ops, values)
    for word, value in enumerate(pack_all(ops, [value + LIFT for value in own]), plan.own_at):
        memory[0][out + word * stride] = value
    return [0]


def layer(plan: TensorPlan, ops: Any, memory: Values, name: str, source: Any, out: Any, stride: Any, lane: Any) -> None:
    """A layer of a warp's pixels. `source`, `out`: the first word of the warp's first thread there; may be the same."""
    shared, parameters = memory
    products, size, signed = plan.products(name), plan.tile_words(name), name == "trunk.0"
    group, quarter = lane >> 2, lane & 3
    pixels = [[group, group + 8], [group + 16, group + 24]]
    inputs = [
        [
            [
                shared[source + (PRODUCT_WORDS * product + BYTES * far + quarter) * stride + pixel]
                for far in (0, 1)
                for pixel in half
            ]
            for product in range(products)
        ]
        for half in pixels
    ]
    # Units may take the place of inputs.
    ops.sync_warp()

    def tile(index: Any) -> None:
        first = plan.place(name) + BYTES + index * size
        *biases, shift_0, shift_1 = parameters.vector(first + BYTES * quarter)
        sums: list[Sequence[Any]] = [[*biases, *biases] for _ in pixels]
        for pair in range(words_of(products, 2)):
            weights = parameters.vector(first + UNIT_WORDS + PAIR_WORDS * pair + BYTES * lane)
            for product in range(2 * pair, min(2 * pair + 2, products)):
                own = weights[2 * (product - 2 * pair) :][:2]
                sums = [
                    ops.multiply(total, rows[product], own, signed) for total, rows in zip(sums, inputs, strict=True)
                ]
        word = out + (2 * index + (quarter >> 1)) * stride
        for half, total in zip(pixels, sums, strict=True):
            for i, pixel in enumerate(half):
                # Saturation is the activation: `arith.perceptron.hidden_activation`.
                units = ops.pack_saturated(total[2 * i] >> shift_0, total[2 * i + 1] >> shift_1)
                shared.put_half(word + pixel, quarter & 1, units)

    # The number of tiles comes from memory, so that the compiler does not unroll the loop.
    ops.repeat(parameters[plan.place(name)], tile)
    ops.sync_warp()


def trunk_and_first(plan: TensorPlan, ops: Any, memory: Values, values: Values) -> Values:
    """The trunk and the first head's hidden units, behind `put_inputs`. `memory`: shared, parameters.

    `values`: first word of the warp's first thread, stride, lane.
    """
    column, stride, lane = values
    ops.sync_warp()
    for i in range(len(plan.spec.trunk)):
        layer(plan, ops, memory, f"trunk.{i}", column, column, stride, lane)
    layer(plan, ops, memory, "head.0.hidden", column, column + plan.head_at * stride, stride, lane)
    return [0]


def later(c: int, plan: TensorPlan, ops: Any, memory: Values, values: Values) -> Values:
    """The hidden units of a later head, behind `put_own`. `memory`, `values`: as `trunk_and_first` takes them."""
    column, stride, lane = values
    ops.sync_warp()
    layer(plan, ops, memory, f"head.{c}.hidden", column, column + plan.head_at * stride, stride, lane)
    return [0]


class TensorStages:
    """These stages of one architecture as functions for kernels."""

    def __init__(self, plan: TensorPlan) -> None:
        self.put_inputs = stage(partial(put_inputs, plan), 1)
        self.put_1, self.put_2 = (stage(partial(put_own, c, plan), 1) for c in (1, 2))
        self.trunk_and_first = stage(partial(trunk_and_first, plan), 1)
        self.later_1, self.later_2 = (stage(partial(later, c, plan), 1) for c in (1, 2))
