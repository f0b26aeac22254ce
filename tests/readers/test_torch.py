from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_sets import Made, MakeDataset, make_set

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from pilc_stream.errors import ChecksumError, UsageError  # noqa: E402
from pilc_stream.readers import dataset as readers  # noqa: E402
from pilc_stream.readers.order import EpochOrder, Mixing, effective_batch  # noqa: E402
from pilc_stream.readers.torch import StreamingImages  # noqa: E402

SMALL_MIXING = Mixing(block_rows=3, window_rows=12, group_shards=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """50 images of one shape in 4 shards."""
    return make_set(str(tmp_path_factory.mktemp("torch") / "set"), [17, 0, 20, 13], shape=(4, 3, 3))


def row_of(key: str) -> int:
    return int(key[-9:-4])


def rows_of(batches: Iterable[dict[str, Any]]) -> list[list[int]]:
    return [[row_of(key) for key in batch["key"]] for batch in batches]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_every_sample_once_as_it_is(made: Made, workers: int) -> None:
    images = StreamingImages(made.url, batch_size=8, mixing=SMALL_MIXING)
    loader = DataLoader(images, batch_size=8, num_workers=workers)
    seen = Counter[int]()
    with warnings.catch_warnings():
        # A wrong length makes DataLoader warn.
        warnings.simplefilter("error")
        assert len(loader) == 7
        for batch in loader:
            assert set(batch) == {"key", "image", "label", "name"}
            assert batch["image"].dtype == torch.uint8
            assert batch["image"].shape[1:] == (3, 4, 3)
            for number, key in enumerate(batch["key"]):
                row = row_of(key)
                seen[row] += 1
                assert np.array_equal(batch["image"][number].permute(1, 2, 0).numpy(), made.images[row])
                assert int(batch["label"][number]) == row % 3
                assert batch["name"][number] == f"name {row}"
    assert seen == Counter(range(50))


def test_the_order_is_that_of_the_order_room(made: Made) -> None:
    images = StreamingImages(made.url, seed=5, mixing=SMALL_MIXING)
    order = EpochOrder([17, 0, 20, 13], 5, 0, True, SMALL_MIXING)
    assert [row_of(item["key"]) for item in images] == order.rows().tolist()
    images.set_epoch(3)
    assert images.epoch == 3
    order = EpochOrder([17, 0, 20, 13], 5, 3, True, SMALL_MIXING)
    assert [row_of(item["key"]) for item in images] == order.rows().tolist()
    straight = StreamingImages(made.url, shuffle=False)
    assert [row_of(item["key"]) for item in straight] == list(range(50))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("workers", "drop_last"), [(0, False), (0, True), (1, False), (2, True), (3, False)])
def test_ranks_share_the_samples_in_equal_batches(made: Made, workers: int, drop_last: bool) -> None:
    ranks = []
    for rank in range(3):
        images = StreamingImages(made.url, rank=rank, world=3, batch_size=4, drop_last=drop_last, columns=[])
        batches = rows_of(DataLoader(images, batch_size=4, num_workers=workers))
        assert len(images) == len(flat(batches)) == (16 if drop_last else 17)
        ranks.append(batches)
    assert len({tuple(map(len, batches)) for batches in ranks}) == 1
    counts = Counter(row for batches in ranks for row in flat(batches))
    assert sum(counts.values()) == (48 if drop_last else 51)
    assert len(counts) == (48 if drop_last else 50)
    # The batches do not depend on the workers.
    alone = StreamingImages(made.url, rank=2, world=3, batch_size=4, drop_last=drop_last)
    assert ranks[2] == rows_of(DataLoader(alone, batch_size=4))


def test_without_padding_nothing_is_doubled_or_dropped(made: Made) -> None:
    ranks = [StreamingImages(made.url, rank=rank, world=3, pad=False) for rank in range(3)]
    assert [len(images) for images in ranks] == [17, 17, 16]
    assert Counter(row_of(item["key"]) for images in ranks for item in images) == Counter(range(50))


