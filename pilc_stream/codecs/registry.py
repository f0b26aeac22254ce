"""Which codec codes and decodes what: the one place where codecs are listed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pilc_stream.backends import open_engine
from pilc_stream.backends.base import STATE_BYTES
from pilc_stream.backends.pilc import open_pilc_engine
from pilc_stream.codecs.bands import rows_of_tiles
from pilc_stream.codecs.base import Codec, Image, TileDecoder, check_all_tiles, check_region
from pilc_stream.codecs.choice import ChoosingCodec
from pilc_stream.codecs.deep import deep_decoder
from pilc_stream.codecs.lossy import LossyCodec, LossyDecoder, is_lossy, lossy_codec, lossy_decoder
from pilc_stream.codecs.modelled import ModelDecoder
from pilc_stream.codecs.pilc import PilcCodec, PilcDecoder
from pilc_stream.codecs.planes import PlanesDecoder, part_headers
from pilc_stream.codecs.raw import RawCodec, RawDecoder, raw_bands
from pilc_stream.codecs.view_search import search_for
from pilc_stream.codecs.wave import WaveCodec, WaveDecoder
from pilc_stream.codecs.webp import photograph_codec, webp_decoder
from pilc_stream.errors import DeviceError, FormatError, ModelError, ModelNotFoundError, TruncatedError, UsageError
from pilc_stream.models.model import load_model
from pilc_stream.models.pilc import is_pilc_model, load_pilc_model
from pilc_stream.models.shipped import preset_bytes, preset_digests, preset_names
from pilc_stream.records.payload import CHECKSUM_BYTES, MODEL_DIGEST_BYTES, Header, Payload, parse_header, parse_payload
from pilc_stream.records.tiling import Region

DEFAULT_PROFILE = "fast"

MAX_DECODED_PIXELS = 1 << 30
"""Largest image or region decoded unless told otherwise: 1074 million pixels, 3.2 GB as RGB."""

_WITHOUT_MODEL: dict[str, Callable[[], TileDecoder]] = {
    "raw": RawDecoder,
    "webp": webp_decoder,
    "deep": deep_decoder,
}

_BY_LIBRARIES: dict[str, Callable[[], Codec]] = {"webp": photograph_codec, "raw": RawCodec}
"""Profiles without a model."""

ModelSource = Callable[[bytes], bytes | None]
"""Short digest, as payloads name models -> model file, or None where it is not known."""


def profiles() -> list[str]:
    """The names that `open_codec` takes."""
    return [*preset_names(), *_BY_LIBRARIES]


def open_codec(
    profile: str = DEFAULT_PROFILE,
    device: str = "auto",
    threads: int = 1,
    model_path: str | Path | None = None,
    *,
    quality: int | None = None,
    psnr: float | None = None,
) -> Codec:
    """A codec that encodes every image with a shipped profile, or with the model file at `model_path`.

    `device`: "auto", "cpu", "cuda" or "reference"; `threads`: CPU threads. `quality` (1 to 100) or `psnr` (dB): what a
    lossy profile is asked for. Raises UsageError for an unknown profile and for a quality of a lossless one, ModelError
    for a malformed model, DeviceError where the device is not to be had.
    """
    if model_path is not None:
        try:
            data = Path(model_path).read_bytes()
        except OSError as error:
            raise ModelNotFoundError(f"model {str(model_path)!r} cannot be read: {error}") from error
        codec = _model_codec(data, device, threads)
    else:
        codec = open_profile(profile, device, threads)
    if isinstance(codec, LossyCodec):
        if quality is not None and psnr is not None:
            raise UsageError("quality and psnr: give one of them; a PSNR is reached by choosing the quality")
        return LossyCodec(codec.model, codec.engine, quality, psnr)
    if quality is not None or psnr is not None:
        raise UsageError(
            f"profile {codec.profile!r}: it loses nothing, so neither a quality nor a PSNR can be asked of it; name a "
            "lossy profile, such as lossy-light, for smaller images that are not the same"
        )
    return codec if codec.name == "raw" else ChoosingCodec(codec)


def open_profile(profile: str, device: str = "auto", threads: int = 1) -> Codec:
    """The codec of a shipped profile by itself, which refuses what its model was not made for: to measure it.

    Raises as `open_codec`.
    """
    if profile in _BY_LIBRARIES:
        return _BY_LIBRARIES[profile]()
    if profile not in preset_names():
        raise UsageError(f"profile {profile!r} is unknown; known profiles: {', '.join(profiles())}")
    return _model_codec(preset_bytes(profile), device, threads)


def _model_codec(data: bytes, device: str, threads: int) -> Codec:
    """The codec that a model file is for, with that model."""
    if is_pilc_model(data):
        return PilcCodec(load_pilc_model(data), open_pilc_engine(device, threads))
    if is_lossy(data):
        return lossy_codec(data, device, threads)
    model = load_model(data)
    return WaveCodec(model, open_engine(device, threads), search=search_for(model.spec))


def encode_any(
    images: Sequence[NDArray[Any]], profile: str, device: str, threads: int, quality: int | None = None
) -> list[bytes]:
    """One payload per image, with the codec that `open_codec` gives, kept for the next call."""
    return _shared_codec(profile, device, threads, quality).encode(images)


@lru_cache(maxsize=8)
def _shared_codec(profile: str, device: str, threads: int, quality: int | None) -> Codec:
    # Codecs hold no state but their compiled model, so callers of one profile and device may share it.
    return open_codec(profile, device, threads, quality=quality)


def shared_decoder(
    device: str, threads: int, models: ModelSource | None, max_pixels: int = MAX_DECODED_PIXELS
) -> Decoder:
    """A decoder that is kept for the next call, unless `models` are the caller's own."""
    return Decoder(device, threads, models, max_pixels) if models else _shared_decoder(device, threads, max_pixels)


