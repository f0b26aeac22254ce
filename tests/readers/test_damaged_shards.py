"""A flipped bit anywhere in a shard: found at its samples, named by key and shard, harmless to the others."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_sets import Made, MakeDataset

from pilc_stream.errors import PilcError
from pilc_stream.readers import dataset as room
from pilc_stream.readers.dataset import Sample

COLUMNS = ["label", "name", "width"]


def read(made: Made) -> list[Sample | PilcError]:
    dataset = room.open(made.url, columns=COLUMNS)
    return [found for _, found in dataset.stream([np.arange(len(dataset))])]


def is_right(made: Made, row: int, found: Sample) -> bool:
    values = {"label": row % 3, "name": f"name {row}", "width": made.images[row].shape[1]}
    return (
        found.key == made.records[row].key
        and np.array_equal(found.pixels, made.images[row])
        and (found.columns == values)
    )


@pytest.mark.parametrize("step", [67, pytest.param(3, marks=pytest.mark.slow)])
def test_no_flipped_bit_goes_unnoticed_or_harms_others(make_dataset: MakeDataset, step: int) -> None:
    made = make_dataset([2, 3])
    path = made.path / made.manifest.shards[1].path
    good = path.read_bytes()
    ranges = made.manifest.byte_ranges(1)
    noticed = 0
    for at in range(0, len(good), step):
        damaged = bytearray(good)
        damaged[at] ^= 1 << (at // step) % 8
        path.write_bytes(damaged)
        bad = []
        for row, found in enumerate(read(made)):
            if isinstance(found, Sample):
                assert is_right(made, row, found), (at, row)
            else:
                assert made.manifest.shards[1].path in str(found)
                assert f"sample {row}" in str(found)
                bad.append(row)
        owners = [2 + row for row, (offset, length) in enumerate(ranges) if offset <= at < offset + length]
        if owners:
            assert bad == owners
            assert f"'{made.records[bad[0]].key}'" in str(read(made)[bad[0]])
        else:
            assert bad in ([], [2, 3, 4])
        noticed += bool(bad)
    assert noticed > len(good) / step / 2


def test_damaged_columns_cost_their_row_group(make_dataset: MakeDataset) -> None:
    made = make_dataset([600], shape=(1, 1))
    path = made.path / made.manifest.shards[0].path
    good = path.read_bytes()
    group = pq.ParquetFile(path).metadata.row_group(1)
    places = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    for name in ("name", "key"):
        chunk = places[name]
        path.write_bytes(good)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        made.flip(path, start + chunk.total_compressed_size - 30)
        found = read(made)
        bad = [row for row, sample in enumerate(found) if not isinstance(sample, Sample)]
        assert bad == list(range(256, 512))
        assert all(is_right(made, row, sample) for row, sample in enumerate(found) if isinstance(sample, Sample))
        text = str(found[300])
        assert ("'class-0/image-00300.png' in" in text) == (name == "name")
        assert f"sample 300{'' if name == 'key' else ','}" in text
        assert "its columns are lost" in text
        dataset = room.open(made.url, columns=[], on_error="skip")
        assert len(list(dataset)) == (600 if name == "name" else 344)
        assert dataset.skipped == 600 - len(list(dataset))


def test_a_shard_that_is_gone_is_a_matter_of_storage(make_dataset: MakeDataset) -> None:
    made = make_dataset([3, 4])
    (made.path / made.manifest.shards[1].path).unlink()
    with pytest.raises(PilcError, match="nothing at this place"):
        read(made)
