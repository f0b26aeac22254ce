"""Training from a data set: an IterableDataset that splits itself over ranks and DataLoader workers and can resume."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from multiprocessing.context import get_spawning_popen
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from pilc_stream.errors import UsageError
from pilc_stream.readers import dataset as readers
from pilc_stream.readers.dataset import PREFETCH_BYTES, Dataset, OnError, Sample
from pilc_stream.readers.order import ORDER_VERSION, EpochOrder, Mixing, Split, Tail
from pilc_stream.readers.samples import StoredSample, check_on_error, tolerate
from pilc_stream.readers.state import STATE_VERSION, check_state, without_loader

Output = Literal["torch", "numpy", "payload"]

# Places in the tensor that the processes of one loader share; behind them a count for each worker.
_EPOCH, _CURSOR, _SKIPPED = 0, 1, 2
_WORKER_COUNTS = 1024


@dataclass(slots=True)
class _Pass:
    """One iteration under way in this process: where it began, whose share it is, how many positions it has passed."""

    begin: int
    split: Split
    taken: int


class StreamingImages(IterableDataset[dict[str, Any]]):
    """The samples of a data set in the order of an epoch: `{"key": str, "image": ..., column: value, ...}`.

    Each sample of an epoch goes to exactly one rank and worker; `readers.order` defines the order, which depends on
    the data set, `seed` and epoch only. Call `set_epoch` before each epoch, as with torch's DistributedSampler.

        images = StreamingImages("s3://bucket/photos", batch_size=64)
        loader = DataLoader(images, batch_size=64, num_workers=4)
        for epoch in range(10):
            images.set_epoch(epoch)
            for batch in loader: ...

    A training that stops can go on with other numbers of ranks and workers. `torch_loader.ImageLoader` keeps count for
    you; with a DataLoader keep `images.state_dict(batches=n)`, where n counts the batches of this pass; torchdata's
    StatefulDataLoader asks the workers. `load_state_dict` of a new one takes each of these.
    """

    def __init__(
        self,
        source: str | Dataset,
        *,
        storage_options: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
        drop_last: bool = False,
        pad: bool = True,
        columns: Sequence[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
        output: Output = "torch",
        on_error: OnError = "raise",
        mixing: Mixing | None = None,
        prefetch_bytes: int = PREFETCH_BYTES,
    ) -> None:
        """Stream `source`, the URL of a data set or one that `dataset.open` opened.

        `batch_size`: that of the DataLoader. Workers then take whole batches in turn, so the batches are the same for
        every number of workers and a pass can be resumed after any of them; without it they take single samples.
        `rank`, `world`: this process among those that train together; from torch.distributed where it is initialised,
        else from RANK and WORLD_SIZE, else 0 of 1. All ranks get equally many samples: `pad` repeats some from the
        beginning of the epoch, `drop_last` leaves some out; with neither, some ranks get one sample more.
        `columns`: which columns a sample carries, by default those of `source`. `transform` is applied to the image.
        `output`: "torch" for a uint8 (or uint16) tensor `(C, H, W)`, "numpy" for the array as it is stored, "payload"
        for its bytes, undecoded, as "payload" in place of "image": `torch_gpu.GpuDecoder` makes images of them.
        `on_error`: "skip" and "warn" leave out samples that cannot be read; `skipped` counts them. Ranks may then
        get unequal numbers of samples.
        `mixing`: how far to shuffle, by default what suits the size of the payloads; without `shuffle`, how much is
        read together. `prefetch_bytes`: payloads that each worker holds at most.

        Raises what `dataset.open` raises, and UsageError for a wrong argument.
        """
        opened = readers.open(source, storage_options) if isinstance(source, str) else source
        self._dataset = opened if columns is None else opened.with_columns(columns)
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._rank_and_world = _check_rank(rank, world)
        self._tail: Tail = "drop" if drop_last else "pad" if pad else "ragged"
        self._transform = transform
        if output not in get_args(Output):
            raise UsageError(f"output is {output!r}; give one of {', '.join(map(repr, get_args(Output)))}.")
        if output == "payload" and transform is not None:
            raise UsageError("A transform was given for images that stay undecoded; give it to the GpuDecoder.")
        self._output = output
        self._on_error = check_on_error(on_error)
        self._mixing = mixing or Mixing.for_payloads(self._dataset.mean_payload_bytes)
        self._prefetch_bytes = prefetch_bytes
        # Shared with the workers, because persistent ones never see another change of this object. It has no name in
        # the system, so a killed process leaves nothing behind.
        self._shared = _shared(torch.zeros(_SKIPPED + _WORKER_COUNTS, dtype=torch.int64))
        self._pass: _Pass | None = None
        self._resume_taken = 0
        # Wrong numbers are refused here, not in a worker.
        self._order()
        self._split()

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_pass": None}
        if get_spawning_popen() is not None:
            # A spawned DataLoader worker knows nothing of the process group.
            state["_rank_and_world"] = self._rank_and_world or _detected_rank()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._shared = _shared(self._shared)

    @property
    def dataset(self) -> Dataset:
        """The data set, map style."""
        return self._dataset

    @property
    def batch_size(self) -> int | None:
        """Samples of a batch, where it was given."""
        return self._batch_size

    @property
    def epoch(self) -> int:
        """The epoch that the next pass reads."""
        return int(self._shared[_EPOCH])

    @property
    def skipped(self) -> int:
        """Samples left out so far because they could not be read, by all workers of this rank."""
        return int(self._shared[_SKIPPED:].sum())

    def set_epoch(self, epoch: int) -> None:
        """Read `epoch` (from 0 on) in the next pass, from its beginning; where it is set already, nothing changes."""
        if epoch < 0:
            raise UsageError(f"The epoch is {epoch}: epochs count from 0.")
        if epoch != self.epoch:
            self._shared[_EPOCH] = epoch
            self._shared[_CURSOR] = 0

    def warm_up(self) -> None:
        """Compile what decodes before a DataLoader forks its workers, or each of them does so for itself."""
        if self._output != "payload":
            self._dataset.warm_up()

    def __len__(self) -> int:
        """Samples that this rank reads in the next pass, if none is skipped."""
        return self._split().rank_samples(self._cursor, len(self._dataset), self._tail)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """One pass over this worker's share of the epoch. Raises as reading from `Dataset` does."""
        return (item for item in self._pass_items() if item is not None)

    def iter_batches(self) -> Iterator[list[dict[str, Any]]]:
        """One pass by batches: each holds what could be read of the next `batch_size` (or 1) samples of this worker.

        Unlike those of a DataLoader, which fills up a batch that misses a sample, the batches of all ranks and workers
        stay in step; one of which nothing could be read is empty.
        """
        items = self._pass_items()
        while places := list(islice(items, self._batch_size or 1)):
            yield [item for item in places if item is not None]

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where the present pass stands: numbers that know no path, so that the data set may move.

        `batches`: how many batches each rank has taken from its DataLoader in this pass; needs `batch_size`. Without
        it, the samples taken in this very process count, which is right where no worker processes are used.
        Raises UsageError where it cannot be known.

        Where samples were skipped, batches reach further than counting says: going on then repeats a few samples, and
        misses none. `ImageLoader` counts exactly.
        """
        state = {**self._identity(), "epoch": self.epoch}
        if batches is not None:
            if self._batch_size is None:
                raise UsageError("state_dict was given batches, but nobody said how large: give batch_size as well.")
            return {**state, "cursor": self._after(self._cursor, batches * self._batch_size)}
        if self._pass is None:
            raise UsageError(
                "state_dict cannot know what DataLoader workers have read: give the number of batches taken in this "
                "pass, state_dict(batches=n)."
            )
        if get_worker_info() is None:
            return {**state, "cursor": self._after(self._pass.begin, self._pass.taken)}
        # Its share of a pass, which only the same worker can go on with.
        share = {"taken": self._pass.taken, "share": list(astuple(self._pass.split))}
        return {**state, "cursor": self._pass.begin, **share}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken: the next pass reads what was not read then, for any number of ranks.

        `state` is one of this class, of an `ImageLoader`, or of a StatefulDataLoader that read this data set; of
        several ranks all have the same. Until `set_epoch` names another epoch, every pass begins there. Raises
        UsageError where the state is of another data set, seed or order, or was taken inside a DataLoader worker and
        this is not the same one.
        """
        state = without_loader(state)
        check_state(state, self._identity())
        worker = get_worker_info()
        split = self._split(worker.id, worker.num_workers) if worker is not None else self._split()
        if "taken" in state and state["share"] != list(astuple(split)):
            raise UsageError(
                f"This state is of one DataLoader worker, (rank, world, worker, workers, batch) {state['share']}; "
                f"this is {list(astuple(split))}. To change the numbers, give the state of the whole loader to "
                "StreamingImages.load_state_dict in the main process."
            )
        self._resume_taken = int(state.get("taken", 0))
        self._shared[_EPOCH] = int(state["epoch"])
        self._shared[_CURSOR] = int(state["cursor"])

    @property
    def _cursor(self) -> int:
        """The position in the global order where the next pass begins."""
        return int(self._shared[_CURSOR])

    def _order(self) -> EpochOrder:
        return EpochOrder(self._dataset.shard_rows, self._seed, self.epoch, self._shuffle, self._mixing)

    def _split(self, worker: int = 0, workers: int = 1) -> Split:
        rank, world = self._rank_and_world or _detected_rank() or (0, 1)
        return Split(rank, world, worker, workers, 1 if self._batch_size is None else self._batch_size)

    def _after(self, begin: int, samples: int) -> int:
        """The position after `samples` of each rank from `begin` on."""
        return min(len(self._dataset), begin + samples * self._split().world)

    def _identity(self) -> dict[str, Any]:
        """What a state must share with this data set to be of use: the fields that define the order."""
        digests = "".join(shard.sha256 for shard in self._dataset.manifest.shards)
        return {
            "version": STATE_VERSION,
            "order_version": ORDER_VERSION,
            "dataset": hashlib.sha256(digests.encode()).hexdigest()[:16],
            "seed": self._seed,
            "shuffle": self._shuffle,
            "mixing": list(astuple(self._mixing)),
        }

    def _pass_items(self) -> Iterator[dict[str, Any] | None]:
        """Begin a pass: its items, with None in the place of each that was left out."""
        worker = get_worker_info()
        if worker is not None and self._output != "payload":
            self._keep_off_cards()
        split = self._split(worker.id, worker.num_workers) if worker is not None else self._split()
        self._pass = _Pass(self._cursor, split, self._resume_taken)
        self._resume_taken = 0
        return self._read(self._pass, self._order())

    def _keep_off_cards(self) -> None:
        """CUDA must not enter worker processes."""
        if self._dataset.device.startswith("cuda"):
            raise UsageError(
                f"This data set decodes on {self._dataset.device!r}, which a DataLoader worker must not touch. Open it "
                "with device='cpu', or let workers hand over payloads, output='payload', to torch_gpu.GpuDecoder."
            )
        self._dataset.device = "cpu" if self._dataset.device == "auto" else self._dataset.device

    def _read(self, current: _Pass, order: EpochOrder) -> Iterator[dict[str, Any] | None]:
        runs = self._runs(current, order, current.taken)
        stream = self._dataset.stream_stored if self._output == "payload" else self._dataset.stream_groups
        for _, group in stream(runs, self._prefetch_bytes):
            for found in group:
                current.taken += 1
                if isinstance(found, Sample):
                    yield {"key": found.key, "image": self._image(found.pixels), **found.columns}
                elif isinstance(found, StoredSample):
                    yield {"key": found.key, "payload": found.payload, **found.columns}
                else:
                    self._shared[_SKIPPED + current.split.worker % _WORKER_COUNTS] += 1
                    tolerate(found, self._on_error)
                    yield None

    def _runs(self, current: _Pass, order: EpochOrder, passed: int) -> Iterator[NDArray[np.int64]]:
        """This worker's rows, window by window, without the first `passed`."""
        begin, split = current.begin, current.split
        for window in order.windows(begin, split.end(begin, order.total, self._tail)):
            mine = split.positions(begin, window.start, window.stop)
            rows = window.rows[mine - window.start]
            yield rows[passed:]
            passed = max(0, passed - len(rows))

    def _image(self, pixels: NDArray[Any]) -> Any:
        image: Any = pixels
        if self._output == "torch":
            # NumPy puts channels first at half the cost of torch, where images are small.
            planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            image = torch.from_numpy(np.ascontiguousarray(planes))
        return image if self._transform is None else self._transform(image)


def _shared(tensor: torch.Tensor) -> torch.Tensor:
    shared: torch.Tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]
    return shared


def _check_rank(rank: int | None, world: int | None) -> tuple[int, int] | None:
    if rank is None and world is None:
        return None
    if rank is None or world is None:
        raise UsageError(f"rank is {rank} and world is {world}: give both or neither.")
    return rank, world


def _detected_rank() -> tuple[int, int] | None:
    """Rank and world size of this process, None where nothing says that it is one of several."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or world is None:
        return None
    if not (rank.isdecimal() and world.isdecimal()):
        raise UsageError(f"The environment says RANK={rank!r} and WORLD_SIZE={world!r}: both must be numbers.")
    return int(rank), int(world)
