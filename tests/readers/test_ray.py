from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_sets import MakeDataset

pytest.importorskip("ray")
pytest.importorskip("pandas")

import ray.data
from ray.data.block import BlockAccessor

from pilc_stream.errors import UsageError
from pilc_stream.readers import dataset as readers
from pilc_stream.readers import ray as room
from pilc_stream.readers.ray import read_pilc, write_pilc
from pilc_stream.storage import Store
from workers.session import ray_session


def rows_of(blocks: Any) -> list[dict[str, Any]]:
    return [row for block in blocks for row in BlockAccessor.for_block(block).iter_rows(public_row_format=True)]


@dataclass
class Task:
    """What Ray tells a write task of itself."""

    task_idx: int


# What tasks do, without a cluster.


def test_read_tasks_share_the_rows(make_dataset: MakeDataset) -> None:
    made = make_dataset([7, 0, 5])
    tasks = room._PilcSource(readers.open(made.url), keys=True).get_read_tasks(5)
    assert sum(task.metadata.num_rows for task in tasks) == 12
    rows = [row for task in tasks for row in rows_of(task())]
    assert [row["key"] for row in rows] == [record.key for record in made.records]
    for number, row in enumerate(rows):
        assert np.array_equal(row["image"], made.images[number])
        assert row["label"] == number % 3
    [task] = room._PilcSource(readers.open(made.url, columns=[]), keys=False).get_read_tasks(1)
    assert set(rows_of(task())[0]) == {"image"}
    empty = make_dataset([0], name="empty")
    assert [rows_of(task()) for task in room._PilcSource(readers.open(empty.url), True).get_read_tasks(4)] == [[]]


def test_write_tasks_make_shards(make_dataset: MakeDataset, tmp_path: Path) -> None:
    made = make_dataset([6, 3], shape=(24, 20, 3), levels=16)
    tasks = room._PilcSource(readers.open(made.url), keys=True).get_read_tasks(3)
    target = str(tmp_path / "again")
    sink = room._PilcSink(Store.open(target), "fast", 4)
    sink.on_write_start()
    for index, task in enumerate(tasks):
        # A task that is tried again changes nothing.
        for _ in range(2):
            assert sink.write(task(), Task(index)) == 3
    sink.on_write_complete()
    dataset = readers.open(target, verify=True)
    assert len(dataset) == 9
    for row, sample in enumerate(dataset):
        assert sample.key == made.records[row].key
        assert np.array_equal(sample.pixels, made.images[row])
        assert sample.columns == {"label": row % 3, "name": f"name {row}"}
    assert sum(shard.payload_bytes for shard in dataset.manifest.shards) < sum(image.nbytes for image in made.images)
    with pytest.raises(UsageError, match="there is a data set already"):
        sink.on_write_start()


def test_rows_without_pixels_are_refused(tmp_path: Path) -> None:
    sink = room._PilcSink(Store.open(str(tmp_path)), "raw", 4)
    sink.on_write_start()
    with pytest.raises(UsageError, match="Row 0 of shard 3 has no array of pixels as its image, but NoneType"):
        sink.write([pa.table({"label": [1]})], Task(3))
    with pytest.raises(UsageError, match="array of float64"):
        sink.write([BlockAccessor.batch_to_block({"image": np.zeros((2, 4, 4, 3))})], Task(3))
    # Without keys of their own, rows are numbered.
    assert sink.write([BlockAccessor.batch_to_block({"image": np.zeros((2, 4, 4, 3), np.uint8)})], Task(0)) == 2
    sink.on_write_complete()
    assert list(readers.open(str(tmp_path)).keys()) == ["000000/000000", "000000/000001"]


