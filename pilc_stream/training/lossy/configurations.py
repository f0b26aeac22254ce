"""The members of the family by name, and what the paper says of each (Minnen and Johnston 2023).

The paper names the parts of the models A to G and gives their totals; of its final model it gives the widths of the
transforms. All other sizes here are chosen so that parameters and operations come out as in the paper, by the rules in
`FAMILY.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pilc_stream.models.family_spec import Configuration

__all__ = ["FAMILY", "PUBLISHED", "Configuration", "Published"]


@dataclass(frozen=True)
class Published:
    """The paper's row: millions of parameters, decoder kFLOP per pixel, megapixels per second on Kodak (V100, A100),
    rate saved against BPG in per cent."""

    parameters_m: float
    decoder_kflop: float
    mp_per_s: tuple[float, float]
    saved_percent: float


PUBLISHED = MappingProxyType(
    {
        "a": Published(38.0, 1076.4, (7.4, 9.9), 22.86),
        "b": Published(31.6, 631.1, (8.8, 10.7), 21.93),
        "c": Published(32.2, 392.5, (11.0, 10.8), 20.23),
        "d": Published(22.4, 342.1, (11.7, 11.1), 19.12),
        "e": Published(17.3, 252.1, (20.5, 31.5), 12.79),
        "f": Published(19.8, 200.1, (41.0, 69.0), 9.33),
        "g": Published(12.8, 117.4, (43.7, 95.9), 4.68),
    }
)

STEPS = 10
FEATURES = 320


def _channel_wise(
    widths: tuple[int, int, int],
    step_widths: tuple[int, int],
    residual_width: int,
    residual_blocks: int = 3,
    merged: bool = False,
    split_width: int = 0,
) -> Configuration:
    """ELIC's transforms, CHARM, and SwinT hyper transforms of the sizes of Zhu 2022."""
    return Configuration(
        transforms="ELIC",
        entropy_model="CHARM",
        hyper_transforms="SwinT",
        widths=widths,
        latents=320,
        hyper_width=192,
        features=FEATURES,
        residual_blocks=residual_blocks,
        attention=(True, True),
        hyper_depths=(5, 1),
        steps=STEPS,
        step_widths=step_widths,
        residual_widths=(residual_width,),
        merged=merged,
        split_width=split_width,
    )


def _hyperprior(
    transforms: Literal["Conv", "ELIC", "SwinT"],
    widths: tuple[int, int, int],
    hyper_width: int = 192,
    residual_blocks: int = 0,
    attention: tuple[bool, bool] = (False, False),
    depths: tuple[int, ...] = (),
) -> Configuration:
    """These transforms, the mean-scale hyperprior, and convolutional hyper transforms."""
    return Configuration(
        transforms=transforms,
        entropy_model="hyperprior",
        hyper_transforms="Conv",
        widths=widths,
        latents=320,
        hyper_width=hyper_width,
        features=640,
        residual_blocks=residual_blocks,
        attention=attention,
        depths=depths,
        hyper_widths=(256, 320),
    )


FAMILY = MappingProxyType(
    {
        "a": _channel_wise((256, 288, 288), (96, 96), 48),
        "b": _channel_wise((192, 208, 208), (128, 64), 64),
        "c": _channel_wise((64, 192, 320), (128, 64), 48),
        "d": _channel_wise((128, 160, 160), (64, 64), 32),
        "e": _hyperprior("SwinT", (64, 160, 160), hyper_width=160, depths=(2, 2, 6, 2)),
        "f": _hyperprior("ELIC", (96, 96, 256), residual_blocks=3, attention=(True, True)),
        "g": _hyperprior("Conv", (128, 128, 192)),
        "final": _channel_wise((128, 256, 256), (128, 64), 64, residual_blocks=2, merged=True, split_width=64),
    }
)
"""The models A to G, and the final one, which the paper makes of B."""
