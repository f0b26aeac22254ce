"""The recipe of a light lossy profile: everything that decides what a training run gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pilc_stream.errors import UsageError
from pilc_stream.models.lossy_spec import HYPER_STRIDE, LossySpec
from pilc_stream.training.recipe import find_recipe

KIND = "lossy-light"


@dataclass(frozen=True)
class Cycle:
    """A part of a run: the learning rate is `rate` and falls to nothing over the last `falling_steps` of `steps`; in
    the last `rounded_steps` the entropy nets are rounded as integers."""

    steps: int
    falling_steps: int
    rounded_steps: int
    rate: float

    def __post_init__(self) -> None:
        if not (1 <= self.falling_steps <= self.steps and 0 <= self.rounded_steps <= self.steps and self.rate > 0):
            raise UsageError(f"recipe: a cycle needs steps, some of them falling, and a positive rate: {self}")


@dataclass(frozen=True)
class LightRecipe:
    """How a light lossy profile is trained.

    The loss is bits per pixel plus a trade-off times the mean squared error (of grey levels 0 to 255); each picture of
    a batch draws a trade-off between `least_tradeoff` and `largest_tradeoff`. A batch is `batch` squares of `crop`
    pixels in random orientations, a share of them with halved colour resolution. In the first `entropy_steps` only the
    entropy nets learn, from the transform that the run begins with. The run is its `cycles`, one
    after the other.
    """

    profile: str
    spec: Mapping[str, Any]
    least_tradeoff: float
    largest_tradeoff: float
    crop: int
    batch: int
    halved_colour_share: float
    seed: int
    entropy_steps: int
    cycles: Sequence[Cycle]

    def __post_init__(self) -> None:
        if self.batch < 1 or not self.cycles or self.entropy_steps < 0:
            raise UsageError(f"recipe {self.profile!r}: it needs a batch and a cycle, and entropy_steps of 0 or more")
        if self.crop < HYPER_STRIDE or self.crop % HYPER_STRIDE:
            raise UsageError(f"recipe {self.profile!r}: crop is {self.crop}, not a multiple of {HYPER_STRIDE}")
        if not 0 < self.least_tradeoff < self.largest_tradeoff or not 0 <= self.halved_colour_share <= 1:
            raise UsageError(f"recipe {self.profile!r}: trade-offs must rise from above 0, and a share lie in [0, 1]")
        self.architecture()

    @property
    def steps(self) -> int:
        """Steps of all cycles."""
        return sum(cycle.steps for cycle in self.cycles)

    def cycle_at(self, step: int) -> tuple[Cycle, int]:
        """The cycle of a step, and how many steps of it are left."""
        for cycle in self.cycles:
            if step < cycle.steps:
                return cycle, cycle.steps - step
            step -= cycle.steps
        return self.cycles[-1], 0

    def architecture(self) -> LossySpec:
        """The specification that the recipe names; ModelError where it is none."""
        return LossySpec.from_json(self.spec)

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values; `from_json` is the inverse."""
        return {"kind": KIND, **asdict(self)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> LightRecipe:
        """A recipe from parsed JSON; TypeError, KeyError, ModelError or UsageError where it is none."""
        cycles = tuple(Cycle(**cycle) for cycle in values["cycles"])
        return LightRecipe(**{name: value for name, value in values.items() if name != "kind"} | {"cycles": cycles})


def find_light_recipe(name: str) -> LightRecipe | None:
    """The shipped recipe of that name, or the file at that path, if it is of this kind; UsageError for a broken one."""
    return find_recipe(name, "pilc_stream.training.lossy", KIND, LightRecipe.from_json)
