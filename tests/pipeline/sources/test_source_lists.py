from __future__ import annotations

import gzip
import io
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pilc_stream.errors import UsageError
from pilc_stream.pipeline.sources import Part, Request, open_source
from pilc_stream.pipeline.sources import lists as lists_module
from pilc_stream.storage import Sample, Store


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def read(store: Store, name: str, **request: Any) -> tuple[pa.Schema, list[Sample]]:
    source = open_source(Request((f"{store.url}/{name}",), store.storage_options, **request))
    assert source.kind == "list"
    return source.columns, [sample for part in source.parts() for sample in part.samples()]


def test_a_csv_gives_typed_columns_and_fetches_what_it_names(here: Store) -> None:
    here.put("images/a.png", b"A")
    here.put("b.png", b"B")
    here.put(
        "list.csv",
        b'url,label,score,caption\nimages/a.png,3,0.5,"a, \nb"\n' + f"{here.url}/b.png".encode() + b",4,1,\n",
    )
    # A local path with a protocol is a URL like any other.
    here.put(
        "list.csv", here.read("list.csv").replace(f"{here.url}/b.png".encode(), f"file://{here.url}/b.png".encode())
    )
    columns, samples = read(here, "list.csv")
    assert columns == pa.schema([("label", pa.int64()), ("score", pa.float64()), ("caption", pa.string())])
    assert samples == [
        Sample("list.csv/0000000000", b"A", {"label": 3, "score": 0.5, "caption": "a, \nb"}),
        Sample("list.csv/0000000001", b"B", {"label": 4, "score": 1.0, "caption": ""}),
    ]


@pytest.mark.parametrize(
    ("name", "data"), [("l.tsv", b"path\tn\na.png\t1\n"), ("l.csv.gz", gzip.compress(b"path,n\na.png,1\n"))]
)
def test_tabs_and_gzip(here: Store, name: str, data: bytes) -> None:
    here.put("a.png", b"A")
    here.put(name, data)
    assert [(sample.data, dict(sample.columns)) for sample in read(here, name)[1]] == [(b"A", {"n": 1})]


def test_parquet_lists(here: Store) -> None:
    here.put("a.png", b"A")
    sink = io.BytesIO()
    when = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    pq.write_table(pa.table({"URL": ["a.png"], "when": when, "key": ["k"]}), sink)
    here.put("list.parquet", sink.getvalue())
    columns, (sample,) = read(here, "list.parquet")
    assert columns == pa.schema([("when", pa.timestamp("ns")), ("source_key", pa.string())])
    assert sample.columns == {"when": when[0], "source_key": "k"}
    assert sample.data == b"A"


def test_what_cannot_be_fetched_costs_its_record(here: Store) -> None:
    here.put("list.csv", b"url\nmissing.png\n/etc/hostname\n../up.png\nnope://x/y.png\ns3://bucket/\n")
    samples = read(here, "list.csv")[1]
    assert [sample.data for sample in samples] == [b""] * 5
    said = [
        "there is nothing at this place",
        "neither a URL nor",
        "neither a URL nor",
        "Protocol not known",
        "names a folder",
    ]
    for sample, words in zip(samples, said, strict=True):
        assert words in sample.fault


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server over a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"from the web")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_web_gets_no_storage_options(here: Store, web: str) -> None:
    pytest.importorskip("aiohttp")
    here.put("list.csv", f"url\n{web}/a.png\n{web}/gone.png\n".encode())
    options = {"endpoint_url": "http://127.0.0.1:1", "key": "secret"}
    parts = list(open_source(Request((f"{here.url}/list.csv",), options)).parts())
    found, gone = (next(part.samples()) for part in parts)
    assert (found.data, found.fault) == (b"from the web", "")
    assert "there is nothing at this place" in gone.fault


def test_object_storage_gets_them(s3_bucket: str, s3_server: Any) -> None:
    store = Store.open(f"{s3_bucket}/lists", s3_server.options)
    store.put("a.png", b"A")
    store.put("list.csv", f"url\n{store.url}/a.png\na.png\n".encode())
    assert [sample.data for sample in read(store, "list.csv")[1]] == [b"A", b"A"]


def test_parts_are_small_and_travel(here: Store) -> None:
    here.put("list.csv", b"url,n\n" + b"".join(b"images/%d.png,%d\n" % (number, number) for number in range(2000)))
    parts: list[Part] = list(open_source(Request((f"{here.url}/list.csv",), {"key": "x" * 100})).parts())
    data = pickle.dumps(parts)
    assert len(data) < 300 * len(parts)
    again = pickle.loads(data)
    assert [part.key for part in again] == sorted(part.key for part in parts)
    assert again[5].head(1) == parts[5]


def test_a_value_that_is_not_of_its_columns_type_is_said_with_its_place(
    here: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists_module, "_BLOCK_BYTES", 1000)
    rows = b"".join(b"%09d.png,1\n" % number for number in range(200))
    here.put("list.csv", b"url,n\n" + rows + b"x.png,seven\n")
    with pytest.raises(UsageError, match=r"list\.csv: the file cannot be read as CSV: .*seven"):
        list(open_source(Request((f"{here.url}/list.csv",))).parts())


def test_a_list_without_urls_names_its_columns(here: Store) -> None:
    here.put("list.csv", b"name,n\na,1\n")
    with pytest.raises(
        UsageError, match=r"no column is known to hold URLs. Name it with --image-column. Columns: name, n"
    ):
        read(here, "list.csv")
    assert len(read(here, "list.csv", image_column="name")[1]) == 1
