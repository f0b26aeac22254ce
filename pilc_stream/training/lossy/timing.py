"""How long the parts of a member's decoder take on a device, entropy coding aside: float32 modules as torch runs them.

Times depend on the sizes of the layers, not on what was trained, so the weights are those of the start.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from pilc_stream.training.lossy.configurations import FAMILY, PUBLISHED
from pilc_stream.training.lossy.counter import HEIGHT, WIDTH, count
from pilc_stream.training.lossy.network import DECODER_PARTS, LossyNet

LATENT_STRIDE, SIDE_STRIDE = 16, 64


def part_seconds(net: LossyNet, device: str, rounds: int, height: int = HEIGHT, width: int = WIDTH) -> dict[str, float]:
    """Seconds that each part of the decoder takes for one picture: medians of the rounds, after one to warm up.

    On "cpu" they are CPU seconds of this process, on "cuda" by the clock.
    """
    net = net.to(device).eval()
    net.entropy_model.with_bits = False
    configuration = net.configuration
    places = (height // LATENT_STRIDE, width // LATENT_STRIDE)
    side = torch.randn(1, configuration.hyper_width, height // SIDE_STRIDE, width // SIDE_STRIDE, device=device)
    latents = torch.randn(1, configuration.latents, *places, device=device).round()

    def clock() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    spent: dict[str, list[float]] = {part: [] for part in DECODER_PARTS}

    def timed(part: str, run: Callable[..., Any], *given: Any) -> Any:
        start = clock()
        out = run(*given)
        spent[part].append(clock() - start)
        return out

    with torch.no_grad():
        for _ in range(rounds + 1):
            features = timed("hyper_synthesis", net.hyper_synthesis, side)
            coded = timed("entropy_model", net.entropy_model, latents, features)
            timed("synthesis", net.synthesis, coded.latents)
    return {part: median(seconds[1:]) for part, seconds in spent.items()}


def family_times(device: str, rounds: int, progress: Callable[[str, int, int], None]) -> list[dict[str, Any]]:
    """Of each member: name, parts, parameters, kFLOP per pixel and seconds per megapixel by part, what is published."""
    rows = []
    for number, (name, configuration) in enumerate(FAMILY.items()):
        progress(f"lossy-{name} on {device}", number, len(FAMILY))
        counted, published = count(configuration), PUBLISHED.get(name)
        seconds = part_seconds(LossyNet(configuration), device, rounds)
        rows.append(
            {
                "name": f"lossy-{name}",
                "parts": [configuration.transforms, configuration.entropy_model, configuration.hyper_transforms],
                "parameters": counted.all_parameters,
                "kflop": {part: round(counted.kflop_per_pixel[part], 2) for part in DECODER_PARTS},
                "seconds_per_mp": {part: round(each / (HEIGHT * WIDTH / 1e6), 5) for part, each in seconds.items()},
                "latents_per_pixel": configuration.latents / LATENT_STRIDE**2
                + configuration.hyper_width / SIDE_STRIDE**2,
                "published": {
                    "parameters_m": published.parameters_m,
                    "kflop": published.decoder_kflop,
                    "mp_per_s": list(published.mp_per_s),
                    "saved_percent": published.saved_percent,
                }
                if published
                else None,
            }
        )
    progress(f"lossy family on {device}", len(FAMILY), len(FAMILY))
    return rows