def test_workers_without_a_known_batch_size_still_share(made: Made) -> None:
    images = StreamingImages(made.url)
    with warnings.catch_warnings():
        # Each worker ends with a short batch, more than DataLoader expects.
        warnings.simplefilter("ignore")
        assert sorted(flat(rows_of(DataLoader(images, batch_size=8, num_workers=2)))) == list(range(50))


def test_persistent_workers_see_the_epoch(made: Made) -> None:
    images = StreamingImages(made.url, batch_size=8)
    loader = DataLoader(images, batch_size=8, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 0):
        images.set_epoch(epoch)
        epochs.append(flat(rows_of(loader)))
    assert epochs[0] == epochs[2] != epochs[1]
    assert sorted(epochs[1]) == list(range(50))


@pytest.mark.parametrize(("before", "after"), [((1, 2), (2, 1)), ((1, 0), (4, 0)), ((2, 1), (3, 2)), ((4, 0), (1, 2))])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_pass_goes_on_with_other_ranks_and_workers(
    made: Made, before: tuple[int, int], after: tuple[int, int], steps: int
) -> None:
    def loaders(world: int, workers: int, state: dict[str, Any] | None) -> list[tuple[StreamingImages, Any]]:
        out = []
        for rank in range(world):
            images = StreamingImages(made.url, rank=rank, world=world, batch_size=5, pad=False, mixing=SMALL_MIXING)
            if state is None:
                images.set_epoch(2)
            else:
                images.load_state_dict(state)
            out.append((images, DataLoader(images, batch_size=5, num_workers=workers)))
        return out

    seen: list[int] = []
    state: dict[str, Any] | None = None
    for rank, (images, loader) in enumerate(loaders(*before, None)):
        batches = rows_of(loader)[:steps]
        seen += flat(batches)
        taken = images.state_dict(batches=steps)
        assert state in (None, taken), rank
        state = taken
    assert state is not None
    assert state["cursor"] == min(50, steps * 5 * before[0])
    assert state["epoch"] == 2
    assert made.url not in repr(state)
    order = EpochOrder([17, 0, 20, 13], 0, 2, True, SMALL_MIXING).rows().tolist()
    assert sorted(seen) == sorted(order[: state["cursor"]])
    rest = [flat(rows_of(loader)) for _, loader in loaders(*after, state)]
    assert sorted(seen + flat(rest)) == list(range(50))


def test_the_state_of_a_pass_in_this_process_needs_no_count(made: Made) -> None:
    images = StreamingImages(made.url, rank=1, world=2)
    with pytest.raises(UsageError, match="give the number of batches"):
        images.state_dict()
    reading = iter(images)
    first = [row_of(next(reading)["key"]) for _ in range(7)]
    state = images.state_dict()
    assert state["cursor"] == 14
    again = StreamingImages(made.url, rank=1, world=2)
    again.load_state_dict(state)
    assert len(again) == 18
    rest = [row_of(item["key"]) for item in again]
    assert first + rest == [row_of(item["key"]) for item in StreamingImages(made.url, rank=1, world=2)]
    # The place holds until another epoch is set.
    again.set_epoch(0)
    assert len(again) == 18
    again.set_epoch(1)
    assert len(again) == 25


def test_a_state_is_refused_where_it_does_not_belong(made: Made, make_dataset: MakeDataset) -> None:
    images = StreamingImages(made.url, batch_size=5)
    state = images.state_dict(batches=3)
    other = make_dataset([50])
    for wrong, word in [
        (StreamingImages(other.url), "dataset"),
        (StreamingImages(made.url, seed=1), "seed"),
        (StreamingImages(made.url, shuffle=False), "shuffle"),
        (StreamingImages(made.url, mixing=SMALL_MIXING), "mixing"),
    ]:
        with pytest.raises(UsageError, match=f"its {word} is"):
            wrong.load_state_dict(state)
    with pytest.raises(UsageError, match="its version is 2, here it is 1"):
        images.load_state_dict({**state, "version": 2})
    with pytest.raises(UsageError, match="its version is None"):
        images.load_state_dict({})
    with pytest.raises(UsageError, match="of one DataLoader worker"):
        images.load_state_dict({**state, "taken": 3, "share": [0, 1, 1, 2, 5]})
    with pytest.raises(UsageError, match="nobody said how large"):
        StreamingImages(made.url).state_dict(batches=3)


