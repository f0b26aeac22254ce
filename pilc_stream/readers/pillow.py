"""Payloads as files that Pillow opens and saves: importing this module registers the format "PILC", suffix ".pilc".

    import pilc_stream.readers.pillow
    image = Image.open("photo.pilc")
    image.save("again.pilc", profile="fast")

Everything that opens images through Pillow then reads payloads: Hugging Face's `Image` feature, torchvision, Dask.
Pixels are decoded when they are first needed, exactly; colour profile and EXIF come along.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from typing import IO, Any, cast

import numpy as np
from PIL import Image, ImageFile, ImagePalette

from pilc_stream.codecs import PAYLOAD_MAGIC, Decoder, encode_any
from pilc_stream.errors import ImageError
from pilc_stream.images.metadata import palette_of, unpack_extras
from pilc_stream.records.manifest import Manifest
from pilc_stream.records.payload import Header, parse_header

FORMAT = "PILC"
SUFFIX = ".pilc"

_MODES = {(1, 8): "L", (2, 8): "LA", (3, 8): "RGB", (4, 8): "RGBA", (1, 16): "I;16"}

# Pillow opens files without arguments, so what a payload needs besides itself can only be told to the module.
_manifests: dict[str, Manifest] = {}


def use_models(url: str, storage_options: Mapping[str, Any] | None = None) -> None:
    """Let payloads be opened that were coded with models of the data set at `url`, in this process.

    Models that ship with the package need no mention. Raises as `Manifest.load`.
    """
    _manifests[url] = Manifest.load(url, storage_options, allow_partial=True)


class PilcImageFile(ImageFile.ImageFile):
    """A payload as Pillow has it. Opening raises FormatError, loading as `pilc_stream.decompress`."""

    format = FORMAT
    format_description = "pilc-stream payload"

    def _open(self) -> None:
        self._payload = cast(IO[bytes], self.fp).read()
        header = parse_header(self._payload)
        self._mode = _mode(header)
        self._size = header.width, header.height
        if palette := palette_of(header.extras):
            self._mode = "P"
            self.palette = ImagePalette.raw("RGB", palette[0])
            if palette[1]:
                self.info["transparency"] = palette[1]
        self.info.update(_info(header))

    def load(self) -> Any:
        """Decode the pixels, once."""
        if self._payload:
            [array] = Decoder(models=_model).decode([self._payload])
            self._payload = b""
            self.fp = io.BytesIO(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
        return super().load()

    def load_seek(self, pos: int) -> None:
        """Nothing to do: the pixels are read from their beginning."""


def _mode(header: Header) -> str:
    mode = _MODES.get((header.channels, header.bit_depth))
    if mode is None:
        raise ImageError(
            f"Pillow has no mode for {header.channels} channels of {header.bit_depth} bits; "
            "take the array from pilc_stream.decompress."
        )
    return mode


def _info(header: Header) -> dict[str, Any]:
    """What Pillow calls the metadata that it knows."""
    info: dict[str, Any] = {}
    for name, data in unpack_extras(header.extras, header.channels, header.bit_depth) if header.extras else []:
        if name == b"iCCP":
            info["icc_profile"] = zlib.decompress(data.partition(b"\0")[2][1:])
        elif name == b"eXIf":
            info["exif"] = b"Exif\0\0" + data
    return info


def _model(digest: bytes) -> bytes | None:
    found = (manifest.model_file(digest) for manifest in _manifests.values())
    return next((data for data in found if data is not None), None)


def _save(image: Image.Image, file: IO[bytes], _: str | bytes) -> None:
    """Write the pixels, losslessly by default; `profile`, `device` and, for a lossy profile, `quality` may be given to
    `Image.save`."""
    if image.mode not in _MODES.values():
        raise ImageError(
            f"Mode {image.mode} is none that a payload holds; convert to one of {sorted(_MODES.values())}."
        )
    options = image.encoderinfo
    [payload] = encode_any(
        [np.array(image)], options.get("profile", "fast"), options.get("device", "auto"), 1, options.get("quality")
    )
    file.write(payload)


Image.register_open(FORMAT, PilcImageFile, lambda prefix: prefix.startswith(PAYLOAD_MAGIC))
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, SUFFIX)
Image.register_mime(FORMAT, "image/x-pilc")
