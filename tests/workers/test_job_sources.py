"""Every kind of source, all the way: labels typed, pixels equal, resumed, retried."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pilc_stream.errors import JobError, JobMismatchError, UsageError
from pilc_stream.images import decode_image
from pilc_stream.pipeline.verify import verify_dataset
from pilc_stream.readers.dataset import Dataset
from pilc_stream.records.commit import read_errors
from pilc_stream.records.manifest import Manifest
from pilc_stream.storage import SourceFile, Store
from workers.job import plan_job, run_job
from workers.ledger import Patience
from workers.planning import JobPlan
from workers.settings import JobSettings

SettingsOf = Callable[..., JobSettings]
Pixels = npt.NDArray[Any]

COUNT = 7
CAPTIONS = [f"picture {number}, schön" for number in range(COUNT)]


@pytest.fixture
def pictures(photo_like: Callable[..., Pixels]) -> list[Pixels]:
    return [photo_like(11, 13, seed=number) for number in range(COUNT)]


@pytest.fixture
def files(pictures: list[Pixels], file_of: Callable[..., bytes]) -> list[bytes]:
    return [file_of(pixels, "BMP") for pixels in pictures]


def tar_of(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


def make_tars(store: Store, files: list[bytes], pictures: list[Pixels]) -> str:
    for shard, numbers in enumerate((range(4), range(4, COUNT))):
        members = {}
        for number in numbers:
            members |= {f"{number:04}.bmp": files[number], f"{number:04}.cls": b"%d" % (10 * number)}
            members[f"{number:04}.txt"] = CAPTIONS[number].encode()
        store.put(f"shard-{shard}.tar", tar_of(members))
    return "*.tar"


def make_parquet(store: Store, files: list[bytes], pictures: list[Pixels]) -> str:
    image = pa.array(
        [{"bytes": data, "path": None} for data in files], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    table = pa.table({"image": image, "cls": pa.array(range(0, 10 * COUNT, 10), pa.int64()), "txt": CAPTIONS})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=3)
    store.put("data.parquet", sink.getvalue())
    return "data.parquet"


def make_list(store: Store, files: list[bytes], pictures: list[Pixels]) -> str:
    lines = ["url\tcls\ttxt"]
    for number, data in enumerate(files):
        store.put(f"pictures/{number}.bmp", data)
        lines.append(f"pictures/{number}.bmp\t{10 * number}\t{CAPTIONS[number]}")
    store.put("list.tsv", "\n".join(lines).encode())
    return "list.tsv"


def make_arrays(store: Store, files: list[bytes], pictures: list[Pixels]) -> str:
    sink = io.BytesIO()
    np.savez(sink, images=np.stack(pictures), cls=np.arange(0, 10 * COUNT, 10), txt=np.array(CAPTIONS))
    store.put("arrays.npz", sink.getvalue())
    return "arrays.npz"


MAKERS = {"tar": make_tars, "parquet": make_parquet, "list": make_list, "arrays": make_arrays}


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store.open(str(tmp_path / "place"))
    if request.param == "memory":
        return Store.open(f"memory://{tmp_path.name}")
    return Store.open(request.getfixturevalue("s3_bucket"), request.getfixturevalue("s3_server").options)


@pytest.mark.parametrize("kind", MAKERS)
def test_each_kind_comes_back_with_its_labels(
    kind: str, place: Store, files: list[bytes], pictures: list[Pixels], settings_of: SettingsOf
) -> None:
    name = MAKERS[kind](place, files, pictures)
    destination = f"{place.url}/dataset"
    settings = settings_of(
        f"{place.url}/{name}", destination=destination, storage_options=place.storage_options, shard_size=4000
    )

    report = run_job(settings)

    assert (report.totals.images, report.totals.failed) == (COUNT, 0)
    manifest = Manifest.load(destination, place.storage_options)
    assert verify_dataset(manifest).ok
    schema = manifest.reader(0).schema
    assert (schema.field("cls").type, schema.field("txt").type) == (pa.int64(), pa.string())
    dataset = Dataset(manifest)
    found = [dataset[number] for number in range(len(dataset))]
    assert [sample.columns["cls"] for sample in found] == list(range(0, 10 * COUNT, 10))
    assert [sample.columns["txt"] for sample in found] == CAPTIONS
    for sample, pixels in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(sample.pixels, pixels)
    assert run_job(settings).made.shards == 0


def test_all_shards_have_one_schema(tmp_path: Path, files: list[bytes], settings_of: SettingsOf) -> None:
    here = Store.open(str(tmp_path / "tars"))
    here.put("0.tar", tar_of({"a.bmp": files[0], "a.cls": b"1", "a.txt": b"x"}))
    here.put("1.tar", tar_of({"a.bmp": files[1]}))
    run_job(settings_of(f"{here.url}/*.tar", shard_size=100))
    manifest = Manifest.load(str(tmp_path / "dataset"))
    assert len(manifest.shards) == 2
    assert manifest.reader(0).schema == manifest.reader(1).schema
    assert manifest.reader(1).columns(["cls", "txt"]).to_pylist() == [{"cls": None, "txt": None}]


def test_misfits_are_listed_and_are_no_failures(tmp_path: Path, files: list[bytes], settings_of: SettingsOf) -> None:
    here = Store.open(str(tmp_path / "tars"))
    here.put("0.tar", tar_of({"a.bmp": files[0], "a.cls": b"1"}))
    here.put("1.tar", tar_of({"a.bmp": files[1], "a.cls": b"cat"}))
    report = run_job(settings_of(f"{here.url}/*.tar"))
    assert (report.totals.failed, report.statistics.misfits) == (0, 1)
    (error,) = read_errors(Store.open(str(tmp_path / "dataset")), 1)
    assert (error.key, error.stage, error.reason) == ("1.tar/a.bmp", "columns", "its .cls is no int64")


def test_other_columns_are_another_job(tmp_path: Path, files: list[bytes], settings_of: SettingsOf) -> None:
    here = Store.open(str(tmp_path / "tars"))
    here.put("0.tar", tar_of({"a.bmp": files[0], "a.cls": b"1"}))
    run_job(settings_of(f"{here.url}/*.tar"))
    # As many bytes, under another name.
    here.put("0.tar", tar_of({"a.bmp": files[0], "a.idx": b"1"}))
    with pytest.raises(JobMismatchError, match="columns"):
        run_job(settings_of(f"{here.url}/*.tar"))


class TestRetry:
    """`--retry-failed` reads and codes what failed, and nothing else."""

    @pytest.fixture
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        paths: list[str] = []
        read = Store.read

        def noted(store: Store, path: str) -> bytes:
            paths.append(path)
            return read(store, path)

        monkeypatch.setattr(Store, "read", noted)
        return paths

    def test_dead_links_are_fetched_again(
        self, tmp_path: Path, files: list[bytes], pictures: list[Pixels], settings_of: SettingsOf, reads: list[str]
    ) -> None:
        here = Store.open(str(tmp_path / "list"))
        name = make_list(here, files, pictures)
        here.delete("pictures/2.bmp")
        report = run_job(settings_of(f"{here.url}/{name}", shard_size=1 << 20))
        assert (report.totals.failed, dict(report.statistics.failed)) == (1, {"read": 1})
        assert "there is nothing at this place" in report.failures[0].reason
        here.put("pictures/2.bmp", files[2])
        reads.clear()

        report = run_job(settings_of(f"{here.url}/{name}", shard_size=1 << 20, retry_failed=True))

        assert report.totals.failed == 0
        assert [path for path in reads if path.endswith(".bmp")] == ["2.bmp"]
        assert report.statistics.verified == 1
        dataset = Dataset(Manifest.load(str(tmp_path / "dataset")))
        assert [dataset[number].columns["cls"] for number in range(COUNT)] == list(range(0, 10 * COUNT, 10))
        for number, pixels in enumerate(pictures):
            np.testing.assert_array_equal(dataset[number].pixels, pixels)

    def test_the_other_images_of_a_shard_keep_their_payloads(
        self, source: Path, tmp_path: Path, settings_of: SettingsOf, reads: list[str]
    ) -> None:
        good = (source / "001.bmp").read_bytes()
        (source / "001.bmp").write_bytes(b"no picture".ljust(len(good)))
        run_job(settings_of(source))
        before = Dataset(Manifest.load(str(tmp_path / "dataset"))).payload(0)
        (source / "001.bmp").write_bytes(good)
        reads.clear()

        report = run_job(settings_of(source, retry_failed=True))

        assert (report.totals.failed, report.totals.fallback, report.statistics.verified) == (0, 0, 1)
        assert [path for path in reads if path.endswith(".bmp")] == ["001.bmp"]
        after = Manifest.load(str(tmp_path / "dataset"))
        assert verify_dataset(after).ok
        assert Dataset(after).payload(0) == before

    def test_a_repaired_tar_file_is_another_source(
        self, tmp_path: Path, files: list[bytes], pictures: list[Pixels], settings_of: SettingsOf
    ) -> None:
        here = Store.open(str(tmp_path / "tars"))
        make_tars(here, files, pictures)
        whole = here.read("shard-1.tar")
        here.put("shard-1.tar", whole[:2500])
        report = run_job(settings_of(f"{here.url}/*.tar"))
        assert report.totals.failed == 1
        assert "the tar file is damaged" in report.failures[0].reason

        here.put("shard-1.tar", whole)
        with pytest.raises(JobMismatchError, match="the source has changed"):
            run_job(settings_of(f"{here.url}/*.tar", retry_failed=True))

    def test_a_tar_file_repaired_in_place_is_read_whole(
        self, tmp_path: Path, files: list[bytes], pictures: list[Pixels], settings_of: SettingsOf
    ) -> None:
        here = Store.open(str(tmp_path / "tars"))
        make_tars(here, files, pictures)
        whole = here.read("shard-1.tar")
        here.put("shard-1.tar", whole[:2048] + b"\xff" * (len(whole) - 2048))
        assert run_job(settings_of(f"{here.url}/*.tar")).totals.failed == 1
        here.put("shard-1.tar", whole)

        report = run_job(settings_of(f"{here.url}/*.tar", retry_failed=True))

        assert (report.totals.failed, report.totals.images) == (0, COUNT)


def test_a_limit_counts_images(
    tmp_path: Path, files: list[bytes], pictures: list[Pixels], settings_of: SettingsOf
) -> None:
    here = Store.open(str(tmp_path / "data"))
    for kind in ("parquet", "arrays", "list"):
        name = MAKERS[kind](here, files, pictures)
        assert plan_job(settings_of(f"{here.url}/{name}", limit=4)).images == 4
    make_tars(here, files, pictures)
    assert plan_job(settings_of(f"{here.url}/*.tar")).images is None
    with pytest.raises(UsageError, match="--limit"):
        plan_job(settings_of(f"{here.url}/*.tar", limit=4))


def test_a_list_of_which_nothing_can_be_read_is_no_data_set(tmp_path: Path, settings_of: SettingsOf) -> None:
    (tmp_path / "list.csv").write_text("url\n" + "".join(f"{number}.png\n" for number in range(20)))
    with pytest.raises(JobError, match="none of its 20 images could be read"):
        run_job(settings_of(tmp_path / "list.csv", shard_size=1 << 30), None, Patience(attempts=1))


def test_labels_and_pixels_of_cifar_10_survive_as_webdataset(
    shared_data: Path, tmp_path: Path, settings_of: SettingsOf
) -> None:
    table = pq.read_table(shared_data / "eval" / "cifar10_test.parquet").slice(0, 300)
    images = table.column("image").to_pylist()
    sources = table.column("source").to_pylist()
    here = Store.open(str(tmp_path / "tars"))
    for start in range(0, 300, 100):
        members = {}
        for number in range(start, start + 100):
            members[f"{number:05}.webp"] = images[number]
            members[f"{number:05}.cls"] = b"%d" % (number * 7 % 10)
            members[f"{number:05}.source.txt"] = sources[number].encode()
        here.put(f"cifar-{start:05}.tar", tar_of(members))

    run_job(settings_of(f"{here.url}/*.tar", shard_size=200_000))

    manifest = Manifest.load(str(tmp_path / "dataset"))
    assert verify_dataset(manifest).ok
    dataset = Dataset(manifest)
    assert len(dataset) == 300
    for number in range(300):
        sample = dataset[number]
        assert sample.columns["cls"] == number * 7 % 10
        assert sample.columns["source.txt"] == sources[number]
        np.testing.assert_array_equal(sample.pixels, decode_image(images[number]).array)


@pytest.mark.slow
def test_a_million_entries_are_planned_in_bounded_memory(
    tmp_path: Path, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tracemalloc

    from pilc_stream.pipeline.sources.files import Files

    count = 1_000_000
    store = Store.open(str(tmp_path))

    def parts(source: Files) -> Iterator[SourceFile]:
        return (SourceFile(f"{number:09d}.jpg", f"{number:09d}.jpg", 100_000, store) for number in range(count))

    monkeypatch.setattr(Files, "parts", parts)
    tracemalloc.start()
    plan = JobPlan.make(settings_of(tmp_path, destination=str(tmp_path / "dataset"), shard_size=100_000_000))
    shards = sum(1 for _ in plan.works(()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (plan.listing.images, shards) == (count, 1000)
    # A shard is 1,000 of them; all of them would take 300 MB.
    assert peak < 10_000_000
