"""What else codes losslessly on a CUDA card, where it is installed: general compressors of nvCOMP, and JPEG 2000.

nvCOMP knows nothing of pictures: its ANS is the bare speed of an entropy coder (as dietgpu's), GDeflate that of PNG's.
torchvision decodes PNG on the CPU and only JPEG, which loses, on a card, so it has no figure here. Inputs and outputs
lie in device memory, and times are taken until the card is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pilc_stream.backends.cuda.shim import cuda

Image = NDArray[np.uint8]


class CardPeer(Protocol):
    """A codec of batches. `encode`, `decode`: on the card; `fetch`: decoded images in host memory."""

    def encode(self, images: Sequence[Image]) -> Any:
        """The batch coded."""

    def decode(self, coded: Any) -> Any:
        """The batch again."""

    def fetch(self, decoded: Any) -> list[Image]:
        """Its images."""

    def coded_bytes(self, coded: Any) -> int:
        """What it takes."""


class NvComp:
    """A compressor of nvCOMP on the bytes of each image."""

    def __init__(self, algorithm: str) -> None:
        self._nvcomp = import_module("nvidia.nvcomp")
        self._codec = self._nvcomp.Codec(algorithm=algorithm)
        self._uploaded: tuple[Sequence[Image], list[Any]] | None = None

    def encode(self, images: Sequence[Image]) -> Any:
        """The batch coded."""
        if self._uploaded is None or self._uploaded[0] is not images:
            flat = [np.ascontiguousarray(image).reshape(-1) for image in images]
            self._uploaded = images, [self._nvcomp.as_array(values).cuda() for values in flat]
        return _done(self._codec.encode(self._uploaded[1]))

    def decode(self, coded: Any) -> Any:
        """The batch again."""
        return _done(self._codec.decode(coded))

    def fetch(self, decoded: Any) -> list[Image]:
        """Its images."""
        assert self._uploaded is not None
        found = [np.asarray(values.cpu()).view(np.uint8) for values in decoded]
        return [values.reshape(image.shape) for values, image in zip(found, self._uploaded[0], strict=True)]

    def coded_bytes(self, coded: Any) -> int:
        """What it takes."""
        return sum(int(values.buffer_size) for values in coded)


class Jpeg2000:
    """Reversible JPEG 2000 of nvImageCodec."""

    def __init__(self) -> None:
        self._library = library = import_module("nvidia.nvimgcodec")
        self._encoder, self._decoder = library.Encoder(), library.Decoder()
        self._params = library.EncodeParams(jpeg2k_encode_params=library.Jpeg2kEncodeParams(reversible=True))
        self._uploaded: tuple[Sequence[Image], list[Any]] | None = None

    def encode(self, images: Sequence[Image]) -> Any:
        """The batch coded."""
        if self._uploaded is None or self._uploaded[0] is not images:
            self._uploaded = images, [self._library.as_image(np.ascontiguousarray(image)).cuda() for image in images]
        return _done(self._encoder.encode(self._uploaded[1], "jpeg2k", params=self._params))

    def decode(self, coded: Any) -> Any:
        """The batch again."""
        return _done(self._decoder.decode(coded))

    def fetch(self, decoded: Any) -> list[Image]:
        """Its images."""
        return [np.asarray(image.cpu()) for image in decoded]

    def coded_bytes(self, coded: Any) -> int:
        """What it takes."""
        return sum(len(bytes(data)) for data in coded)


def _done(result: Any) -> Any:
    cuda.synchronize()
    return result


def peers() -> Mapping[str, Callable[[], CardPeer]]:
    """Those that are installed, by the names that reports use."""
    found: dict[str, Callable[[], CardPeer]] = {}
    if _installed("nvidia.nvcomp"):
        found |= {f"nvCOMP {name}": partial(NvComp, name) for name in ("ANS", "GDeflate")}
    if _installed("nvidia.nvimgcodec"):
        found["JPEG 2000 (nvImageCodec)"] = Jpeg2000
    return found


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