def test_the_state_survives_the_data_set_moving(made: Made, tmp_path: Path) -> None:
    state = StreamingImages(made.url, batch_size=5).state_dict(batches=4)
    moved = tmp_path / "elsewhere"
    os.symlink(made.path, moved)
    images = StreamingImages(str(moved), batch_size=5)
    images.load_state_dict(state)
    assert len(list(images)) == 30


def test_forked_workers_read_object_storage_that_the_parent_has_used(s3_bucket: str, s3_server: Any) -> None:
    made = make_set(f"{s3_bucket}/set", [9, 8], shape=(2, 2, 3), options=s3_server.options)
    images = StreamingImages(made.url, storage_options=s3_server.options, batch_size=4)
    assert np.array_equal(images.dataset[11].pixels, made.images[11])
    batches = rows_of(DataLoader(images, batch_size=4, num_workers=2, multiprocessing_context="fork"))
    assert sorted(flat(batches)) == list(range(17))
    assert flat(batches) == [row_of(item["key"]) for item in images]


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_handled_as_told(make_dataset: MakeDataset, workers: int) -> None:
    made = make_dataset([10, 10], kept={13: b"text"}, shape=(2, 2, 3))
    made.damage(4)
    good = sorted(set(range(20)) - {4, 13})
    images = StreamingImages(made.url, on_error="skip", batch_size=4)
    loader = DataLoader(images, batch_size=4, num_workers=workers)
    assert sorted(flat(rows_of(loader))) == good
    assert images.skipped == 2
    strict = StreamingImages(made.url, shuffle=False, batch_size=4)
    batches: Any = iter(DataLoader(strict, batch_size=4, num_workers=workers))
    with pytest.raises(ChecksumError, match=r"class-1/image-00004\.png"):
        list(batches)
    if workers:
        # Else the garbage collector shuts them down, and waits 5 s for what it has collected before.
        batches._shutdown_workers()
    if not workers:
        with pytest.warns(UserWarning, match="left out"):
            assert len(list(StreamingImages(made.url, on_error="warn"))) == 18


@pytest.mark.parametrize("workers", [0, 2])
def test_the_map_style_data_set_works_in_a_loader(made: Made, workers: int) -> None:
    opened: Any = readers.open(made.url)
    loader: Any = DataLoader(opened, batch_size=8, shuffle=True, num_workers=workers, collate_fn=list)
    rows = []
    for batch in loader:
        for sample in batch:
            rows.append(row_of(sample.key))
            assert np.array_equal(sample.pixels, made.images[rows[-1]])
    assert sorted(rows) == list(range(50))


def halve(image: Any) -> Any:
    return image // 2


