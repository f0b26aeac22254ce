from __future__ import annotations

import fcntl
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_sets import CountingStore, Made, MakeDataset, make_set

from pilc_stream.errors import ChecksumError, UsageError
from pilc_stream.readers import cache as room
from pilc_stream.readers.cache import PayloadCache
from pilc_stream.readers.dataset import Dataset
from pilc_stream.readers.pieces import Pieces

PATHS = ["data/part-000000-0123456789ab.parquet", "data/part-000001-ba9876543210.parquet"]
ROWS = {PATHS[0]: 40, PATHS[1]: 600}
LIMIT = 1 << 24


def payload(path: int, row: int) -> bytes:
    return np.random.default_rng(1000 * path + row).bytes(10 + 37 * row % 5000)


def pieces_of(rows: Sequence[tuple[int, int]]) -> Pieces:
    path, row = np.array(rows, np.int64).reshape(-1, 2).T
    length = np.array([len(payload(*each)) for each in rows], np.int64)
    return Pieces(PATHS, path, 4 + 6000 * row, length, row)


def cache_of(folder: Path, limit_bytes: int = LIMIT) -> PayloadCache:
    return PayloadCache(folder, limit_bytes, ROWS)


ROW = st.one_of(st.tuples(st.just(0), st.integers(0, 39)), st.tuples(st.just(1), st.integers(0, 599)))


@given(st.lists(ROW, max_size=30), st.lists(ROW, max_size=30), st.data())
def test_what_was_written_is_read_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    written: list[tuple[int, int]],
    asked: list[tuple[int, int]],
    data: st.DataObject,
) -> None:
    cache = cache_of(tmp_path_factory.mktemp("cache"))
    pieces = pieces_of(written)
    kept = data.draw(st.sets(st.sampled_from(range(len(written))))) if written else set()
    cache.write(pieces, [(number, payload(*written[number])) for number in kept])
    here = {written[number] for number in kept}
    found = pickle.loads(pickle.dumps(cache)).read(pieces_of(asked))
    assert found == [payload(*each) if each in here else None for each in asked]
    assert cache.holds(pieces_of(asked)).tolist() == [each in here for each in asked]


