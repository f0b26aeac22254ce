"""What must hold whatever dies: jobs on object storage and a long run, with processes killed by -9 at chosen steps."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
from faults import STEPS, died, environment
from processes import actors, descendants, is_running, kill, wait_until
from small_jobs import fill

from pilc_stream.pipeline.verify import verify_dataset
from pilc_stream.records.commit import committed_indices, read_errors
from pilc_stream.records.manifest import Manifest
from pilc_stream.storage import Store
from workers.job import run_job
from workers.settings import JobSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PILC = [sys.executable, "-c", "from pilc_stream.cli import main; main()"]
SOAK_IMAGES = int(os.environ.get("PILC_SOAK_IMAGES", "20000"))

Start = Callable[..., "subprocess.Popen[str]"]
Photo = Callable[..., npt.NDArray[Any]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `pilc` in an environment; whatever is left of it at the end of the test is killed."""
    processes: list[subprocess.Popen[str]] = []

    def go(arguments: Sequence[str], env: dict[str, str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen([*PILC, *arguments], stdout=pipe, stderr=pipe, text=True, env=env)
        processes.append(process)
        return process

    yield go
    for process in processes:
        for pid in [*descendants(process.pid), process.pid]:
            if is_running(pid):
                kill(pid)
        process.communicate()


def end(process: subprocess.Popen[str], code: int) -> dict[str, Any]:
    output, errors = process.communicate(timeout=3000)
    assert process.returncode == code, errors
    report: dict[str, Any] = json.loads(output)
    return report


def contents(manifest: Manifest) -> list[tuple[Any, ...]]:
    """What a data set says, without how it came to be."""
    rows = []
    for position in range(len(manifest.shards)):
        reader = manifest.reader(position)
        names = ("key", "codec", "width", "height", "channels", "mode", "pixel_sha256", "source_sha256")
        columns = [reader.columns([name]).column(name).to_pylist() for name in names]
        payloads = reader.payloads(range(reader.entry.rows))
        rows += list(zip(*columns, payloads, strict=True))
    return rows


@pytest.fixture
def buckets(s3_server: Any, s3_bucket: str, photo_like: Photo, file_of: Callable[..., bytes]) -> tuple[Store, Store]:
    """Eighty images in a bucket, and a data set of them made by an undisturbed run."""
    source, plain = (Store.open(f"{s3_bucket}/{name}", s3_server.options) for name in ("source", "plain"))
    for index in range(80):
        source.put(f"{index:03}.bmp", file_of(photo_like(17, 25, seed=index), "BMP"))
    settings = JobSettings(
        sources=(source.url,),
        destination=plain.url,
        profile="raw",
        workers=0,
        shard_size=3000,
        storage_options=s3_server.options,
    )
    run_job(settings)
    return source, plain


def compress_arguments(source: Store, target: Store, workers: int) -> list[str]:
    options = [f"--storage-option={name}={value}" for name, value in source.storage_options.items()]
    small = ["--profile", "raw", "--shard-size", "3kB", "--workers", str(workers)]
    return ["compress", source.url, target.url, "--json", *small, *options]


def assert_equal_to(plain: Store, target: Store) -> None:
    manifest = Manifest.load(target.url, target.storage_options)
    assert verify_dataset(manifest).ok
    assert contents(manifest) == contents(Manifest.load(plain.url, plain.storage_options))


def test_drivers_that_die_at_each_step_and_a_rival_leave_the_data_set_of_an_undisturbed_run(
    tmp_path: Path, buckets: tuple[Store, Store], s3_bucket: str, start: Start
) -> None:
    source, plain = buckets
    target = Store.open(f"{s3_bucket}/target", source.storage_options)
    arguments = compress_arguments(source, target, workers=0)
    env = environment(tmp_path / "faults", deaths=True)

    for _ in STEPS:
        assert start(arguments, env).wait() == -signal.SIGKILL
    assert died(tmp_path / "faults") == set(STEPS)
    first, second = start(arguments, env), start(arguments, env)
    wait_until(lambda: len(committed_indices(target)) >= 5, "the fifth commit", 600)
    kill(first.pid)

    assert end(second, 0)["images"] == 80
    assert_equal_to(plain, target)


def test_workers_that_die_at_each_step_and_drivers_leave_the_data_set_of_an_undisturbed_run(
    tmp_path: Path, buckets: tuple[Store, Store], s3_bucket: str, start: Start
) -> None:
    pytest.importorskip("ray")
    source, plain = buckets
    target = Store.open(f"{s3_bucket}/target", source.storage_options)
    arguments = compress_arguments(source, target, workers=2)
    env = environment(tmp_path / "faults", deaths=True)

    first = start(arguments, env)
    wait_until(lambda: len(committed_indices(target)) >= 2, "the second commit", 600)
    second = start(arguments, env)
    wait_until(lambda: died(tmp_path / "faults") == set(STEPS), "deaths at every step", 600)
    kill(first.pid)

    assert end(second, 0)["images"] == 80
    assert_equal_to(plain, target)


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


class Watcher(threading.Thread):
    """Kills a process of a job now and then, and notes how much memory each has had, by time."""

    def __init__(self, job: subprocess.Popen[str], victims: Callable[[int], list[int]], kill_every_s: float) -> None:
        super().__init__(daemon=True)
        self._job = job
        self._victims = victims
        self._kill_every_s = kill_every_s
        self.killed = 0
        self.seen: list[int] = []

    def run(self) -> None:
        chance, kill_at = random.Random(7), time.monotonic() + self._kill_every_s
        while self._job.poll() is None:
            self.seen += [resident_bytes(pid) for pid in [self._job.pid, *actors(self._job.pid)]]
            victims = self._victims(self._job.pid)
            if victims and time.monotonic() > kill_at:
                kill(chance.choice(victims))
                self.killed += 1
                kill_at = time.monotonic() + self._kill_every_s
            time.sleep(0.5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_long_run_with_faults_loses_nothing_and_keeps_its_memory(
    workers: int, tmp_path: Path, photo_like: Photo, file_of: Callable[..., bytes], start: Start
) -> None:
    """Without Ray it is the driver that is killed, and started again; with it, the workers are."""
    if workers:
        pytest.importorskip("ray")
    chance = random.Random(1)
    good = [file_of(photo_like(17, 25, seed=seed), "BMP") for seed in range(50)]
    broken = set()
    names = [f"{index % 100:02}/{index:06}.bmp" for index in range(SOAK_IMAGES)]
    for index, name in enumerate(names):
        data = good[index % len(good)]
        if chance.random() < 0.02:
            broken.add(name)
            data = data[:700]
        fill(tmp_path / "source", {name: data})
    arguments = ["compress", str(tmp_path / "source"), str(tmp_path / "dataset"), "--profile", "raw", "--json"]
    arguments += ["--shard-size", "128kB", "--workers", str(workers)]
    env = environment(tmp_path / "faults", storage_fault_rate=0.02)

    seen: list[int] = []
    killed = 0
    while True:
        job = start(arguments, env)
        # Longer each time: a job must get further than the one before, however slow the machine is.
        watcher = Watcher(job, actors if workers else lambda driver: [driver], 15.0 * (killed + 1))
        watcher.start()
        output, errors = job.communicate(timeout=3000)
        watcher.join()
        seen += watcher.seen
        killed += watcher.killed
        if job.returncode != -signal.SIGKILL:
            break
    assert job.returncode == 1, errors

    report = json.loads(output)
    assert (report["images"], report["failed"]) == (SOAK_IMAGES, len(broken))
    manifest = Manifest.load(str(tmp_path / "dataset"))
    assert verify_dataset(manifest).ok
    readers = [manifest.reader(position) for position in range(len(manifest.shards))]
    assert list(chain.from_iterable(reader.keys() for reader in readers)) == sorted(names)
    store = Store.open(str(tmp_path / "dataset"))
    listed = [error.key for shard in manifest.shards for error in read_errors(store, shard.index)]
    assert sorted(listed) == sorted(broken)
    third = len(seen) // 3
    early, late = max(seen[: 2 * third]), max(seen[2 * third :])
    print(f"{killed} processes killed, at most {early / 1e6:.0f} MB early and {late / 1e6:.0f} MB late")
    assert late < 1.25 * early + 30_000_000