@lru_cache(maxsize=8)
def _shared_decoder(device: str, threads: int, max_pixels: int) -> Decoder:
    return Decoder(device, threads, max_pixels=max_pixels)


class Decoder:
    """Decodes payloads of any codec and model; models are loaded once and kept."""

    def __init__(
        self,
        device: str = "auto",
        threads: int = 1,
        models: ModelSource | None = None,
        max_pixels: int = MAX_DECODED_PIXELS,
    ) -> None:
        """`models` is asked for model files that do not ship with the package, by short digest.

        `max_pixels`: an image, or a region of one, that has more is refused before anything is allocated for it.
        """
        self._device, self._threads, self._source, self._max_pixels = device, threads, models, max_pixels
        self._decoders: dict[tuple[str, bytes], TileDecoder] = {}

    def decode(
        self, payloads: Sequence[bytes | memoryview], regions: Sequence[Sequence[int] | None] | None = None
    ) -> list[Image]:
        """The images, or of each the region `(y, x, height, width)` where one is given.

        Raises FormatError (or a subclass) for bytes that are not a sound payload, ModelNotFoundError, UsageError.
        """
        parsed = [parse_payload(payload) for payload in payloads]
        wanted = [
            None if region is None else check_region(region, payload.header.height, payload.header.width)
            for payload, region in zip(parsed, regions or [None] * len(parsed), strict=True)
        ]
        for payload, part in zip(parsed, wanted, strict=True):
            self._check_size(payload.header, part)
        groups: dict[tuple[str, bytes], list[int]] = {}
        for index, payload in enumerate(parsed):
            groups.setdefault((payload.header.codec, payload.header.model_digest), []).append(index)
        out: dict[int, Image] = {}
        for key, indices in groups.items():
            first = indices[0]
            images = self._decoder(*key, parsed[first], wanted[first]).decode(
                [parsed[i] for i in indices], [wanted[i] for i in indices]
            )
            out.update(zip(indices, images, strict=True))
        return [out[index] for index in range(len(parsed))]

    def decode_bands(self, payload: bytes | memoryview) -> Iterator[Image]:
        """The image from the top down in bands, a row of tiles at a time: for what is too large to be held.

        Raises as `decode`; the limit of pixels is that of a band.
        """
        parsed = parse_payload(payload)
        header = parsed.header
        if header.codec == "planes":
            yield from PlanesDecoder(self.decode).bands(parsed, self.decode_bands)
            return
        if header.codec == "raw":
            yield from raw_bands(parsed)
            return
        for region in rows_of_tiles(header):
            self._check_size(header, region)
            decoder = self._decoder(header.codec, header.model_digest, parsed, region)
            yield decoder.decode([parsed], [region])[0]

    def decode_tensors(
        self, payloads: Sequence[bytes | memoryview], regions: Sequence[Sequence[int] | None] | None = None
    ) -> list[Any]:
        """As `decode`, but torch tensors on the CUDA device, where the images were decoded, of its current stream.

        Raises DeviceError where this decoder's device is another.
        """
        kind, _, number = self._device.partition(":")
        if kind != "cuda":
            raise DeviceError(f"device {self._device!r}: images as torch tensors are for the device 'cuda'")
        parsed = [parse_payload(payload) for payload in payloads]
        for payload in parsed:
            self._check_size(payload.header, None)
        groups: dict[tuple[str, bytes], list[int]] = {}
        for index, payload in enumerate(parsed):
            groups.setdefault((payload.header.codec, payload.header.model_digest), []).append(index)
        images: dict[int, Any] = {}
        for key, indices in groups.items():
            decoder, members = self._decoder(*key, parsed[indices[0]], None), [parsed[i] for i in indices]
            if isinstance(decoder, ModelDecoder) or (isinstance(decoder, LossyDecoder) and decoder.on_device):
                found = decoder.decode_to_tensors(members)
            else:
                from pilc_stream.backends.cuda.tensors import from_host

                found = [from_host(image, number) for image in decoder.decode(members, [None] * len(members))]
            images.update(zip(indices, found, strict=True))
        tensors = [images[index] for index in range(len(parsed))]
        for index, region in enumerate(regions or []):
            if region is not None:
                header = parsed[index].header
                y, x, height, width = check_region(region, header.height, header.width)
                tensors[index] = tensors[index][y : y + height, x : x + width]
        return tensors

    def extras(self, payload: bytes | memoryview) -> bytes:
        """The bytes carried along with the image; empty where there are none. Raises FormatError for damaged ones."""
        if not parse_header(payload).extras:
            return b""
        parsed = parse_payload(payload)
        # Every tile's checksum covers the header, and so the extras.
        parsed.check_tile(0)
        return parsed.header.extras

    def inspect(self, payload: bytes) -> PayloadInfo:
        """What the payload holds and where its bytes go."""
        return inspect_payload(payload)

    def _check_size(self, header: Header, region: Region | None) -> None:
        height, width = (header.height, header.width) if region is None else (region.height, region.width)
        if height * width > self._max_pixels:
            raise FormatError(
                f"payload: {height} x {width} pixels, above the limit of {self._max_pixels}; decode regions of it, or "
                "raise max_pixels if the payload is to be trusted"
            )

    def _decoder(self, codec: str, digest: bytes, first: Payload, region: Region | None) -> TileDecoder:
        key = (codec, digest)
        if key not in self._decoders:
            if codec in _WITHOUT_MODEL:
                self._decoders[key] = _WITHOUT_MODEL[codec]()
            elif codec == "planes":
                self._decoders[key] = PlanesDecoder(self.decode)
            else:
                # A flipped digest must read as damage, not as an unknown model. Every tile's checksum covers it; those
                # of the region's tiles are taken, so that damage elsewhere is no concern of the region's.
                check_all_tiles(first, first.header.tiling.touching(region) if region else None)
                data = self._model_bytes(digest)
                if codec == "pilc":
                    engine = open_pilc_engine(self._device, self._threads)
                    self._decoders[key] = PilcDecoder(load_pilc_model(data), engine)
                elif codec == "lossy":
                    self._decoders[key] = lossy_decoder(data, self._device, self._threads)
                else:
                    self._decoders[key] = WaveDecoder(load_model(data), open_engine(self._device, self._threads))
        return self._decoders[key]

    def _model_bytes(self, digest: bytes) -> bytes:
        name = preset_digests().get(digest)
        data = preset_bytes(name) if name else self._source(digest) if self._source else None
        if data is None:
            raise ModelNotFoundError(
                f"payload: coded with the model {digest.hex()}, which neither ships with this release nor lies beside "
                "the data; give the model file it was compressed with"
            )
        sha256 = hashlib.sha256(data)
        if sha256.digest()[:MODEL_DIGEST_BYTES] != digest:
            raise ModelError(
                f"model: the file given for {digest.hex()} has the digest {sha256.hexdigest()}; it was changed"
            )
        return data