def test_parts_of_payloads_are_not_kept(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    whole = pieces_of([(0, 3), (0, 4)])
    part = Pieces(whole.paths, whole.path, whole.offset, whole.length, np.array([-1, 4]))
    cache.write(part, [(0, payload(0, 3)), (1, payload(0, 4))])
    assert cache.read(whole) == [None, payload(0, 4)]
    assert cache.read(part) == [None, payload(0, 4)]


def test_what_the_disk_damages_is_a_miss(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    pieces = pieces_of([(0, 3), (0, 4)])
    cache.write(pieces, enumerate([payload(0, 3), payload(0, 4)]))
    [file] = tmp_path.iterdir()
    data = file.read_bytes()
    at = data.index(payload(0, 3))
    for place in (at, at + 5, 8 * 3, 8 * 3 + 3):
        file.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert cache.read(pieces) == [None, payload(0, 4)]
    file.write_bytes(data[: at + 1])
    assert cache.read(pieces) == [None, None]
    file.write_bytes(data[:30])
    assert cache.read(pieces) == [None, None]
    cache.write(pieces, enumerate([payload(0, 3), payload(0, 4)]))
    assert cache.read(pieces) == [payload(0, 3), payload(0, 4)]
    # Written whole, but not yet in the table: as a killed process leaves it.
    file.write_bytes(bytes(4096) + data[4096:])
    assert cache.read(pieces) == [None, None]


def test_the_limit_holds_and_what_is_here_stays(tmp_path: Path) -> None:
    limit = 200_000
    cache = cache_of(tmp_path, limit)
    rows = [(1, row) for row in range(0, 600, 2)]
    for start in range(0, len(rows), 10):
        pieces = pieces_of(rows[start : start + 10])
        cache.write(pieces, ((number, payload(*each)) for number, each in enumerate(rows[start : start + 10])))
        assert cache.used_bytes <= limit
    held = cache.holds(pieces_of(rows))
    assert 20 <= held.sum() < len(rows)
    # The first to come.
    assert held[:20].all()
    assert cache.used_bytes > limit / 2


def test_idle_shards_of_other_data_sets_make_room(tmp_path: Path) -> None:
    now = time.time()
    rows = [(1, row) for row in range(100)]
    others = {}
    for number, age in enumerate([30, 5 * room.IDLE_S, 2 * room.IDLE_S]):
        other = PayloadCache(tmp_path, LIMIT, {f"data/part-00000{number}-aaaa.parquet": 9})
        pieces = Pieces([f"data/part-00000{number}-aaaa.parquet"], *np.array([[0], [4], [90_000], [5]]))
        other.write(pieces, [(0, np.random.default_rng(number).bytes(90_000))])
        others[number] = other, pieces
        [file] = tmp_path.glob(f"part-00000{number}-*")
        os.utime(file, (now - age, now - age))
    cache = cache_of(tmp_path, others[0][0].used_bytes + 50_000)
    cache.write(pieces_of(rows[:3]), ((number, payload(*each)) for number, each in enumerate(rows[:3])))
    assert [bool(other.holds(pieces)[0]) for other, pieces in others.values()] == [True, True, True]
    cache.write(pieces_of(rows[3:10]), ((number, payload(*each)) for number, each in enumerate(rows[3:10])))
    # The one used longest ago; the youngest is in use.
    assert [bool(other.holds(pieces)[0]) for other, pieces in others.values()] == [True, False, True]
    for start in range(10, 90, 10):
        part = rows[start : start + 10]
        cache.write(pieces_of(part), ((number, payload(*each)) for number, each in enumerate(part)))
    assert [bool(other.holds(pieces)[0]) for other, pieces in others.values()] == [True, False, False]
    assert cache.used_bytes <= cache.limit_bytes


def test_reading_counts_as_use(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    cache.write(pieces_of([(0, 1)]), [(0, payload(0, 1))])
    [file] = tmp_path.iterdir()
    os.utime(file, (1, 1))
    cache.read(pieces_of([(0, 1)]))
    assert file.stat().st_mtime > time.time() - 100


def test_a_disk_that_fails_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of(tmp_path / "here")
    pieces = pieces_of([(0, 1)])

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.warns(UserWarning, match="takes nothing more in this process: .*No space left"):
        cache.write(pieces, [(0, payload(0, 1))])
    monkeypatch.undo()
    cache.write(pieces, [(0, payload(0, 1))])
    assert cache.read(pieces) == [None]
    for path in (tmp_path / "here").iterdir():
        path.unlink()
    (tmp_path / "here").rmdir()
    assert cache.read(pieces) == [None]


def test_a_cache_of_somebody_else_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of(tmp_path)
    cache.write(pieces_of([(0, 1)]), [(0, payload(0, 1))])
    [file] = tmp_path.iterdir()
    os.utime(file, (1, 1))

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refused)
    assert cache.read(pieces_of([(0, 1)])) == [payload(0, 1)]


def test_a_halted_writer_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE_S", 0.03)
    cache = cache_of(tmp_path)
    pieces = pieces_of([(0, 1)])
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        cache.write(pieces, [(0, payload(0, 1))])
        assert cache.read(pieces) == [None]
    finally:
        os.close(folder)
    cache.write(pieces, [(0, payload(0, 1))])
    assert cache.read(pieces) == [payload(0, 1)]


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot keep a cache there"):
        cache_of(tmp_path / "file")
    with pytest.raises(UsageError, match="limit is 0 bytes"):
        cache_of(tmp_path, 0)


# The data set with a cache.


def counted(made: Made, **options: Any) -> tuple[Dataset, list[tuple[str, int, int]]]:
    store = made.manifest.store
    assert isinstance(store, CountingStore)
    dataset = Dataset(made.manifest, **options)
    dataset.__getitems__([0, len(dataset) - 1])
    store.reads.clear()
    return dataset, store.reads


def test_a_data_set_is_read_once(make_dataset: MakeDataset, tmp_path: Path) -> None:
    made = make_dataset([20, 30], kept={7: b"text"})
    dataset, reads = counted(made, cache=tmp_path / "cache", on_error="skip")
    for _ in range(2):
        rows = [row for row in range(50) if row != 7]
        for row, sample in zip(rows, dataset, strict=True):
            assert np.array_equal(sample.pixels, made.images[row])
    # One request a shard.
    assert len(reads) == 2
    reads.clear()
    assert np.array_equal(dataset[33].pixels, made.images[33])
    assert np.array_equal(dataset.read(34, (0, 0, 1, 1)).pixels, made.images[34][:1, :1])
    assert reads == []


def test_regions_come_from_the_cache_where_it_has_them(make_dataset: MakeDataset, tmp_path: Path) -> None:
    made = make_dataset([3], shape=(300, 400, 3), name="large")
    dataset, reads = counted(made, cache=tmp_path / "cache")
    assert np.array_equal(dataset.read(1, (5, 6, 7, 8)).pixels, made.images[1][5:12, 6:14])
    assert reads
    assert np.array_equal(dataset[1].pixels, made.images[1])
    reads.clear()
    assert np.array_equal(dataset.read(1, (5, 6, 7, 8)).pixels, made.images[1][5:12, 6:14])
    assert reads == []


def test_damaged_payloads_are_not_kept(make_dataset: MakeDataset, tmp_path: Path) -> None:
    made = make_dataset([5])
    dataset, reads = counted(made, cache=tmp_path / "cache")
    [file] = (tmp_path / "cache").iterdir()
    # Sound for the cache, but not what was stored: as if the network had damaged it.
    offset, length = made.manifest.byte_range(0, 4)
    data = bytearray(file.read_bytes())
    data[4096 + offset] ^= 1
    checksum = google_crc32c.value(bytes(data[4096 + offset : 4096 + offset + length]))
    data[32:40] = (1 << 32 | checksum).to_bytes(8, "little")
    file.write_bytes(data)
    with pytest.raises(Exception, match="image-00004"):
        dataset[4]
    assert reads == []
    assert np.array_equal(dataset[4].pixels, made.images[4])
    assert len(reads) == 1
    made.damage(2)
    for _ in range(2):
        with pytest.raises(ChecksumError, match="image-00002"):
            dataset[2]


def test_threads_and_data_sets_share_a_folder(make_dataset: MakeDataset, tmp_path: Path) -> None:
    sets = [make_dataset([30], name=f"set-{number}", shape=(5 + number, 7)) for number in range(2)]
    datasets = [Dataset(made.manifest, cache=tmp_path / "cache") for made in sets for _ in range(2)]

    def read(number: int) -> bool:
        random = np.random.default_rng(number)
        return all(
            np.array_equal(datasets[number].read(row).pixels, sets[number // 2].images[row])
            for row in random.integers(0, 30, 60)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.slow
def test_processes_that_evict_each_others_shards_read_the_right_pixels(tmp_path: Path) -> None:
    sets = [make_set(str(tmp_path / name), [300], shape=(20, 20, 3)) for name in ("one", "two")]
    code = """
        import sys
        import numpy as np
        import pilc_stream as pilc
        from pilc_stream.readers import cache
        cache.IDLE_S = 0.0
        plain = [sample.pixels for sample in pilc.open(sys.argv[1])]
        dataset = pilc.open(sys.argv[1], cache=sys.argv[2], cache_bytes=600_000)
        for turn in range(3):
            assert all(np.array_equal(dataset[row].pixels, plain[row]) for row in range(300))
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    running = [subprocess.Popen([*command, made.url, str(tmp_path / "cache")]) for made in sets for _ in range(2)]
    assert [process.wait(300) for process in running] == [0] * 4
    assert Dataset(sets[0].manifest, cache=tmp_path / "cache").cache.used_bytes <= 600_000


@pytest.mark.slow
def test_processes_killed_while_they_write_leave_a_sound_cache(tmp_path: Path) -> None:
    made = make_set(str(tmp_path / "set"), [400, 300], shape=(20, 20, 3))
    code = f"""
        import sys
        import pilc_stream as pilc
        dataset = pilc.open({made.url!r}, cache={str(tmp_path / "cache")!r}, cache_bytes=1_500_000)
        print("ready", flush=True)
        while True:
            for row in range(int(sys.argv[1]), 700, 3):
                dataset[row]
    """
    for turn in range(3):
        running = [
            subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(number)], stdout=subprocess.PIPE)
            for number in range(2)
        ]
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        time.sleep(0.1 * turn)
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    dataset = Dataset(made.manifest, cache=tmp_path / "cache", cache_bytes=1_500_000)
    for row, sample in enumerate(dataset):
        assert np.array_equal(sample.pixels, made.images[row])
    assert dataset.cache is not None
    assert 500_000 < dataset.cache.used_bytes <= 1_500_000
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {room.SUFFIX}
