"""How kernels run the perceptron: each thread for its own pixel, or the threads of a warp together on tensor cores.

A kernel calls, in this order, `prepare` where there is a pixel and `first` everywhere, then `head_0` where there is a
pixel; then for each later channel `own` where it has a pixel of it, `later` everywhere and `head` where it has one.
Their first argument is where threads keep their words: shared memory (on tensor cores always) or local memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pilc_stream.backends.cuda.plan import Plan
from pilc_stream.backends.cuda.shim import ballot, device_function
from pilc_stream.backends.cuda.stages import Stages
from pilc_stream.backends.cuda.tensor import TensorStages
from pilc_stream.backends.cuda.tensor_plan import TensorPlan


class Network(NamedTuple):
    """Functions for kernels."""

    prepare: Any
    first: Any
    own_1: Any
    later_1: Any
    own_2: Any
    later_2: Any
    head_0: Any
    head_1: Any
    head_2: Any


def make_network(plan: Plan, stages: Stages) -> Network:
    """The network of an architecture, as its plan has it."""
    return _by_warps(plan, stages) if isinstance(plan, TensorPlan) else _by_threads(stages)


def _by_threads(stages: Stages) -> Network:
    trunk = stages.trunk

    @device_function
    def prepare(kept: Any, weights: Any, values: Any) -> None:
        """The trunk."""
        trunk((kept, weights), values)

    @device_function
    def own(kept: Any, values: Any) -> None:
        """Nothing: heads have their inputs in registers."""

    @device_function
    def together(kept: Any, weights: Any, busy: Any, values: Any) -> None:
        """Nothing: heads compute their hidden units."""

    heads = stages.head_0, stages.head_1, stages.head_2
    return Network(prepare, together, own, together, own, together, *heads)


def _by_warps(plan: TensorPlan, stages: Stages) -> Network:
    tensor = TensorStages(plan)
    put_inputs, put_1, put_2 = tensor.put_inputs, tensor.put_1, tensor.put_2
    trunk_and_first, stage_1, stage_2 = tensor.trunk_and_first, tensor.later_1, tensor.later_2

    @device_function
    def prepare(shared: Any, weights: Any, values: Any) -> None:
        """The inputs to where the warp finds them."""
        put_inputs((shared,), values)

    @device_function
    def first(shared: Any, weights: Any, busy: Any, values: Any) -> None:
        """The trunk and the first head's hidden units, where any thread of the warp has a pixel."""
        if ballot(busy) != 0:
            trunk_and_first((shared, weights), values)

    @device_function
    def own_1(shared: Any, values: Any) -> None:
        """The second head's own inputs to where the warp finds them."""
        put_1((shared,), values)

    @device_function
    def own_2(shared: Any, values: Any) -> None:
        """The third head's own inputs to where the warp finds them."""
        put_2((shared,), values)

    @device_function
    def later_1(shared: Any, weights: Any, busy: Any, values: Any) -> None:
        """The second head's hidden units, where any thread of the warp has a pixel."""
        if ballot(busy) != 0:
            stage_1((shared, weights), values)

    @device_function
    def later_2(shared: Any, weights: Any, busy: Any, values: Any) -> None:
        """The third head's hidden units, where any thread of the warp has a pixel."""
        if ballot(busy) != 0:
            stage_2((shared, weights), values)

    heads = stages.outputs_0, stages.outputs_1, stages.outputs_2
    return Network(prepare, first, own_1, later_1, own_2, later_2, *heads)
