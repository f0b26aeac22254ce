"""Image file bytes to pixels: the one place where Pillow meets files of unknown origin.

Invariants: the content decides, never a file name; a file is decoded whole or refused; no pixel and no listed piece
of metadata is dropped without a `NotRepresentable`; memory is claimed only after the header passed `max_pixels`.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    DdsImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PcxImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    PsdImagePlugin,
    QoiImagePlugin,
    SgiImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pilc_stream.errors import ImageError, UsageError
from pilc_stream.images import truth, wide
from pilc_stream.images.metadata import (
    Chunk,
    density_chunk,
    find_fault,
    icc_chunk,
    iterate_png_chunks,
    kept,
    pack_extras,
    palette_chunks,
    palette_only,
    xmp_chunk,
)
from pilc_stream.images.pixels import MODE_CHANNELS, WIDE_MODES, ImageHeader, NotRepresentable, Pixels

DEFAULT_MAX_PIXELS = 1 << 27
"""Largest image decoded unless told otherwise: 134 million pixels, about 1 GB while it is decoded as RGB."""

# The formats whose pixels may be coded, and those that are known but always kept as they came. A list of our own,
# because Pillow's default also tries formats that run other programs (EPS) or accept any bytes (TGA).
_CODED = (
    PngImagePlugin.PngImageFile.format,
    JpegImagePlugin.JpegImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
    GifImagePlugin.GifImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    PpmImagePlugin.PpmImageFile.format,
    QoiImagePlugin.QoiImageFile.format,
    Jpeg2KImagePlugin.Jpeg2KImageFile.format,
    AvifImagePlugin.AvifImageFile.format,
)
_KEPT = (
    IcoImagePlugin.IcoImageFile.format,
    PsdImagePlugin.PsdImageFile.format,
    PcxImagePlugin.PcxImageFile.format,
    SgiImagePlugin.SgiImageFile.format,
    DdsImagePlugin.DdsImageFile.format,
)

# Formats that are common among images and that Pillow cannot decode: name, signature and its offset.
_UNREADABLE = (
    ("HEIC", b"ftyphei", 4),
    ("HEIC", b"ftyphev", 4),
    ("HEIF", b"ftypmif1", 4),
    ("JPEG XL", b"\xff\x0a", 0),
    ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n", 0),
    ("PDF", b"%PDF-", 0),
    ("PostScript", b"%!PS", 0),
)

_MODE_REASONS = {
    "PA": "palette with an alpha channel",
    "La": "premultiplied alpha",
    "RGBa": "premultiplied alpha",
    "F": "floating-point samples",
}
_MODE_BITS = {"1": 1, "I": 32, "F": 32, "I;16": 16, "I;16B": 16, "I;16L": 16}


def probe_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, limit: str = "max_pixels") -> ImageHeader:
    """Read the header of an image file, without its pixels. Raises ImageError as `decode_image` does.

    `limit`: what the setting is called that `max_pixels` comes from.
    """
    image = open_file(data, max_pixels, limit)
    return header_of(image, data)


def decode_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, metadata: bool = True) -> Pixels:
    """Decode an image file of any suffix to pixels of one of MODE_CHANNELS and their metadata.

    `max_pixels` bounds width times height; it is checked before pixels are decoded. Without `metadata` nothing is taken
    along but a palette.
    Raises NotRepresentable, after decoding the file, for a sound image that is not a single frame of such pixels.
    Raises ImageError, with a reason that names no file, for everything that cannot be decoded whole.
    Raises UsageError where this process made Pillow tolerate truncated files, which would make pixels up.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UsageError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this process, so truncated images would be stored with "
            "invented pixels; set it to False to compress"
        )
    image = open_file(data, max_pixels)
    header = header_of(image, data)
    try:
        # Asked before loading: Pillow forgets its tiles then, and seeks through the frames.
        reason = refusal_of(image, data)
        take = _samples(image, data, header)
        image.load()
        loaded = header_of(image, data)
        if reason is None and (loaded.mode, loaded.pixels) == (header.mode, header.pixels):
            array, mode = take()
            channels, bits = MODE_CHANNELS[mode], 8 * array.itemsize
            chunks = _png_metadata(data) if image.format == "PNG" else _foreign_metadata(image)
            if chunks is not None and mode == "P":
                chunks = palette_chunks(*_palette(image)) + chunks
            fault = find_fault(chunks, channels, bits) if chunks is not None else "metadata without a place in a PNG"
            if not fault and chunks is not None:
                extras = pack_extras(chunks)
                return Pixels(array, mode, extras if metadata else palette_only(extras))
            reason = fault
    except Exception as error:
        fail(error, header.format)
    raise NotRepresentable(reason or "pixels that are not what the header says", header)


