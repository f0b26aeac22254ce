from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from pilc_stream.errors import ImageError, UsageError
from pilc_stream.images import (
    ImageHeader,
    NotRepresentable,
    Pixels,
    decode_image,
    encode_png,
    picture,
    probe_image,
    shown,
)
from pilc_stream.images.metadata import PNG_SIGNATURE, palette_of, png_chunk


def _array(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _file(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def _with_chunk(png: bytes, name: bytes, data: bytes) -> bytes:
    return png[:33] + png_chunk(name, data) + png[33:]


@pytest.mark.parametrize(
    ("format", "channels"),
    [
        *((format, channels) for format in ("PNG", "BMP", "PPM", "TIFF") for channels in (1, 3)),
        *(("WEBP", 3), ("QOI", 3)),
    ],
)
def test_lossless_formats_give_back_their_pixels(format: str, channels: int) -> None:
    array = _array(13, 7, channels)
    options = {"lossless": True} if format == "WEBP" else {}
    pixels = decode_image(_file(Image.fromarray(array), format, **options))
    assert pixels.mode == ("L" if channels == 1 else "RGB")
    assert pixels.array.dtype == np.uint8
    np.testing.assert_array_equal(pixels.array, array)


def _grey_gif() -> bytes:
    """A GIF whose palette is the grey scale itself, which Pillow opens as "L"."""
    return _file(Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)), "GIF")


def test_a_gif_with_the_grey_scale_as_palette_is_grey() -> None:
    assert decode_image(_grey_gif()).array.reshape(-1).tolist() == list(range(256))


def test_a_png_without_its_end_is_broken_although_pillow_has_all_pixels() -> None:
    data = _file(Image.fromarray(_array(4, 4)))[:-12]
    with pytest.raises(ImageError, match="there is no IEND chunk"):
        decode_image(data)


def test_jpeg_pixels_are_those_of_pillow() -> None:
    data = _file(Image.fromarray(_array(16, 24)), "JPEG", quality=80, comment=b"hello")
    pixels = decode_image(data)
    np.testing.assert_array_equal(pixels.array, np.asarray(Image.open(io.BytesIO(data))))
    again = Image.open(io.BytesIO(encode_png(pixels)))
    assert again.text == {"Comment": "hello"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("mode", "format", "reason"),
    [
        ("F", "TIFF", "floating-point samples"),
        ("CMYK", "JPEG", "CMYK colours"),
        ("CMYK", "TIFF", "CMYK colours"),
        ("RGBA", "ICO", "ICO container"),
        ("RGB", "PCX", "PCX container"),
    ],
)
def test_other_modes_are_refused_by_name(mode: str, format: str, reason: str) -> None:
    with pytest.raises(NotRepresentable) as caught:
        decode_image(_file(Image.new(mode, (16, 16)), format))
    assert caught.value.reason == str(caught.value) == reason
    assert (caught.value.header.width, caught.value.header.height) == (16, 16)


