"""The recipe of a `pilc` profile: everything that decides what a training run gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pilc_stream.errors import UsageError
from pilc_stream.models.pilc import PilcSpec
from pilc_stream.training.recipe import find_recipe

KIND = "pilc"


@dataclass(frozen=True)
class PilcRecipe:
    """How a `pilc` profile is trained.

    `spec`: the architecture, as `PilcSpec` has it in JSON. Tiles are at most `tile_edge` a side; shares of the large
    ones get halved colour resolution or go through JPEG. `cluster_blocks` blocks and `cluster_rounds` rounds make
    predictors and code book. `network_tiles` tiles then train the network, in `steps` steps of about `batch_pixels`
    pixels, the learning rate falling from `rate` on half a cosine, the last `rounded_steps` with rounded weights.
    Without `means` the network learns the residuals' scales alone.
    """

    profile: str
    spec: Mapping[str, Any]
    tile_edge: int
    halved_colour_share: float
    jpeg_share: float
    seed: int
    cluster_blocks: int
    cluster_rounds: int
    network_tiles: int
    batch_pixels: int
    steps: int
    rounded_steps: int
    rate: float
    means: bool = True

    def __post_init__(self) -> None:
        least = min(
            self.tile_edge, self.cluster_blocks, self.cluster_rounds, self.network_tiles, self.batch_pixels, self.steps
        )
        if least < 1 or not 0 <= self.rounded_steps <= self.steps or self.rate <= 0:
            raise UsageError(f"recipe {self.profile!r}: sizes, rounds, steps and the rate must be positive")
        if not all(0 <= share <= 1 for share in (self.halved_colour_share, self.jpeg_share)):
            raise UsageError(f"recipe {self.profile!r}: shares must lie in [0, 1]")
        self.architecture()

    def architecture(self) -> PilcSpec:
        """The specification that the recipe names; ModelError where it is none."""
        return PilcSpec.from_json(self.spec)

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values; `from_json` is the inverse."""
        return {"kind": KIND, **asdict(self)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> PilcRecipe:
        """A recipe from parsed JSON; TypeError, KeyError, ModelError or UsageError where it is none."""
        return PilcRecipe(**{name: value for name, value in values.items() if name != "kind"})


def find_pilc_recipe(name: str) -> PilcRecipe | None:
    """The shipped recipe of that name, or the file at that path, if it is of this kind; UsageError for a broken one."""
    return find_recipe(name, "pilc_stream.training.vq", KIND, PilcRecipe.from_json)
