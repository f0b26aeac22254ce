"""The recipe of a member of the lossy family: everything that decides what a training run gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pilc_stream.errors import UsageError
from pilc_stream.training.lossy.configurations import FAMILY, Configuration

KIND = "lossy-family"
SUFFIX = ".json"
PREFIX = "lossy-"


@dataclass(frozen=True)
class FamilyRecipe:
    """How a member is trained.

    The loss is bits per pixel plus `tradeoff` times the mean squared error of grey levels 0 to 255. A batch is `batch`
    squares of `crop` pixels in random orientations. The learning rate is `rate`, and falls over the last
    `falling_steps` of `steps`.
    """

    member: str
    tradeoff: float
    crop: int
    batch: int
    seed: int
    steps: int
    falling_steps: int
    rate: float

    def __post_init__(self) -> None:
        if self.member not in FAMILY:
            raise UsageError(
                f"recipe: there is no member {self.member!r} of the lossy family; take {', '.join(FAMILY)}"
            )
        if min(self.crop, self.batch, self.steps) < 1 or not 0 < self.falling_steps <= self.steps or self.rate <= 0:
            raise UsageError(f"recipe {self.profile!r}: crop, batch, steps and the learning rate must be positive")
        if self.tradeoff <= 0:
            raise UsageError(f"recipe {self.profile!r}: the trade-off is {self.tradeoff}; give a positive one")

    @property
    def profile(self) -> str:
        """The member's name as a profile."""
        return PREFIX + self.member

    @property
    def configuration(self) -> Configuration:
        """The architecture."""
        return FAMILY[self.member]

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values; `from_json` is the inverse."""
        return {"kind": KIND, **asdict(self)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> FamilyRecipe:
        """A recipe from parsed JSON; TypeError, KeyError or UsageError where it is none."""
        return FamilyRecipe(**{name: value for name, value in values.items() if name != "kind"})


def find_family_recipe(name: str, tradeoff: float | None = None) -> FamilyRecipe | None:
    """The recipe of a member by its profile's name, or the file at that path if it is of this kind, with this trade-off
    if one is given. UsageError for a broken file."""
    member = name.removeprefix(PREFIX)
    is_member = name.startswith(PREFIX) and member in FAMILY
    if is_member:
        text = (resources.files("pilc_stream.training.lossy") / "recipes" / f"{KIND}{SUFFIX}").read_text()
    elif name.endswith(SUFFIX) and Path(name).is_file():
        text = Path(name).read_text()
    else:
        return None
    try:
        values = json.loads(text)
        if not isinstance(values, dict) or values.get("kind") != KIND:
            return None
        recipe = FamilyRecipe.from_json(values)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"recipe {name!r}: cannot be read: {error}") from error
    return replace(
        recipe,
        member=member if is_member else recipe.member,
        tradeoff=recipe.tradeoff if tradeoff is None else tradeoff,
    )
