"""`pilc frontier --lossy`: rate, distortion, computation and time of the lossy profiles and the lossy family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilc_stream.cli.console import messages, output, print_json
from pilc_stream.errors import UsageError

if TYPE_CHECKING:
    from pilc_stream.reports.contest import Progress

DEFAULT_SETS = ("kodak",)
"""Whose published curves come with the package."""

TIMED_QUALITY = 50
"""Of a profile whose stages are timed."""


def measure_lossy_sets(
    data: Path,
    names: Sequence[str],
    profiles: Sequence[str],
    peers: bool,
    limit: int | None,
    rounds: int,
    device: str,
    threads: int,
    folder: Path | None,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Measure what the records in `folder` lack; the records of the sets."""
    from pilc_stream.reports.lossy_measure import measure_lossy
    from pilc_stream.reports.lossy_peers import lossy_peers
    from pilc_stream.reports.lossy_profiles import peer_codec, profile_codecs
    from pilc_stream.reports.lossy_times import add_times
    from pilc_stream.reports.sets import find_sets, load_set

    codecs = profile_codecs(profiles, device, threads)
    if peers:
        codecs += [peer_codec(peer) for peer in lossy_peers()]
    records = []
    for path in find_sets(data, names or DEFAULT_SETS):
        progress(f"{path.stem}: reading", 0, 0)
        image_set = load_set(path, limit)
        records.append(measure_lossy(image_set, codecs, folder, progress))
    kind = "cuda" if device.startswith("cuda") else "cpu"

    def timed() -> list[dict[str, Any]]:
        models = [_profile(codec.name, path, kind, rounds) for codec in codecs if not codec.is_peer]
        return [*models, *_family(kind, rounds, progress)]

    add_times(records[0], kind, timed, folder)
    return records


def _profile(name: str, path: Path, device: str, rounds: int) -> dict[str, Any]:
    from pilc_stream.models.lossy import load_lossy_model
    from pilc_stream.models.shipped import preset_bytes
    from pilc_stream.reports.lossy_stages import profile_times
    from pilc_stream.reports.sets import load_images

    (image, *_), _ = load_images(path, 1)
    return profile_times(load_lossy_model(preset_bytes(name)), image, TIMED_QUALITY, device, rounds)


def report_lossy(measured: list[dict[str, Any]], out: Path | None, as_json: bool) -> None:
    """Write or print the report."""
    from pilc_stream.reports.lossy_files import lossy_report, write_lossy_report

    report = lossy_report(measured)
    if out:
        for path in write_lossy_report(report, out):
            messages().print(f"pilc: wrote {path}", soft_wrap=True)
    if as_json:
        print_json(report.to_json())
    elif not out:
        from pilc_stream.reports.lossy_markdown import whole_lossy_report

        output().print(whole_lossy_report(report), end="")


def _family(device: str, rounds: int, progress: Progress) -> list[dict[str, Any]]:
    try:
        from pilc_stream.training.lossy.timing import family_times
    except ModuleNotFoundError as error:
        raise UsageError("timing the lossy family needs torch: pip install 'pilc-stream[torch]'") from error
    return family_times(device, rounds, progress)
