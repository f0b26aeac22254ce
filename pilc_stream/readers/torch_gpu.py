"""Decoding batches on a device: workers hand over payloads as they are stored, the main process decodes them.

CUDA never enters a worker process. Batches are decoded ahead in one thread, which on CUDA has a stream of its own, so
that decoding overlaps with the training step. There pixels are never in host memory: payloads go up, and the kernels
write to torch's memory.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pilc_stream.codecs import Decoder
from pilc_stream.codecs.base import check_region
from pilc_stream.errors import DeviceError, FormatError, ImageError, ModelError, PilcError, UsageError
from pilc_stream.images import decode_kept
from pilc_stream.readers.dataset import Dataset
from pilc_stream.readers.palettes import colours_of, displayed
from pilc_stream.readers.regions import Wanted, region_of
from pilc_stream.readers.samples import OnError, check_on_error, tolerate
from pilc_stream.records.payload import PAYLOAD_MAGIC, parse_header


class GpuDecoder:
    """Batches of a loader whose "payload" fields are decoded into "image" on a device.

        images = StreamingImages("s3://bucket/photos", batch_size=64, output="payload")
        for batch in GpuDecoder(ImageLoader(images, workers=4), "cuda"): ...

    Each "image" is a tensor `(N, C, H, W)` on the device where all have one shape, else a list of tensors `(C, H, W)`.
    """

    def __init__(
        self,
        loader: Iterable[dict[str, Any]],
        device: str = "cuda",
        prefetch: int = 2,
        *,
        dataset: Dataset | None = None,
        threads: int = 1,
        on_error: OnError = "raise",
        region: Wanted | None = None,
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """`device`: "cpu", "cuda" or "cuda:N". `prefetch`: batches decoded ahead, at least 1.

        `dataset`: where models lie that do not ship with the package; taken from an ImageLoader by itself. `on_error`:
        "skip" and "warn" leave out samples that cannot be decoded; `skipped` counts them. `region`: the part of each
        image that is wanted, as `dataset.open` takes it; one of a fixed size gives tensors.
        `transform` is applied to each image `(C, H, W)` on the device.
        Raises DeviceError where the device cannot be used, UsageError for another argument.
        """
        if prefetch < 1:
            raise UsageError(f"prefetch is {prefetch}: give 1 or more batches.")
        self.device = _check_device(device)
        self.skipped = 0
        """Samples left out so far because they could not be decoded."""
        self._on_error = check_on_error(on_error)
        self._loader, self._prefetch, self._region, self._transform = loader, prefetch, region, transform
        self._state: dict[str, Any] | None = None
        found = dataset or getattr(getattr(loader, "images", None), "dataset", None)
        models = None if found is None else found.manifest.model_file
        self._on_card = self.device.type == "cuda"
        self._decoder = Decoder(str(self.device), threads, models)

    def __len__(self) -> int:
        """Batches of the next pass, where the loader knows."""
        return len(self._loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """One pass. Raises what the loader raises, and FormatError or ModelError naming the sample."""
        ready: queue.Queue[_Ready | BaseException | None] = queue.Queue(self._prefetch)
        stopped = threading.Event()
        thread = threading.Thread(target=self._run, args=(ready, stopped), name="pilc-decode", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                item.wait(self.device)
                self._state = item.state
                yield item.batch
            self._state = None
        finally:
            stopped.set()
            thread.join()

    def decode(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One batch, decoded now. Raises FormatError, ImageError or ModelError, naming the sample."""
        payloads: Sequence[bytes] = batch["payload"]
        found = self._images(payloads)
        good = [number for number, image in enumerate(found) if not isinstance(image, PilcError)]
        for number, image in enumerate(found):
            if isinstance(image, PilcError):
                self.skipped += self._on_error != "raise"
                key = batch["key"][number] if "key" in batch else None
                tolerate(type(image)(f"sample {key!r}: {image}"), self._on_error)
        images = self._finished([image for image in found if not isinstance(image, PilcError)])
        rest = {name: _chosen(values, good) for name, values in batch.items() if name != "payload"}
        return {**rest, "image": images}

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer stands, whatever was read and decoded ahead: the state of an ImageLoader."""
        return self._stateful().state_dict() if self._state is None else self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._stateful().load_state_dict(state)
        self._state = None

    def _stateful(self) -> Any:
        if not hasattr(self._loader, "load_state_dict"):
            raise UsageError("The loader has no state; give GpuDecoder an ImageLoader.")
        return self._loader

    def _run(self, ready: queue.Queue[_Ready | BaseException | None], stopped: threading.Event) -> None:
        def put(item: _Ready | BaseException | None) -> None:
            while not stopped.is_set():
                try:
                    ready.put(item, timeout=0.1)
                except queue.Full:
                    continue
                break

        try:
            if self.device.type == "cuda":
                torch.cuda.set_stream(torch.cuda.Stream(self.device))  # type: ignore[no-untyped-call]
            for batch in self._loader:
                state = self._loader.state_dict() if hasattr(self._loader, "state_dict") else None
                put(_Ready(self.decode(batch), state, self.device))
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    def _images(self, payloads: Sequence[bytes]) -> list[torch.Tensor | PilcError]:
        """The images `(H, W)` or `(H, W, C)`, decoded in one call or, where one is damaged, each alone."""
        coded = [number for number, payload in enumerate(payloads) if payload.startswith(PAYLOAD_MAGIC)]
        images: dict[int, torch.Tensor | PilcError] = {}
        try:
            images.update(zip(coded, self._decoded([payloads[number] for number in coded]), strict=True))
        except (FormatError, ModelError):
            images.update((number, self._alone(payloads[number])) for number in coded)
        return [images[number] if number in images else self._kept(data) for number, data in enumerate(payloads)]

    def _decoded(self, payloads: Sequence[bytes]) -> list[torch.Tensor]:
        parts = [self._part(payload) for payload in payloads]
        if self._on_card:
            tensors = self._decoder.decode_tensors(payloads, parts)
            return [self._coloured(tensor, payload) for tensor, payload in zip(tensors, payloads, strict=True)]
        arrays = self._decoder.decode(payloads, parts)
        return [self._copied(displayed(array, payload)) for array, payload in zip(arrays, payloads, strict=True)]

    def _coloured(self, tensor: torch.Tensor, payload: bytes) -> torch.Tensor:
        """Indices as the colours of their palette, on the card."""
        colours = colours_of(payload)
        return tensor if colours is None else torch.from_numpy(colours).to(self.device)[tensor.long()]

    def _alone(self, payload: bytes) -> torch.Tensor | PilcError:
        try:
            return self._decoded([payload])[0]
        except (FormatError, ModelError) as error:
            return error

    def _kept(self, data: bytes) -> torch.Tensor | PilcError:
        try:
            array = decode_kept(data)
        except ImageError as error:
            return error
        if self._region is not None:
            y, x, height, width = check_region(region_of(self._region, *array.shape[:2]), *array.shape[:2])
            array = array[y : y + height, x : x + width]
        return self._copied(array)

    def _part(self, payload: bytes) -> Sequence[int] | None:
        if self._region is None:
            return None
        header = parse_header(payload)
        return region_of(self._region, header.height, header.width)

    def _copied(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _finished(self, images: Sequence[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Channels first, transformed, and one tensor where all are alike."""
        three_axes = [image.unsqueeze(2) if image.ndim == 2 else image for image in images]
        if self._transform is None and _alike(three_axes):
            return torch.stack(three_axes).permute(0, 3, 1, 2).contiguous()
        out = [image.permute(2, 0, 1).contiguous() for image in three_axes]
        if self._transform is not None:
            out = [self._transform(image) for image in out]
        return torch.stack(out) if _alike(out) else out


