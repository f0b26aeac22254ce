"""Benchmarks of the profiles: megabytes of raw pixels per second each way, medians of interleaved rounds."""

from __future__ import annotations

from collections.abc import Sequence

from pilc_stream.codecs import Decoder, open_profile
from pilc_stream.reports.contest import ProfileContestant, Progress, run_contest
from pilc_stream.reports.figures import ProfileFigures
from pilc_stream.reports.sets import ImageSet


def bench_profiles(
    image_set: ImageSet,
    profiles: Sequence[str],
    device: str = "auto",
    threads: int = 1,
    rounds: int = 5,
    progress: Progress = lambda label, done, total: None,
) -> list[ProfileFigures]:
    """Time every profile on the same images.

    The first, untimed pass compiles and checks that the pixels come back (VerifyError otherwise).
    """
    decoder = Decoder(device, threads)
    contestants = [
        ProfileContestant(open_profile(name, device, threads), decoder, device, threads, image_set) for name in profiles
    ]
    run_contest(contestants, len(image_set.images), rounds, progress)
    return [contestant.figures() for contestant in contestants]