def _alike(height: int, width: int, channels: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Samples of 16 bits whose low bytes matter."""
    y, x, c = np.indices((height, width, channels))
    return (x * 2711 + y * 13007 + c * 77).astype(np.uint16)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "GIF", "BMP"])
def test_pixels_and_mode_are_those_of_pillow(mode: str, format: str) -> None:
    shape = (9, 13, 3)
    image = Image.fromarray(_array(*shape))
    image = Image.fromarray(_alike(9, 13, 1)[:, :, 0]) if mode == "I;16" else image.convert(mode)
    try:
        data = _file(image, format, **({"lossless": True} if format == "WEBP" else {}))
    except OSError:
        pytest.skip(f"no {format} holds {mode}")
    opened = Image.open(io.BytesIO(data))
    try:
        pixels = decode_image(data)
    except NotRepresentable:
        # A palette of 16 bits, or alpha that may have been multiplied into the colours.
        if (format, mode) not in {("TIFF", "P"), ("TIFF", "LA"), ("GIF", "LA"), ("GIF", "RGBA")}:
            raise
        return
    assert pixels.mode == opened.mode
    ours = picture(pixels)
    assert ours.mode == opened.mode
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(opened))
    again = decode_image(encode_png(pixels))
    assert (again.mode, again.extras) == (pixels.mode, pixels.extras)
    np.testing.assert_array_equal(again.array, pixels.array)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("optimize", [False, True])
def test_sixteen_bits_of_several_channels_survive_although_pillow_has_no_mode_for_them(
    channels: int, optimize: bool
) -> None:
    array = _alike(21, 17, channels)
    mode = {2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    png = encode_png(Pixels(array, mode), optimize=optimize)
    decoded = decode_image(png)
    assert decoded.mode == mode
    assert decoded.array.dtype == np.uint16
    np.testing.assert_array_equal(decoded.array, array)
    # What others see of it: the high bytes.
    shown = np.asarray(Image.open(io.BytesIO(png)))
    np.testing.assert_array_equal(shown[:, :, -1], array[:, :, -1] >> 8)


def test_sixteen_bits_of_ppm_and_pgm() -> None:
    array = _alike(5, 7, 3)
    decoded = decode_image(b"P6 7 5\n65535\n" + array.astype(">u2").tobytes())
    np.testing.assert_array_equal(decoded.array, array)
    grey = decode_image(b"P5 7 5\n65535\n" + array[:, :, 0].astype(">u2").tobytes())
    assert grey.mode == "I"
    np.testing.assert_array_equal(grey.array, array[:, :, 0])


@pytest.mark.parametrize("opacities", [None, 3, b"\x00\x80\xff"])
def test_palettes_keep_their_order_and_opacities(opacities: int | bytes | None) -> None:
    image = Image.fromarray(_array(8, 8, 1) % 5).convert("P")
    # Two entries of one colour: only indices can tell them apart.
    image.putpalette(bytes([9, 9, 9, 1, 2, 3, 9, 9, 9, 200, 100, 0, 5, 5, 5]))
    data = _file(image, **({} if opacities is None else {"transparency": opacities}))
    pixels = decode_image(data)
    assert pixels.mode == "P"
    again = Image.open(io.BytesIO(encode_png(pixels)))
    source = Image.open(io.BytesIO(data))
    assert again.getpalette() == source.getpalette()
    np.testing.assert_array_equal(np.asarray(again.convert("RGBA")), np.asarray(source.convert("RGBA")))
    palette = palette_of(pixels.extras)
    assert palette is not None
    colours = shown(pixels.array, palette)
    assert colours.shape == (8, 8, 3 if opacities is None else 4)
    np.testing.assert_array_equal(colours, np.asarray(source.convert("RGB" if opacities is None else "RGBA")))


def test_without_metadata_only_a_palette_stays() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "words")
    for mode, left in (("P", True), ("RGB", False)):
        data = _file(Image.fromarray(_array(4, 4)).convert(mode), pnginfo=info, dpi=(72, 72))
        assert b"Title" in decode_image(data).extras
        extras = decode_image(data, metadata=False).extras
        assert bool(extras) is left
        assert b"Title" not in extras


@pytest.mark.parametrize("depth", [2, 4])
def test_shallow_grey_png_is_as_pillow_scales_it(depth: int) -> None:
    data = _file(Image.new("L", (8, 8), 17), bits=depth)
    assert data[24] == depth
    np.testing.assert_array_equal(decode_image(data).array, np.asarray(Image.open(io.BytesIO(data))))
    with pytest.raises(NotRepresentable, match="background"):
        decode_image(_with_chunk(data, b"bKGD", b"\0\1"))


@pytest.mark.parametrize("data", [b"P3 1 1 65535\n9 8 7\n", b"P6 2 1 100\n" + bytes(6), b"P2 2 1 15\n3 9\n"])
def test_pnm_with_another_largest_value_is_refused(data: bytes) -> None:
    with pytest.raises(NotRepresentable, match="not 8 or 16 bits"):
        decode_image(data)


def test_plain_pnm_of_eight_bits_is_taken() -> None:
    assert decode_image(b"P2 2 1 255\n3 9\n").array.tolist() == [[3, 9]]


def test_high_bit_depth_jpeg2000_is_refused() -> None:
    data = _file(Image.fromarray(_array(32, 32)), "JPEG2000")
    assert decode_image(data).mode == "RGB"
    siz = data.index(b"\xff\x4f\xff\x51") + 42
    deeper = data[:siz] + b"\x0b" + data[siz + 1 :]
    with pytest.raises((NotRepresentable, ImageError)) as caught:
        decode_image(deeper)
    assert not isinstance(caught.value, NotRepresentable) or "8 or 16 bits" in caught.value.reason


def test_high_bit_depth_avif_is_refused() -> None:
    data = _file(Image.fromarray(_array(32, 32)), "AVIF")
    assert decode_image(data).array.shape == (32, 32, 3)
    flags = data.index(b"av1C") + 6
    deeper = data[:flags] + bytes([data[flags] | 0x40]) + data[flags + 1 :]
    with pytest.raises(ImageError):
        decode_image(deeper)


@pytest.mark.parametrize("format", ["PNG", "GIF", "TIFF", "WEBP", "MPO"])
def test_several_frames_are_refused(format: str) -> None:
    frames = [Image.fromarray(_array(8, 8, seed=seed)) for seed in range(3)]
    with pytest.raises(NotRepresentable, match="animation or several pages"):
        decode_image(_file(frames[0], format, save_all=True, append_images=frames[1:]))


def test_transparent_colour_is_refused() -> None:
    with pytest.raises(NotRepresentable, match="transparent colour"):
        decode_image(_file(Image.fromarray(_array(4, 4)), transparency=(1, 2, 3)))
    with pytest.raises(NotRepresentable, match="transparent colour"):
        decode_image(_file(Image.fromarray(_array(4, 4, 1)), transparency=7))


def test_tiff_with_tags_that_would_be_lost_is_refused() -> None:
    image = Image.fromarray(_array(4, 4))
    assert decode_image(_file(image, "TIFF", description="a fine picture", software="x")).extras
    with pytest.raises(NotRepresentable, match="TIFF tags"):
        decode_image(_file(image, "TIFF", tiffinfo={33922: (1.0, 2.0, 3.0)}))


def test_describing_tiff_tags_arrive_as_exif() -> None:
    data = _file(Image.fromarray(_array(4, 4)), "TIFF", description="a fine picture", dpi=(96, 96))
    again = Image.open(io.BytesIO(encode_png(decode_image(data))))
    assert again.getexif()[270] == "a fine picture"
    assert again.info["dpi"] == pytest.approx((96, 96), abs=0.0128)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "QOI"])
def test_a_truncated_file_is_an_error_at_every_length(format: str) -> None:
    data = _grey_gif() if format == "GIF" else _file(Image.fromarray(_array(24, 24)), format)
    whole = decode_image(data).array
    for length in range(0, len(data) - 1, max(1, len(data) // 40)):
        try:
            pixels = decode_image(data[:length])
        except NotRepresentable:
            pytest.fail(f"{length} of {len(data)} bytes were taken for a sound image")
        except ImageError:
            continue
        # A cut that loses no pixel (a trailing marker or directory entry) may be accepted, made-up pixels never.
        np.testing.assert_array_equal(pixels.array, whole)


def test_content_decides_not_the_name() -> None:
    assert probe_image(_file(Image.fromarray(_array(4, 4)), "JPEG")).format == "JPEG"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the file is empty"),
        (b"hello, I am a text file\n", "is text, not an image; it begins with 'hello"),
        ("Grüße aus dem Wald\n".encode() * 40, "is text"),
        (bytes(100), "zero bytes only"),
        (b"\x00\x01\x02\x03\xff\xfe\xfd", "no image format that is known here"),
        (PNG_SIGNATURE, "begins like PNG but its header is broken: it is cut short"),
        (
            b"GIF89a" + bytes(7) + b"," + bytes(9) + b"\2\1\0\0;",
            "like GIF but its header is broken: its size or its kind",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "like PostScript, which this release cannot decode"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "like HEIC, which"),
        (b"\xff\x0a\xfa\x01", "like JPEG XL, which"),
    ],
)
def test_what_is_no_image_is_told_in_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence) as caught:
        decode_image(data)
    assert not isinstance(caught.value, NotRepresentable)


def test_pixels_are_limited_before_they_are_decoded() -> None:
    data = _file(Image.new("L", (100, 100)))
    assert decode_image(data, max_pixels=10_000).array.shape == (100, 100)
    for function in (decode_image, probe_image):
        with pytest.raises(ImageError, match=r"100x100 pixels, above the limit of 9999; raise max_pixels"):
            function(data, max_pixels=9_999)


def test_limits_above_those_of_pillow_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode_image(_file(Image.new("L", (100, 100)))).array.shape == (100, 100)


def test_a_tolerant_pillow_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UsageError, match="LOAD_TRUNCATED_IMAGES"):
        decode_image(_file(Image.new("L", (4, 4))))


def test_a_refused_file_is_decoded_all_the_same() -> None:
    data = _file(Image.fromarray(_array(32, 32, 3)).convert("CMYK"), "TIFF")
    with pytest.raises(NotRepresentable):
        decode_image(data)
    with pytest.raises(ImageError) as caught:
        decode_image(data[: len(data) // 2])
    assert not isinstance(caught.value, NotRepresentable)


def test_refusals_travel_between_processes() -> None:
    header = ImageHeader("PNG", 3, 4, "RGBA", 4, 8)
    again = pickle.loads(pickle.dumps(NotRepresentable("alpha channel", header)))
    assert (again.reason, again.header, str(again)) == ("alpha channel", header, "alpha channel")


def test_all_png_metadata_comes_back() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a title")
    info.add_text("Long", "words " * 200, zip=True)
    info.add_itxt("Author", "Jürgen", lang="de", tkey="Autor")
    info.add(b"gAMA", struct.pack(">I", 45455))
    info.add(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    info.add(b"prVt", b"private and safe to copy")
    exif = Image.Exif()
    exif[0x0112] = 6
    array = _array(9, 5)
    data = _file(
        Image.fromarray(array), pnginfo=info, dpi=(300, 150), icc_profile=b"not a profile" * 9, exif=exif.tobytes()
    )
    pixels = decode_image(data)
    source, again = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(encode_png(pixels)))
    np.testing.assert_array_equal(np.asarray(again), array)
    assert again.info == source.info
    assert again.text == source.text  # type: ignore[attr-defined]
    assert b"private and safe to copy" in pixels.extras
    assert decode_image(encode_png(pixels)).extras == pixels.extras


def test_text_behind_the_pixels_is_kept() -> None:
    png = _file(Image.fromarray(_array(4, 4)))
    data = png[:-12] + png_chunk(b"tEXt", b"Comment\0late") + png[-12:]
    again = Image.open(io.BytesIO(encode_png(decode_image(data))))
    assert again.text == {"Comment": "late"}  # type: ignore[attr-defined]


def test_unknown_chunks_that_depend_on_the_data_are_left_behind() -> None:
    data = _with_chunk(_file(Image.fromarray(_array(4, 4))), b"iDOT", bytes(28))
    assert decode_image(data).extras == b""


@pytest.mark.parametrize(
    ("name", "content"),
    [(b"pHYs", struct.pack(">IIB", 1, 1, 9)), (b"tEXt", b"no separator"), (b"zTXt", b"Key\0\0not deflate")],
)
def test_malformed_metadata_keeps_the_file_as_it_came(name: bytes, content: bytes) -> None:
    data = _with_chunk(_file(Image.fromarray(_array(4, 4))), name, content)
    with pytest.raises(NotRepresentable, match=f"malformed {name.decode()} chunk"):
        decode_image(data)


def test_doubled_metadata_keeps_the_file_as_it_came() -> None:
    png = _file(Image.fromarray(_array(4, 4)))
    data = _with_chunk(_with_chunk(png, b"gAMA", bytes([0, 0, 1, 0])), b"gAMA", bytes([0, 0, 2, 0]))
    with pytest.raises(NotRepresentable, match="two gAMA chunks"):
        decode_image(data)


@pytest.mark.parametrize(
    "pixels",
    [
        Pixels(_array(4, 4, 1), "RGB"),
        Pixels(_array(4, 4, 3), "L"),
        Pixels(_array(4, 4, 4), "RGB"),
        Pixels(_array(4, 4, 4), "CMYK"),
        Pixels(np.zeros((4, 4), np.uint16), "L"),
        Pixels(np.zeros((4, 4), np.uint8), "I;16"),
        Pixels(np.zeros((0, 4), np.uint8), "L"),
    ],
)
def test_encode_png_names_what_it_cannot_write(pixels: Pixels) -> None:
    with pytest.raises(ImageError, match="cannot be written as PNG"):
        encode_png(pixels)


def test_encode_png_takes_views_of_any_layout() -> None:
    array = _array(12, 10)[::2, ::-1]
    np.testing.assert_array_equal(decode_image(encode_png(Pixels(array, "RGB"))).array, array)
