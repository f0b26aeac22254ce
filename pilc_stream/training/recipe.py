"""Recipes: everything that decides what a training run gives, as one small JSON file per shipped profile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pilc_stream.errors import UsageError
from pilc_stream.models.spec import WaveSpec

SUFFIX = ".json"


@dataclass(frozen=True)
class Recipe:
    """How a profile is trained.

    Images are cut into tiles of at most `tile_edge` a side, of each at most `pixels_per_tile` random pixels are taken;
    so are `synthetic_pictures`. Shares of the tiles are made grey, get halved colour resolution, go through JPEG
    (`augment`). `learning_rate` is the peak; from
    the share `quantise_from` of the steps on, the network rounds as the integer model does (`train.learning_rate`).
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
    steps: int
    batch: int
    learning_rate: float
    quantise_from: float

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.tile_edge, self.pixels_per_tile) < 1:
            raise UsageError(f"recipe {self.profile!r}: steps, batch, tile_edge and pixels_per_tile must be positive")
        shares = (self.quantise_from, self.grey_share, self.halved_colour_share + self.jpeg_share)
        if not (all(0 <= share <= 1 for share in shares) and self.learning_rate > 0 and self.synthetic_pictures >= 0):
            raise UsageError(f"recipe {self.profile!r}: shares must lie in [0, 1] and the learning rate above 0")

    @property
    def spec(self) -> WaveSpec:
        """The architecture."""
        neighbours = tuple((dy, dx) for dy, dx in self.neighbours)
        return WaveSpec(neighbours, self.taps, tuple(self.trunk), self.head)

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return asdict(self)


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
        return Recipe(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise UsageError(f"recipe {name!r}: cannot be read: {error}") from error


def _folder() -> resources.abc.Traversable:
    return resources.files("pilc_stream.training") / "recipes"