@dataclass(frozen=True)
class PayloadInfo:
    """What a payload holds. Bytes by part: `header_bytes` (with `extras_bytes` and views), `flush_bytes` (lane states),
    `word_bytes` (the coded symbols, or raw pixels), `checksum_bytes`."""

    codec: str
    profile: str | None
    model_digest: str
    shape: tuple[int, ...]
    bit_depth: int
    tiles: int
    tile_shape: tuple[int, int]
    lanes: int
    payload_bytes: int
    raw_bytes: int
    header_bytes: int
    extras_bytes: int
    flush_bytes: int
    word_bytes: int
    checksum_bytes: int
    bits_per_sub_pixel: float

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def inspect_payload(payload: bytes) -> PayloadInfo:
    """Parse and check a payload without decoding its pixels."""
    parsed = parse_payload(payload)
    for index in range(len(parsed.tiles)):
        parsed.check_tile(index)
    header = parsed.header
    tile_bytes = sum(len(tile) - header.views for tile in parsed.tiles)
    checksum_bytes = CHECKSUM_BYTES * len(parsed.tiles)
    lanes = 1 << header.lanes_log2 if header.model_digest else 0
    flush_bytes = STATE_BYTES * lanes * len(parsed.tiles)
    if any(len(tile) < STATE_BYTES * lanes + header.views for tile in parsed.tiles):
        raise TruncatedError(f"payload: a tile is shorter than the states of its {lanes} lanes")
    digest = header.model_digest
    if header.codec == "planes":
        digest = next((part.model_digest for part in part_headers(parsed) if part.model_digest), b"")
    sub_pixels = header.height * header.width * header.channels
    return PayloadInfo(
        codec=header.codec,
        profile=preset_digests().get(digest, None) if digest else header.codec,
        model_digest=digest.hex(),
        shape=header.shape,
        bit_depth=header.bit_depth,
        tiles=len(parsed.tiles),
        tile_shape=_tile_shape(header),
        lanes=lanes,
        payload_bytes=len(payload),
        raw_bytes=header.raw_bytes,
        header_bytes=len(payload) - tile_bytes - checksum_bytes,
        extras_bytes=len(header.extras),
        flush_bytes=flush_bytes,
        word_bytes=tile_bytes - flush_bytes,
        checksum_bytes=checksum_bytes,
        bits_per_sub_pixel=round(8 * len(payload) / sub_pixels, 4),
    )


def _tile_shape(header: Header) -> tuple[int, int]:
    if not header.tile_log2:
        return header.height, header.width
    return header.tiling.tile_height, header.tiling.tile_width