def test_output_columns_and_transforms(make_dataset: MakeDataset) -> None:
    grey = make_dataset([3], shape=(4, 5), name="grey")
    item = next(iter(StreamingImages(grey.url, shuffle=False, columns=["label"])))
    assert set(item) == {"key", "image", "label"}
    assert item["image"].shape == (1, 4, 5)
    item = next(iter(StreamingImages(grey.url, shuffle=False, output="numpy", transform=halve)))
    assert np.array_equal(item["image"], grey.images[0] // 2)
    opened = readers.open(grey.url, columns=["width"])
    assert set(next(iter(StreamingImages(opened)))) == {"key", "image", "width"}
    assert set(next(iter(StreamingImages(opened, columns=["name"])))) == {"key", "image", "name"}
    assert opened.columns == ("width",)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "jax"}, "output is 'jax'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"rank": 1}, "give both or neither"),
        ({"rank": 2, "world": 2}, "Rank 2 of 2"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"columns": ["lable"]}, "no column 'lable'"),
    ],
)
def test_wrong_arguments_are_refused_at_once(made: Made, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        StreamingImages(made.url, **options)


def test_wrong_epochs_are_refused(made: Made) -> None:
    with pytest.raises(UsageError, match="epoch is -1"):
        StreamingImages(made.url).set_epoch(-1)


def test_empty_and_tiny_sets(make_dataset: MakeDataset) -> None:
    empty = make_dataset([0], name="empty")
    assert list(DataLoader(StreamingImages(empty.url, batch_size=2), batch_size=2, num_workers=1)) == []
    one = make_dataset([1], name="one")
    for rank in range(3):
        images = StreamingImages(one.url, rank=rank, world=3, batch_size=2)
        assert rows_of(DataLoader(images, batch_size=2, num_workers=2)) == [[0]]
        assert list(StreamingImages(one.url, rank=rank, world=3, drop_last=True)) == []


def test_the_environment_names_the_rank(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    images = StreamingImages(made.url)
    assert len(images) == 50
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert len(images) == 13
    expected = [row_of(item["key"]) for item in StreamingImages(made.url, rank=3, world=4)]
    assert [row_of(item["key"]) for item in images] == expected
    # An explicit rank wins.
    assert len(StreamingImages(made.url, rank=0, world=1)) == 50
    # A plain copy does not take the rank along.
    copy = pickle.loads(pickle.dumps(images))
    monkeypatch.delenv("RANK")
    assert len(copy) == 50
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UsageError, match="RANK='first'"):
        len(images)


@pytest.mark.slow
def test_the_process_group_names_the_rank(made: Made, tmp_path: Path) -> None:
    code = f"""
        import torch.distributed as dist
        from torch.utils.data import DataLoader
        from pilc_stream.readers.torch import StreamingImages

        if __name__ == "__main__":
            images = StreamingImages({made.url!r}, batch_size=5)
            dist.init_process_group("gloo", init_method="file://{tmp_path}/group", rank=0, world_size=1)
            dist.get_world_size, dist.get_rank = (lambda: 5), (lambda: 3)
            for method in ("fork", "spawn"):
                loader = DataLoader(images, batch_size=5, num_workers=1, multiprocessing_context=method)
                print([key for batch in loader for key in batch["key"]])
    """
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(code))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    expected = [item["key"] for item in StreamingImages(made.url, rank=3, world=5)]
    assert done.stdout.splitlines() == [repr(expected)] * 2


@pytest.mark.slow
def test_a_killed_training_leaves_nothing(made: Made) -> None:
    code = f"""
        import os, signal
        from torch.utils.data import DataLoader
        from pilc_stream.readers.torch import StreamingImages

        if __name__ == "__main__":
            images = StreamingImages({made.url!r}, batch_size=5)
            batches = iter(DataLoader(images, batch_size=5, num_workers=2))
            next(batches)
            print(os.getpid(), *(worker.pid for worker in batches._workers), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    before = sorted(made.path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, timeout=300, check=False
    )
    assert done.returncode == -signal.SIGKILL
    pids = done.stdout.split()
    assert len(pids) == 3
    assert sorted(made.path.rglob("*")) == before
    if Path("/dev/shm").is_dir():
        assert not [path for path in Path("/dev/shm").iterdir() if any(f"_{pid}_" in path.name for pid in pids)]
    assert sorted(flat(rows_of(DataLoader(StreamingImages(made.url), batch_size=5)))) == list(range(50))


def test_shuffling_follows_the_size_of_the_payloads(made: Made) -> None:
    images = StreamingImages(made.url, batch_size=1)
    assert images.state_dict(batches=0)["mixing"] == [256, 65536, 256]
    rows = np.array([row_of(item["key"]) for item in images])
    assert effective_batch(rows, 5) > 0.4
