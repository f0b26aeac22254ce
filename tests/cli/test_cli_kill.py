"""Jobs that are killed with -9 at some instant and run again by the same command, as real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
from processes import actors, descendants, is_running, kill, wait_until
from small_jobs import CommitFiles, assert_sound

IMAGES = 120
PILC = [sys.executable, "-c", "from pilc_stream.cli import main; main()"]

Photo = Callable[..., npt.NDArray[Any]]
Start = Callable[[Sequence[str]], "subprocess.Popen[str]"]


@pytest.fixture
def source(tmp_path: Path, photo_like: Photo, file_of: Callable[..., bytes]) -> Path:
    """Many small images: sixty shards of two."""
    folder = tmp_path / "source"
    folder.mkdir()
    for index in range(IMAGES):
        (folder / f"{index:03}.bmp").write_bytes(file_of(photo_like(17, 25, seed=index % 10), "BMP"))
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tmp_path / "dataset"


@pytest.fixture
def command(source: Path, dataset: Path) -> list[str]:
    return [*PILC, "compress", str(source), str(dataset), "--profile", "raw", "--shard-size", "3kB", "--json"]


def _take_interrupts() -> None:
    # A test run in the background of a shell ignores Ctrl-C, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command; whatever is left of it at the end of the test is killed."""
    processes: list[subprocess.Popen[str]] = []

    def go(command: Sequence[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_take_interrupts
        )
        processes.append(process)
        return process

    yield go
    for process in processes:
        for pid in [*descendants(process.pid), process.pid]:
            if is_running(pid):
                kill(pid)
        process.communicate()


def committed(dataset: Path) -> int:
    return len(CommitFiles.of(dataset).contents)


def end(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a job that must succeed; return what it printed, which must be one JSON object and nothing else."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    report: dict[str, Any] = json.loads(output)
    return report


def assert_resumed(report: dict[str, Any], before: CommitFiles, source: Path, dataset: Path) -> None:
    """The rest was made, what was there was not touched, and the whole is sound."""
    assert before.is_untouched_in(CommitFiles.of(dataset))
    assert report["skipped_shards"] == len(before.contents)
    assert report["images"] == IMAGES
    assert report["run"]["images"] == IMAGES - 2 * len(before.contents)
    assert_sound(dataset, source)


def test_a_killed_driver_without_ray(command: list[str], source: Path, dataset: Path, start: Start) -> None:
    first = start([*command, "--workers", "0"])
    wait_until(lambda: committed(dataset) >= 3, "the third commit")
    kill(first.pid)
    first.communicate()
    before = CommitFiles.of(dataset)
    assert not (dataset / "_SUCCESS").exists()

    assert_resumed(end(start([*command, "--workers", "0"])), before, source, dataset)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_job_with_a_sentence_how_to_go_on(
    number: signal.Signals, code: int, command: list[str], source: Path, dataset: Path, start: Start
) -> None:
    first = start([*command, "--workers", "0"])
    wait_until(lambda: committed(dataset) >= 3, "the third commit")
    first.send_signal(number)
    output, errors = first.communicate(timeout=60)

    assert (first.returncode, output) == (code, "")
    assert "of 60 shards are committed and stay. Run the same command again to go on." in errors
    assert "Traceback" not in errors
    before = CommitFiles.of(dataset)
    assert_resumed(end(start([*command, "--workers", "0"])), before, source, dataset)


def test_two_drivers_at_once_make_one_data_set(command: list[str], source: Path, dataset: Path, start: Start) -> None:
    jobs = [start([*command, "--workers", "0"]) for _ in range(2)]

    reports = [end(job) for job in jobs]

    assert_sound(dataset, source)
    assert [report["images"] for report in reports] == [IMAGES, IMAGES]
    assert len(list((dataset / "data").glob("part-*"))) == IMAGES // 2


@pytest.mark.slow
def test_a_killed_driver_takes_its_ray_along(command: list[str], source: Path, dataset: Path, start: Start) -> None:
    pytest.importorskip("ray")
    first = start([*command, "--workers", "2"])
    wait_until(lambda: committed(dataset) >= 3, "the third commit")
    # Ray's own agents wait a minute for the rest of it before they end.
    rays = [pid for pid, line in descendants(first.pid).items() if "Agent" not in line]
    kill(first.pid)
    first.communicate()
    assert not (dataset / "_SUCCESS").exists()
    wait_until(lambda: not any(map(is_running, rays)), "the end of Ray")
    before = CommitFiles.of(dataset)

    assert_resumed(end(start([*command, "--workers", "2"])), before, source, dataset)


@pytest.mark.slow
def test_a_killed_worker_is_replaced(command: list[str], source: Path, dataset: Path, start: Start) -> None:
    pytest.importorskip("ray")
    job = start([*command, "--workers", "2"])
    wait_until(lambda: committed(dataset) >= 3, "the third commit")
    before = CommitFiles.of(dataset)
    kill(actors(job.pid)[0])

    report = end(job)

    assert report["run"]["shards"] == report["shards"] == IMAGES // 2
    assert before.is_untouched_in(CommitFiles.of(dataset))
    assert_sound(dataset, source)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_ray_as_well(
    number: signal.Signals, code: int, command: list[str], source: Path, dataset: Path, start: Start
) -> None:
    pytest.importorskip("ray")
    first = start([*command, "--workers", "2"])
    wait_until(lambda: committed(dataset) >= 3, "the third commit")
    rays = list(descendants(first.pid))
    first.send_signal(number)
    output, errors = first.communicate(timeout=60)

    assert (first.returncode, output) == (code, "")
    assert "Run the same command again to go on." in errors
    wait_until(lambda: not any(map(is_running, rays)), "the end of Ray")
    before = CommitFiles.of(dataset)
    assert_resumed(end(start([*command, "--workers", "0"])), before, source, dataset)