def open_file(data: bytes, max_pixels: int, limit: str = "max_pixels") -> ImageFile.ImageFile:
    """Identify the file by its content and check its size.

    Not `Image.open`: that measures against a limit which is a global of Pillow, and only the caller's counts here.
    """
    if not data:
        raise ImageError("the file is empty")
    for name in _CODED + _KEPT:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(data[:16]) is not True:
            continue
        try:
            image = factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            raise ImageError(f"the file begins like {name} but its header is broken: {_detail(error)}") from error
        except Exception as error:
            fail(error, name)
        _check_size(image, max_pixels, limit)
        return image
    raise ImageError(_describe_unknown(data))


def _check_size(image: ImageFile.ImageFile, max_pixels: int, limit: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"the {image.format} header says {width}x{height} pixels, which is no image")
    if width * height > max_pixels:
        raise ImageError(
            f"the {image.format} header says {width}x{height} pixels, above the limit of {max_pixels}; "
            f"raise {limit} if the file is to be trusted"
        )


def header_of(image: ImageFile.ImageFile, data: bytes) -> ImageHeader:
    """What the header of an opened file says."""
    match image.format:
        case "PNG":
            depth = truth.png_bit_depth(data)
        case "TIFF":
            depth = truth.tiff_bit_depth(_tags(image))
        case _:
            depth = _MODE_BITS.get(image.mode, 8)
    return ImageHeader(image.format or "", *image.size, image.mode, len(image.getbands()), depth)


def _samples(
    image: ImageFile.ImageFile, data: bytes, header: ImageHeader
) -> Callable[[], tuple[npt.NDArray[np.uint8 | np.uint16], str]]:
    """What gives the samples, all of their bits, and their mode once the image is loaded; before it is, Pillow's tiles
    say how they are laid out."""
    kind, deep = image.format or "", header.bit_depth > 8
    if kind == "PPM" and image.mode == "RGB" and (image.tile[0].args or "")[-1] == truth.WIDEST:
        start = image.tile[0].offset
        return lambda: (wide.wide_ppm(data, start, header.height, header.width), image.mode)
    if kind == "PNG" and deep and header.channels > 1:
        colours = wide.wide_png(data, wide.open_as(kind))
        return lambda: (colours, "LA" if colours.shape[2] == 2 else image.mode)
    if kind == "TIFF" and deep and header.channels > 1:
        return lambda: (wide.wide_tiff(data, wide.open_as(kind)), image.mode)
    if image.mode == "1":
        return lambda: (np.asarray(image.convert("L")), "1")
    # Pillow's modes of 16 bits are of either byte order, or of 32 bits.
    kept_as = np.uint16 if image.mode in WIDE_MODES else np.uint8
    return lambda: (np.asarray(image).astype(kept_as, copy=False), image.mode)


def _palette(image: ImageFile.ImageFile) -> tuple[bytes, bytes]:
    """Palette and opacities as PNG has them: three bytes for an entry, one for each opacity that is given."""
    palette = bytes(image.getpalette("RGB") or [])
    given = image.info.get("transparency")
    if isinstance(given, int):
        return palette, b"\xff" * given + b"\0"
    return palette, bytes(given or b"")


