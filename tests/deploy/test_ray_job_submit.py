"""`ray job submit` with a settings file, on a cluster of this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
from processes import descendants, is_running, kill
from small_jobs import assert_sound, fill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

pytest.importorskip("ray")
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]


@dataclass(frozen=True)
class Cluster:
    """A Ray of its own: where its jobs are submitted, and the environment to do so."""

    address: str
    env: dict[str, str]

    def submit(self, folder: Path, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        command = [*RAY, "job", "submit", "--address", self.address, "--working-dir", str(folder), "--", *entrypoint]
        end = time.monotonic() + 600
        while True:
            done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=900, check=False)
            # The dashboard answers before the agent that starts jobs is up, and says so.
            if "No available agent to submit job" not in done.stderr or time.monotonic() > end:
                return done
            time.sleep(1)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with two cores and a dashboard, as `ray start` makes it."""
    folder = tempfile.mkdtemp(prefix="pilc-ray-", dir="/tmp")
    dashboard = free_port()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    env = {**os.environ, **auth, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    env.pop("RAY_ADDRESS", None)
    command = [*RAY, "start", "--head", "--block", "--num-cpus=2", "--temp-dir", folder, f"--port={free_port()}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    command += ["--object-store-memory=100000000", f"--ray-client-server-port={free_port()}"]
    with open(f"{folder}/start.log", "w") as log:
        head = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        end = time.monotonic() + 300
        while not _takes_jobs(address, env["RAY_AUTH_TOKEN"]):
            assert head.poll() is None, Path(f"{folder}/start.log").read_text()
            assert time.monotonic() < end, Path(f"{folder}/start.log").read_text()
            time.sleep(0.5)
        yield Cluster(address, env)
    finally:
        for pid in [*descendants(head.pid), head.pid]:
            if is_running(pid):
                kill(pid)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _takes_jobs(address: str, token: str) -> bool:
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False


def test_a_submitted_job_compresses_and_resumes(
    cluster: Cluster, tmp_path: Path, photo_like: Callable[..., npt.NDArray[Any]], file_of: Callable[..., bytes]
) -> None:
    source, dataset, folder = tmp_path / "source", tmp_path / "dataset", tmp_path / "job"
    fill(source, {f"{index:02}.bmp": file_of(photo_like(17, 25, seed=index), "BMP") for index in range(12)})
    folder.mkdir()
    settings = [f'sources = "{source}"', f'destination = "{dataset}"', 'profile = "raw"', 'shard-size = "3kB"']
    (folder / "job.toml").write_text("\n".join([*settings, "workers = 2", "threads = 1"]) + "\n")

    first = cluster.submit(folder, "pilc", "compress", "--settings", "job.toml", "--json")

    assert first.returncode == 0, first.stdout + first.stderr
    assert '"shards": 6' in first.stdout
    assert_sound(dataset, source)

    again = cluster.submit(folder, "pilc", "compress", "--settings", "job.toml", "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert '"skipped_shards": 6' in again.stdout

    (source / "00.bmp").write_bytes(b"another file")
    changed = cluster.submit(folder, "pilc", "compress", "--settings", "job.toml")
    assert changed.returncode != 0
    assert "the source has changed since this job began" in " ".join((changed.stdout + changed.stderr).split())
