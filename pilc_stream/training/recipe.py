"""Recipes: everything that decides what a training run gives, as one small JSON file per shipped profile."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pilc_stream.errors import UsageError
from pilc_stream.models.spec import WaveSpec
from pilc_stream.records.tiling import DEFAULT_TILE_LOG2

SUFFIX = ".json"

AnyRecipe = TypeVar("AnyRecipe")


@dataclass(frozen=True)
class Stage:
    """A part of a run: so many steps, with the learning rate on half a cosine, and noise on the weights.

    `weight_noise` is in steps of the integer weights: less than the 1 of plain rounding, as most of that is made up for
    (`rounding`). Noise makes weights that round well, and slows learning at high rates (`EXPERIMENTS.md`).
    """

    steps: int
    rate_from: float
    rate_to: float
    weight_noise: float = 0.4

    def __post_init__(self) -> None:
        if self.steps < 1 or not (self.rate_from > 0 and self.rate_to >= 0 and self.weight_noise >= 0):
            raise UsageError(f"recipe: a stage needs steps, a positive learning rate, no negative noise, found {self}")

    def rate(self, share: float) -> float:
        """The learning rate when `share` of the stage is done."""
        return self.rate_to + (self.rate_from - self.rate_to) * 0.5 * (1 + math.cos(math.pi * share))


def stage_at(stages: Sequence[Stage], step: float) -> tuple[Stage, float]:
    """The stage that a step belongs to, and the share of the stage that is done before it."""
    for stage in stages:
        if step < stage.steps:
            return stage, step / stage.steps
        step -= stage.steps
    return stages[-1], 1.0


@dataclass(frozen=True)
class Recipe:
    """How a profile is trained.

    Images are cut into tiles of at most `tile_edge` a side, of each at most `pixels_per_tile` random pixels are taken;
    so are `synthetic_pictures`. Shares of the tiles are reduced, recoloured, made grey, get halved colour resolution,
    go through JPEG (`augment`). After `epochs_per_draw` passes over these pixels, all of this is drawn anew (0:
    never). A run is its `stages`, one after the other; then the weights are rounded (`rounding`). The model will be
    for tiles of ``2**tile_log2`` a side.
    """

    profile: str
    neighbours: Sequence[Sequence[int]]
    taps: int
    trunk: Sequence[int]
    head: int
    tile_edge: int
    pixels_per_tile: int
    grey_share: float
    halved_colour_share: float
    jpeg_share: float
    synthetic_pictures: int
    seed: int
    batch: int
    stages: Sequence[Stage]
    epochs_per_draw: int = 0
    tile_log2: int = DEFAULT_TILE_LOG2
    reduced_share: float = 0.0
    recoloured_share: float = 0.0

    def __post_init__(self) -> None:
        if min(self.batch, self.tile_edge, self.pixels_per_tile) < 1:
            raise UsageError(f"recipe {self.profile!r}: batch, tile_edge and pixels_per_tile must be positive")
        if min(self.synthetic_pictures, self.epochs_per_draw) < 0:
            raise UsageError(f"recipe {self.profile!r}: synthetic_pictures and epochs_per_draw must not be negative")
        shares = (
            self.grey_share,
            self.halved_colour_share + self.jpeg_share,
            self.reduced_share,
            self.recoloured_share,
        )
        if not all(0 <= share <= 1 for share in shares):
            raise UsageError(f"recipe {self.profile!r}: shares must lie in [0, 1]")
        if not self.stages:
            raise UsageError(f"recipe {self.profile!r}: it has no stage")

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def spec(self) -> WaveSpec:
        """The architecture."""
        neighbours = tuple((dy, dx) for dy, dx in self.neighbours)
        return WaveSpec(neighbours, self.taps, tuple(self.trunk), self.head)

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values; `from_json` is the inverse."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Recipe:
        """A recipe from parsed JSON; TypeError, KeyError or UsageError where it is none."""
        stages = tuple(Stage(**stage) for stage in values["stages"])
        neighbours = tuple(tuple(offset) for offset in values["neighbours"])
        return Recipe(**{**values, "neighbours": neighbours, "trunk": tuple(values["trunk"]), "stages": stages})


def shipped_recipes() -> list[str]:
    """The names of the recipes that ship with the package."""
    return sorted(f.name.removesuffix(SUFFIX) for f in _folder().iterdir() if f.name.endswith(SUFFIX))


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by its profile's name, or the recipe file at that path; UsageError where neither exists."""
    if name in shipped_recipes():
        text = _folder().joinpath(name + SUFFIX).read_text()
    elif name.endswith(SUFFIX) and Path(name).is_file():
        text = Path(name).read_text()
    else:
        raise UsageError(
            f"recipe {name!r}: neither a shipped one ({', '.join(shipped_recipes())}) nor a readable {SUFFIX} file"
        )
    try:
        return Recipe.from_json(json.loads(text))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"recipe {name!r}: cannot be read: {error}") from error


def find_recipe(
    name: str, package: str, kind: str, from_json: Callable[[Mapping[str, Any]], AnyRecipe]
) -> AnyRecipe | None:
    """A recipe of another kind than `Recipe`: the one of that name that ships with `package`, or the file at that path.

    None where there is none, or where its `kind` is another; UsageError for a broken one.
    """
    shipped = resources.files(package) / "recipes" / f"{name}{SUFFIX}"
    if "/" not in name and shipped.is_file():
        text = shipped.read_text()
    elif name.endswith(SUFFIX) and Path(name).is_file():
        text = Path(name).read_text()
    else:
        return None
    try:
        values = json.loads(text)
        return from_json(values) if isinstance(values, dict) and values.get("kind") == kind else None
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"recipe {name!r}: cannot be read: {error}") from error


def _folder() -> resources.abc.Traversable:
    return resources.files("pilc_stream.training") / "recipes"