def test_columns_keep_rays_types_and_tasks_without_rows_leave_no_gap(tmp_path: Path) -> None:
    sink = room._PilcSink(Store.open(str(tmp_path)), "raw", 4)
    sink.on_write_start()
    images = np.zeros((2, 4, 4, 3), np.uint8)
    for index, note in ((1, None), (3, "seen")):
        block = BlockAccessor.batch_to_block({"image": images})
        block = block.append_column("weight", pa.array([1, 2], pa.float32()))
        block = block.append_column("note", pa.array([note, note], pa.string()))
        assert sink.write([block, block.slice(0, 0)], Task(index)) == 2
    assert sink.write([], Task(0)) == sink.write([block.slice(0, 0)], Task(2)) == 0
    sink.on_write_complete()

    dataset = readers.open(str(tmp_path))
    assert [shard.rows for shard in dataset.manifest.shards] == [0, 2, 0, 2]
    schemas = [dataset.manifest.reader(position).schema for position in range(4)]
    assert all(schema.equals(schemas[0]) for schema in schemas)
    assert (schemas[0].field("weight").type, schemas[0].field("note").type) == (pa.float32(), pa.string())
    assert [sample.columns for sample in dataset] == [
        {"weight": weight, "note": note} for note in (None, "seen") for weight in (1.0, 2.0)
    ]


def test_a_dataset_without_rows_is_an_empty_data_set(tmp_path: Path) -> None:
    sink = room._PilcSink(Store.open(str(tmp_path)), "raw", 4)
    sink.on_write_start()
    assert sink.write([], Task(0)) == 0
    sink.on_write_complete()
    assert len(readers.open(str(tmp_path))) == 0


# On a cluster.


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_session(None, 2):
        # Unless asked to, Ray Data gives blocks in the order in which they are ready.
        options = ray.data.DataContext.get_current().execution_options
        options.preserve_order = True
        yield
        options.preserve_order = False


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_ray_data_reads_images_of_any_sizes(make_dataset: MakeDataset) -> None:
    made = make_dataset([7, 0, 5])
    rows = read_pilc(made.url, keys=True, parallelism=3).take_all()
    assert [row["key"] for row in rows] == [record.key for record in made.records]
    for number, row in enumerate(rows):
        assert np.array_equal(row["image"], made.images[number])
        assert row["label"] == number % 3


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_batches_become_tensors(make_dataset: MakeDataset) -> None:
    made = make_dataset([6, 6], shape=(5, 4, 3))
    seen = 0
    for batch in read_pilc(made.url, columns=["label"], parallelism=2).iter_torch_batches(batch_size=4):
        images = batch["image"].numpy()
        assert images.dtype == np.uint8
        for image, label in zip(images, batch["label"].tolist(), strict=True):
            assert np.array_equal(image, made.images[seen])
            assert label == seen % 3
            seen += 1
    assert seen == 12


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_bad_samples_are_left_out_where_told(make_dataset: MakeDataset) -> None:
    made = make_dataset([9])
    made.damage(4)
    keys = [row["key"] for row in read_pilc(made.url, keys=True, on_error="skip").take_all()]
    assert keys == [record.key for row, record in enumerate(made.records) if row != 4]
    with pytest.raises(Exception, match=r"image-00004\.png"):
        read_pilc(made.url).take_all()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_ray_data_writes_data_sets(make_dataset: MakeDataset, tmp_path: Path) -> None:
    # A function in here travels by value: workers do not have this file's folder on their path.
    def invert(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "image": 255 - row["image"]}

    made = make_dataset([7, 5], shape=(24, 20, 3), levels=16)
    target = str(tmp_path / "inverted")
    write_pilc(read_pilc(made.url, keys=True, parallelism=2).map(invert), target, shard_rows=4)
    dataset = readers.open(target, verify=True)
    found = {sample.key: sample for sample in dataset}
    assert len(found) == 12
    for number, record in enumerate(made.records):
        assert np.array_equal(found[record.key].pixels, 255 - made.images[number])
        assert found[record.key].columns == {"label": number % 3, "name": f"name {number}"}
    with pytest.raises(Exception, match="there is a data set already"):
        write_pilc(read_pilc(made.url), target)
