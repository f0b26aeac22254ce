from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from small_sets import Made, MakeDataset, make_set

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from pilc_stream.errors import UsageError  # noqa: E402
from pilc_stream.readers.dataset import Dataset  # noqa: E402
from pilc_stream.readers.order import EpochOrder, Mixing  # noqa: E402
from pilc_stream.readers.torch import StreamingImages  # noqa: E402
from pilc_stream.readers.torch_loader import CropCollate, ImageLoader, collate  # noqa: E402

SMALL_MIXING = Mixing(block_rows=3, window_rows=12, group_shards=2)
SIZES = [17, 0, 20, 13]
CHANGES = [((1, 2), (2, 1)), ((1, 2), (4, 0)), ((1, 2), (3, 2)), ((4, 0), (1, 2))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """50 images of one shape in 4 shards."""
    return make_set(str(tmp_path_factory.mktemp("loader") / "set"), SIZES, shape=(4, 3, 3))


def rows_of(batches: Iterable[dict[str, Any]]) -> list[int]:
    return [int(key[-9:-4]) for batch in batches for key in batch["key"]]


def streaming(made: Made, rank: int = 0, world: int = 1, **options: Any) -> StreamingImages:
    settings = {"batch_size": 5, "pad": False, "mixing": SMALL_MIXING, **options}
    return StreamingImages(made.url, rank=rank, world=world, **settings)


def take(batches: Any, steps: int) -> list[Any]:
    """The first batches of a pass that is then left."""
    reading = iter(batches)
    taken = list(islice(reading, steps))
    reading.close()
    return taken


@pytest.mark.parametrize(("before", "after"), CHANGES)
@pytest.mark.parametrize("steps", [1, 2])
def test_a_loader_goes_on_with_other_ranks_and_workers(
    made: Made, before: tuple[int, int], after: tuple[int, int], steps: int
) -> None:
    seen: list[int] = []
    states = []
    for rank in range(before[0]):
        loader = ImageLoader(streaming(made, rank, before[0]), before[1])
        loader.set_epoch(2)
        seen += rows_of(take(loader, steps))
        states.append(json.loads(json.dumps(loader.state_dict())))
    assert states == [states[0]] * before[0]
    order = EpochOrder(SIZES, 0, 2, True, SMALL_MIXING).rows().tolist()
    assert sorted(seen) == sorted(order[: states[0]["cursor"]])
    for rank in range(after[0]):
        loader = ImageLoader(streaming(made, rank, after[0]), after[1])
        loader.load_state_dict(states[0])
        assert loader.epoch == 2
        batches = list(loader)
        seen += rows_of(batches)
        assert loader.epoch == 3
    assert sorted(seen) == list(range(50))


@pytest.mark.parametrize("workers", [0, 2])
def test_passes_follow_one_another_and_lengths_are_right(made: Made, workers: int) -> None:
    options: dict[str, Any] = {"persistent_workers": True} if workers else {}
    loader = ImageLoader(streaming(made), workers, **options)
    for epoch in range(3):
        assert (loader.epoch, len(loader)) == (epoch, 10)
        assert rows_of(loader) == EpochOrder(SIZES, 0, epoch, True, SMALL_MIXING).rows().tolist()
    assert loader.state_dict()["cursor"] == 0
    loader.set_epoch(1)
    take(loader, 4)
    loader.load_state_dict(loader.state_dict())
    assert len(loader) == 10
    assert len(list(loader)) == 6
    assert (loader.epoch, len(loader)) == (2, 10)


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_samples_shorten_their_batch_and_the_state_stays_exact(make_dataset: MakeDataset, workers: int) -> None:
    bad = {3: b"text", 4: b"text", 5: b"text", 7: b"text"}
    made = make_dataset([20], kept=bad, shape=(2, 2, 3))
    options: dict[str, Any] = {"shuffle": False, "on_error": "skip", "batch_size": 3}
    loader = ImageLoader(streaming(made, **options), workers)
    batches = [rows_of([batch]) for batch in loader]
    # Nothing could be read of rows 3 to 5, a whole batch.
    assert batches == [[0, 1, 2], [6, 8], [9, 10, 11], [12, 13, 14], [15, 16, 17], [18, 19]]
    assert loader.images.skipped == 4
    loader = ImageLoader(streaming(made, **options), workers)
    assert rows_of(take(loader, 2)) == [0, 1, 2, 6, 8]
    other = ImageLoader(streaming(made, rank=1, world=2, **options))
    other.load_state_dict(loader.state_dict())
    assert rows_of(other) == [10, 12, 14, 16, 18]


def test_a_loader_needs_a_batch_size(made: Made) -> None:
    with pytest.raises(UsageError, match="give StreamingImages a batch_size"):
        ImageLoader(streaming(made, batch_size=None))


def test_batches_that_come_as_they_please_are_refused(made: Made) -> None:
    with pytest.raises(UsageError, match="nobody could tell where a pass stands"):
        ImageLoader(streaming(made), 2, in_order=False)


def test_workers_that_stay_begin_anew_after_a_pass_was_left(made: Made) -> None:
    loader = ImageLoader(streaming(made), 2)
    assert len(take(loader, 3)) == 3
    # The same pass again, then the next.
    for epoch in range(2):
        assert rows_of(loader) == EpochOrder(SIZES, 0, epoch, True, SMALL_MIXING).rows().tolist()


def test_spawned_workers_share_epoch_place_and_count(make_dataset: MakeDataset) -> None:
    made = make_dataset([17, 20], kept={4: b"text"}, shape=(4, 3, 3))
    loader = ImageLoader(streaming(made, on_error="skip"), 2, multiprocessing_context="spawn")
    loader.load_state_dict({**loader.state_dict(), "epoch": 3, "cursor": 10})
    for epoch, start in ((3, 10), (4, 0)):
        order = EpochOrder([17, 20], 0, epoch, True, SMALL_MIXING).rows().tolist()[start:]
        assert rows_of(loader) == [row for row in order if row != 4]
    assert loader.images.skipped == 1 + (4 in EpochOrder([17, 20], 0, 3, True, SMALL_MIXING).rows()[10:])


def test_cards_are_kept_out_of_workers(made: Made) -> None:
    images = StreamingImages(Dataset(made.manifest, device="cuda"), batch_size=5)
    with pytest.raises(UsageError, match=r"a DataLoader worker must not touch.*GpuDecoder"):
        list(DataLoader(images, batch_size=5, num_workers=1))


@pytest.mark.parametrize(("before", "after"), [*CHANGES, ((1, 2), (1, 2)), ((2, 1), (2, 1)), ((1, 0), (1, 0))])
def test_torchdata_goes_on_with_the_same_and_with_other_numbers(
    made: Made, before: tuple[int, int], after: tuple[int, int]
) -> None:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")
    seen: list[int] = []
    states: list[Any] = []
    for rank in range(before[0]):
        loader = torchdata.StatefulDataLoader(streaming(made, rank, before[0]), 5, num_workers=before[1])
        reading = iter(loader)
        for _ in range(2):
            seen += rows_of([next(reading)])
        states.append(loader.state_dict())
        del reading
    assert made.url not in repr(states)
    for rank in range(after[0]):
        images = streaming(made, rank, after[0])
        loader = torchdata.StatefulDataLoader(images, 5, num_workers=after[1])
        if before == after:
            loader.load_state_dict(states[rank])
        else:
            images.load_state_dict(states[0])
        seen += rows_of(loader)
    assert sorted(seen) == list(range(50))


def samples_of(*shapes: tuple[int, ...]) -> list[dict[str, Any]]:
    sizes = [int(torch.tensor(shape).prod()) for shape in shapes]
    images = [(torch.arange(n) + 1).to(torch.uint8).reshape(shape) for n, shape in zip(sizes, shapes, strict=True)]
    return [{"key": f"{number}.png", "image": image, "label": number} for number, image in enumerate(images)]


def test_images_of_different_sizes_stay_a_list() -> None:
    samples = samples_of((3, 4, 5), (3, 5, 4))
    batch = collate(samples)
    assert [image.shape for image in batch["image"]] == [(3, 4, 5), (3, 5, 4)]
    assert batch["label"] == [0, 1]
    assert collate(samples[:1] * 2)["image"].shape == (2, 3, 4, 5)


def test_crops_make_a_tensor_of_images_of_any_size() -> None:
    samples = samples_of((3, 6, 7), (1, 4, 9), (3, 2, 3))
    batch = CropCollate(4, 5)(samples)
    assert batch["image"].shape == (3, 3, 4, 5)
    assert batch["key"] == ["0.png", "1.png", "2.png"]
    large, grey, small = (sample["image"] for sample in samples)
    assert torch.equal(batch["image"][0], large[:, 1:5, 1:6])
    assert torch.equal(batch["image"][1], grey[:, :, 2:7].expand(3, -1, -1))
    assert torch.equal(batch["image"][2, :, :2, :3], small)
    assert not batch["image"][2, :, 2:].any()
    assert not batch["image"][2, :, :, 3:].any()
    assert samples[0]["image"].shape == (3, 6, 7)


def test_random_crops_reach_every_place_and_follow_the_seed() -> None:
    samples = samples_of((1, 3, 4))
    crop = CropCollate(2, 2, random=True, channels=1)
    torch.manual_seed(0)
    found = [int(crop(samples)["image"][0, 0, 0, 0]) for _ in range(200)]
    assert set(found) == {1, 2, 3, 5, 6, 7}
    torch.manual_seed(0)
    assert [int(crop(samples)["image"][0, 0, 0, 0]) for _ in range(200)] == found


def test_crops_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'0\.png' has 4 channels, a batch of 3 takes 1 or 3"):
        CropCollate(2, 2)(samples_of((4, 2, 2)))
    with pytest.raises(UsageError, match="give 1 or more"):
        CropCollate(0, 2)


TRAINING = """
    import json, os, signal, sys
    from pathlib import Path
    from pilc_stream.readers.order import Mixing
    from pilc_stream.readers.torch import StreamingImages
    from pilc_stream.readers.torch_loader import ImageLoader

    if __name__ == "__main__":
        url, workers, log, state, new_state, die_after = sys.argv[1:]
        images = StreamingImages(url, batch_size=5, seed=9, pad=False, mixing=Mixing(3, 12, 2))
        loader = ImageLoader(images, int(workers))
        if state:
            loader.load_state_dict(json.loads(Path(state).read_text()))
        for step, batch in enumerate(loader, start=1):
            with open(f"{log}-{os.environ['RANK']}", "a") as file:
                print(*batch["key"], file=file)
            if step == int(die_after):
                if os.environ["RANK"] == "0":
                    Path(new_state).write_text(json.dumps(loader.state_dict()))
                os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [(2, 1), (4, 0), (3, 2)])
def test_killed_trainings_go_on_with_other_ranks_and_workers(
    made: Made, tmp_path: Path, after: tuple[int, int]
) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TRAINING))

    def train(world: int, workers: int, state: str, new_state: str, die_after: int) -> None:
        running = []
        for rank in range(world):
            arguments = [made.url, str(workers), str(tmp_path / "log"), state, new_state, str(die_after)]
            environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world)}
            running.append(subprocess.Popen([sys.executable, str(script), *arguments], env=environment))
        for process in running:
            assert process.wait(timeout=300) == (-signal.SIGKILL if die_after else 0)

    files = sorted(made.path.rglob("*"))
    one, two = str(tmp_path / "state-1"), str(tmp_path / "state-2")
    train(1, 2, "", one, die_after=3)
    first = (tmp_path / "log-0").read_text().split()
    order = EpochOrder(SIZES, 9, 0, True, SMALL_MIXING).rows().tolist()
    assert [int(key[-9:-4]) for key in first] == order[:15]
    train(*after, one, two, die_after=1)
    train(*after, two, "", die_after=0)
    keys = [key for path in tmp_path.glob("log-*") for key in path.read_text().split()]
    assert sorted(int(key[-9:-4]) for key in keys) == list(range(50))
    assert sorted(made.path.rglob("*")) == files
