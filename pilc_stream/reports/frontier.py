"""Measuring the frontier: profiles and peers on the same images in one contest, set by set, recorded set by set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pilc_stream.codecs import Decoder, open_profile
from pilc_stream.errors import UsageError
from pilc_stream.models.shipped import wave_preset_names
from pilc_stream.reports.contest import Contestant, ProfileContestant, Progress, run_contest
from pilc_stream.reports.machine import machine_facts
from pilc_stream.reports.peers import PeerContestant, all_peers, jpegxl_name, peer_coder
from pilc_stream.reports.records import Record, observations, read_record, record_path, with_run, write_record
from pilc_stream.reports.sets import find_sets, load_set


@dataclass(frozen=True)
class Contest:
    """What to measure on every set.

    `profiles`: all that ship where there are none. `efforts`: those of JPEG XL; `skipped`: pairs of a set's name and an
    effort to leave out there. `limit`: images of a set. `processes`: peers encode in so many.
    """

    profiles: Sequence[str] = ()
    with_peers: bool = True
    efforts: Sequence[int] = (3, 7, 9)
    skipped: frozenset[tuple[str, int]] = frozenset()
    device: str = "auto"
    threads: int = 1
    rounds: int = 3
    limit: int | None = None
    processes: int = 1


def measure_sets(
    data: Path,
    names: Sequence[str],
    contest: Contest,
    record_folder: Path | None = None,
    progress: Progress = lambda label, done, total: None,
) -> list[Record]:
    """Measure on the sets in the folder `data`, all or those that `names` asks for; a record for each.

    With a folder for records, each is written there when its set is done, and what lies there of the same images,
    machine, models and settings is not measured again. Raises UsageError for sets, profiles and efforts that there are
    not, VerifyError where a codec does not give the pixels back.
    """
    machine, paths = machine_facts(), find_sets(data, names)
    for name, effort in contest.skipped:
        if name not in {path.stem for path in paths} or effort not in contest.efforts:
            raise UsageError(f"skip {name}:{effort}: this set and effort are not among those to be measured")
    peers = all_peers(contest.efforts) if contest.with_peers else []
    codecs = [open_profile(name, contest.device, contest.threads) for name in contest.profiles or wave_preset_names()]
    decoder = Decoder(contest.device, contest.threads)
    records = []
    with peer_coder(contest.processes) as coder:
        for path in paths:
            progress(f"{path.stem}: reading", 0, 0)
            image_set = load_set(path, contest.limit)
            skipped = {jpegxl_name(effort) for name, effort in contest.skipped if name == image_set.name}
            contestants: list[Contestant] = [
                *(ProfileContestant(codec, decoder, contest.device, contest.threads, image_set) for codec in codecs),
                *(PeerContestant(peer, image_set, coder) for peer in peers if peer.name not in skipped),
            ]
            target = record_path(record_folder, image_set.name, machine) if record_folder else None
            record = read_record(target, image_set)
            known = {observed.figures.key for observed in observations(record)}
            missing = [contestant for contestant in contestants if contestant.key not in known]
            if missing:
                run_contest(missing, len(image_set.images), contest.rounds, _within(image_set.name, progress))
                figures = [contestant.figures() for contestant in missing]
                record = with_run(record, machine, figures, contest.processes)
                if target:
                    write_record(target, record)
            records.append(record)
    return records


def _within(set_name: str, progress: Progress) -> Progress:
    return lambda label, done, total: progress(f"{set_name}: {label}", done, total)