def refusal_of(image: ImageFile.ImageFile, data: bytes) -> str | None:
    """Why this image is not one frame of pixels that are coded, None if it is."""
    if image.format in _KEPT:
        return f"{image.format} container"
    if getattr(image, "is_animated", False) or getattr(image, "n_frames", 1) != 1:
        return "animation or several pages"
    png_reason = truth.png_refusal(data, image.mode) if image.format == "PNG" else None
    if image.mode not in MODE_CHANNELS:
        return _MODE_REASONS.get(image.mode, f"{image.mode} colours")
    if png_reason:
        return png_reason
    if image.mode == "P" and image.palette is not None and image.palette.mode != "RGB":
        return f"palette of {image.palette.mode} colours"
    if image.mode != "P" and "transparency" in image.info:
        return "transparent colour"
    if image.mode == "I" and image.format != "PPM":
        return "32 bits per sample"
    if "photoshop" in image.info:
        return "Photoshop or IPTC metadata"
    match image.format:
        case "TIFF":
            return truth.tiff_refusal(_tags(image), image.mode, MODE_CHANNELS[image.mode])
        case "AVIF":
            return truth.avif_refusal(data)
        case "JPEG2000":
            return truth.jpeg2000_refusal(data)
        case "PPM":
            return truth.pnm_refusal(image.tile[0].codec_name, image.tile[0].args, image.mode)
    return None


def _tags(image: ImageFile.ImageFile) -> dict[int, Any]:
    return dict(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _png_metadata(data: bytes) -> list[Chunk]:
    return [chunk for chunk in iterate_png_chunks(data) if kept(chunk.name)]


def _foreign_metadata(image: ImageFile.ImageFile) -> list[Chunk] | None:
    """Another format's metadata as PNG chunks; None where a piece of it does not survive the translation."""
    info, chunks = image.info, list[Chunk]()
    if profile := info.get("icc_profile"):
        chunks.append(icc_chunk(bytes(profile)))
    if (dpi := info.get("dpi")) and (density := density_chunk(dpi)):
        chunks.append(density)
    exif = info.get("exif") or b""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        described = _describe_tiff(_tags(image))
        if described is None:
            return None
        exif = described
    if exif := exif.removeprefix(b"Exif\0\0"):
        chunks.append(Chunk(b"eXIf", exif))
    if xmp := info.get("xmp"):
        chunks.append(xmp_chunk(xmp if isinstance(xmp, bytes) else str(xmp).encode()))
    if comment := info.get("comment"):
        text = comment if isinstance(comment, bytes) else str(comment).encode("latin-1", "replace")
        # Some writers end a JPEG comment like a C string; a text chunk cannot hold the zero.
        chunks.append(Chunk(b"tEXt", b"Comment\0" + text.rstrip(b"\0")))
    return chunks


def _describe_tiff(tags: dict[int, Any]) -> bytes | None:
    """The describing tags of a TIFF as an EXIF block, b"" for none, None where the block does not read back equal."""
    described = {tag: tags[tag] for tag in truth.TIFF_DESCRIPTION if tag in tags}
    if not described:
        return b""
    exif, again = Image.Exif(), Image.Exif()
    exif.update(described)
    block = exif.tobytes()
    again.load(block)
    return block if dict(again) == described else None


def _describe_unknown(data: bytes) -> str:
    start = data[:512]
    for name, signature, offset in _UNREADABLE:
        if start[offset : offset + len(signature)] == signature:
            return f"the file begins like {name}, which this release cannot decode; convert it or leave it as it is"
    if not start.strip(b"\0"):
        return "the file holds zero bytes only, not an image"
    text = start.decode("utf-8", "replace").removesuffix("\ufffd")
    if all(character.isprintable() or character.isspace() for character in text) and "\ufffd" not in text:
        return f"the file is text, not an image; it begins with {text[:24]!r}"
    return f"the file is of no image format that is known here; it begins with the bytes {data[:8].hex(' ')}"


def fail(error: Exception, name: str) -> NoReturn:
    """Turn whatever Pillow raised into an ImageError: on damaged files it raises nearly every kind of exception."""
    raise ImageError(f"the {name} file cannot be decoded: {_detail(error)}") from error


def _detail(error: Exception) -> str:
    """What Pillow says, in words for people who do not read its code."""
    if any(isinstance(each, struct.error | IndexError) for each in (error, error.__cause__)):
        return "it is cut short"
    said = str(error).strip().rstrip(".") or type(error).__name__
    if said == "not identified by this driver":
        return "its size or its kind of pixels is none that there is"
    return f"its data are damaged ({said})" if said.startswith("decoder error") else said
