"""Sources on the web, from a server on loopback; nothing can be written there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest

from pilc_stream.errors import StorageError
from pilc_stream.pipeline.verify import verify_dataset
from pilc_stream.records.manifest import Manifest
from pilc_stream.storage import RetryPolicy, Store, expand
from workers.job import run_job
from workers.settings import JobSettings

pytest.importorskip("aiohttp")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def folder(tmp_path: Path, photo_like: Callable[..., npt.NDArray[Any]], file_of: Callable[..., bytes]) -> Path:
    """What the server shows: five images in two folders."""
    for index in range(5):
        path = tmp_path / "web" / "photos" / str(index % 2) / f"{index}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file_of(photo_like(17, 25, seed=index), "BMP"))
    return tmp_path / "web"


@pytest.fixture
def web(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def settings_for(source: str, destination: str) -> JobSettings:
    return JobSettings(sources=(source,), destination=destination, profile="raw", workers=0, shard_size=3000)


def test_a_listed_folder_becomes_a_data_set(web: str, folder: Path, tmp_path: Path) -> None:
    dataset = str(tmp_path / "dataset")
    report = run_job(settings_for(f"{web}/photos", dataset))
    assert (report.totals.images, report.totals.failed) == (5, 0)
    manifest = Manifest.load(dataset)
    assert verify_dataset(manifest).ok
    readers = [manifest.reader(position) for position in range(len(manifest.shards))]
    assert len(readers) == 3, "sizes are known, so shards are cut by them"
    assert list(chain.from_iterable(reader.keys() for reader in readers)) == [
        "0/0.bmp",
        "0/2.bmp",
        "0/4.bmp",
        "1/1.bmp",
        "1/3.bmp",
    ]


def test_a_file_is_read_by_its_address(web: str, folder: Path) -> None:
    [file] = expand(f"{web}/photos/1/3.bmp")
    assert file.read() == (folder / "photos" / "1" / "3.bmp").read_bytes()


def test_what_is_not_there_is_said(web: str) -> None:
    store = Store.open(web, retries=RetryPolicy(attempts=1))
    assert store.read_or_none("nothing.bmp") is None
    with pytest.raises(StorageError, match=r"nothing\.bmp: cannot read it: there is nothing at this place"):
        store.read("nothing.bmp")


def test_the_web_is_no_destination(web: str, folder: Path) -> None:
    with pytest.raises(StorageError, match=r"_pilc/job\.json: cannot create it: this storage does not offer"):
        run_job(settings_for(str(folder / "photos"), f"{web}/dataset"))
    with pytest.raises(StorageError, match="cannot write it: this storage does not offer the operation"):
        Store.open(web).put("a", b"x")