def _check_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device is {name!r}; give 'cpu', 'cuda' or 'cuda:N'.") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device is {name!r}; give 'cpu', 'cuda' or 'cuda:N'.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {name!r}: torch sees {torch.cuda.device_count()} CUDA cards here. "
            "Install a torch with CUDA and a driver, or decode with device='cpu'; the pixels are the same."
        )
    return (
        torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" and device.index is None else device
    )


def _alike(images: Sequence[torch.Tensor]) -> bool:
    return len({(image.shape, image.dtype) for image in images}) == 1


def _chosen(values: Any, good: Sequence[int]) -> Any:
    """A field of a batch, of some of its samples."""
    return values[list(good)] if isinstance(values, torch.Tensor) else [values[number] for number in good]


class _Ready:
    """A decoded batch on its way to the consumer, with the loader's state after it."""

    def __init__(self, batch: dict[str, Any], state: dict[str, Any] | None, device: torch.device) -> None:
        self.batch, self.state = batch, state
        self._done = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

    def wait(self, device: torch.device) -> None:
        """Let the consumer's stream wait for the decoder's, and keep memory from being taken back too early."""
        if self._done is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(self._done)
            images = self.batch["image"]
            for image in [images] if isinstance(images, torch.Tensor) else images:
                image.record_stream(stream)
