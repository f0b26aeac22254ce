"""Images read in bands are those that are decoded whole: pixels, mode, metadata and reasons."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pilc_stream.errors import ImageError
from pilc_stream.images import NotRepresentable, Pixels, bands_plain, bands_png, bands_tiff, decode_image, encode_png
from pilc_stream.images.arrays import array_file
from pilc_stream.images.bands import open_bands, regrouped
from pilc_stream.images.metadata import PNG_SIGNATURE, png_chunk

HEIGHT, WIDTH = 45, 31
ODD = Path(__file__).resolve().parents[3] / "shared" / "data" / "eval" / "odd"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (bands_png, bands_plain, bands_tiff):
        monkeypatch.setattr(room, "BAND_BYTES", 700)


def _drawn(channels: int, kind: type = np.uint8) -> np.ndarray[Any, Any]:
    """Slopes with noise: all filters of PNG get to be the best somewhere."""
    y, x, c = np.mgrid[:HEIGHT, :WIDTH, :channels]
    noise = np.random.default_rng(channels).integers(0, 4 + 9 * (y // 9 % 3), (HEIGHT, WIDTH, channels))
    array = ((3 * y + 2 * x * (x % 7) + 30 * c + noise) * (1 if kind is np.uint8 else 251)).astype(kind)
    return array[:, :, 0] if channels == 1 else array


def _saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _assert_same(data: bytes, least_bands: int = 2) -> None:
    whole, banded = decode_image(data), open_bands(data)
    assert (banded.head.mode, banded.head.extras) == (whole.mode, whole.extras)
    assert (banded.shape, banded.dtype) == (whole.array.shape, whole.array.dtype)
    # Twice: reading begins anew.
    for _ in range(2):
        bands = list(banded.read())
        assert len(bands) >= least_bands
        np.testing.assert_array_equal(np.concatenate(bands), whole.array)


def _image(mode: str) -> Image.Image:
    match mode:
        case "1":
            return Image.fromarray(_drawn(1)).convert("1")
        case "P":
            return Image.fromarray(_drawn(3)).convert("P")
        case "P4":
            return Image.fromarray(_drawn(3)).quantize(13)
        case "I;16":
            return Image.fromarray(_drawn(1, np.uint16))
    return Image.fromarray(_drawn({"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "P4", "I;16", "1"])
@pytest.mark.parametrize("options", [{}, {"compress_level": 9}, {"optimize": True, "dpi": (72, 90)}])
def test_png_of_pillow(mode: str, options: dict[str, Any]) -> None:
    _assert_same(_saved(_image(mode), "PNG", **options), 1 if mode == "1" else 2)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_of_sixteen_bits(channels: int) -> None:
    mode = {2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    _assert_same(encode_png(Pixels(_drawn(channels, np.uint16), mode)))


def _png(width: int, depth: int, colour_type: int, rows: bytes, pieces: int = 1, level: int = 6) -> bytes:
    """A PNG of rows that have their filters before them; what is deflated in several chunks."""
    row_bytes = 1 + -(-width * _CHANNELS[colour_type] * depth // 8)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, len(rows) // row_bytes, depth, colour_type, 0, 0, 0))]
    if colour_type == 3:
        chunks.append((b"PLTE", bytes(range(256)) * 3))
    data = zlib.compress(rows, level)
    step = -(-len(data) // pieces)
    chunks += [(b"IDAT", data[start : start + step]) for start in range(0, len(data), step)]
    return PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in (*chunks, (b"IEND", b"")))


_KINDS = [(8, 0), (8, 2), (8, 3), (8, 4), (8, 6), (16, 0), (16, 2), (16, 4), (16, 6), (1, 0), (2, 0), (4, 0), (4, 3)]


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(_KINDS),
    width=st.integers(1, 40),
    height=st.integers(1, 60),
    pieces=st.integers(1, 9),
    level=st.sampled_from([0, 1, 6]),
    seed=st.integers(0, 1 << 30),
)
def test_png_of_any_filters(kind: tuple[int, int], width: int, height: int, pieces: int, level: int, seed: int) -> None:
    depth, colour_type = kind
    row_bytes = -(-width * _CHANNELS[colour_type] * depth // 8)
    random = np.random.default_rng(seed)
    rows = random.integers(0, 256, (height, 1 + row_bytes)).astype(np.uint8)
    rows[:, 0] = random.integers(0, 5, height)
    _assert_same(_png(width, depth, colour_type, rows.tobytes(), pieces, level), 1)


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_bmp_and_pnm(mode: str) -> None:
    for format in ("BMP", "PPM"):
        _assert_same(_saved(_image(mode), format), 1 if mode == "1" else 2)


def test_bmp_from_the_top_down() -> None:
    data = bytearray(_saved(_image("RGB"), "BMP"))
    struct.pack_into("<i", data, 22, -HEIGHT)
    _assert_same(bytes(data))
    np.testing.assert_array_equal(decode_image(bytes(data)).array, _drawn(3)[::-1])


@pytest.mark.parametrize("channels", [1, 3])
def test_pnm_of_sixteen_bits(channels: int) -> None:
    _assert_same(array_file(_drawn(channels, np.uint16)))


_MODES = {"group4": ["1"], "jpeg": ["L", "RGB"]}
_COMPRESSIONS = [None, "tiff_deflate", "tiff_lzw", "packbits", "zstd", "group4", "jpeg"]


@pytest.mark.parametrize(
    ("compression", "mode"),
    [(each, mode) for each in _COMPRESSIONS for mode in _MODES.get(each or "", ["L", "LA", "RGB", "RGBA", "I;16"])],
)
@pytest.mark.parametrize("strip_rows", [1, 7, HEIGHT])
def test_tiff_in_strips(mode: str, compression: str | None, strip_rows: int) -> None:
    rows = 8 if compression == "jpeg" and strip_rows < 8 else strip_rows
    data = _saved(_image(mode), "TIFF", compression=compression, tiffinfo={278: rows})
    _assert_same(data, 1 if strip_rows == HEIGHT or mode == "1" else 2)


def test_tiff_with_a_predictor_and_tags() -> None:
    info = {278: 5, 317: 2, 270: "a view", 305: "a program"}
    _assert_same(_saved(_image("RGB"), "TIFF", compression="tiff_lzw", tiffinfo=info))


def _tiled_tiff(order: str, tile: int, deflate: bool) -> tuple[bytes, np.ndarray[Any, Any]]:
    """An RGB TIFF in tiles of `tile` x `tile`, as a library that makes pyramids writes them."""
    array = _drawn(3)
    down, across = -(-HEIGHT // tile), -(-WIDTH // tile)
    padded = np.pad(array, ((0, down * tile - HEIGHT), (0, across * tile - WIDTH), (0, 0)))
    streams = [
        padded[r * tile : (r + 1) * tile, c * tile : (c + 1) * tile].tobytes()
        for r in range(down)
        for c in range(across)
    ]
    streams = [zlib.compress(stream) for stream in streams] if deflate else streams
    offsets = np.cumsum([8, *map(len, streams)])
    values_at = int(offsets[-1])
    depths = struct.pack(f"{order}3H", 8, 8, 8)
    places = struct.pack(f"{order}{len(streams)}I", *offsets[:-1].tolist())
    lengths = struct.pack(f"{order}{len(streams)}I", *map(len, streams))
    places_at, lengths_at = values_at + len(depths), values_at + len(depths) + len(places)
    entries = [
        *((256, 4, 1, WIDTH), (257, 4, 1, HEIGHT), (258, 3, 3, values_at), (259, 4, 1, 8 if deflate else 1)),
        *((262, 4, 1, 2), (277, 4, 1, 3), (322, 4, 1, tile), (323, 4, 1, tile)),
        *((324, 4, len(streams), places_at), (325, 4, len(streams), lengths_at)),
    ]
    directory = struct.pack(f"{order}H", len(entries))
    directory += b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries) + bytes(4)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", lengths_at + len(lengths))
    return start + b"".join(streams) + depths + places + lengths + directory, array


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [True, False])
def test_tiff_in_tiles(order: str, deflate: bool) -> None:
    data, array = _tiled_tiff(order, 16, deflate)
    np.testing.assert_array_equal(decode_image(data).array, array)
    _assert_same(data, 3)


def test_formats_and_layouts_that_have_no_bands_say_so() -> None:
    with pytest.raises(ImageError, match="JPEG files are not read in bands"):
        open_bands(_saved(_image("RGB"), "JPEG"))
    plain = _png(WIDTH, 8, 0, bytes(HEIGHT * (1 + WIDTH)))
    with pytest.raises(ImageError, match="interlaced"):
        open_bands(plain[:8] + png_chunk(b"IHDR", plain[16:28] + b"\1") + plain[33:])
    with pytest.raises(ImageError, match="turned"):
        open_bands(_saved(_image("RGB"), "TIFF", tiffinfo={274: 6}))


def test_strips_that_are_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands_tiff, "MAX_STRIP_BYTES", 1000)
    with pytest.raises(ImageError, match="too many to be decoded one at a time"):
        open_bands(_saved(_image("RGB"), "TIFF", compression="tiff_lzw", tiffinfo={278: HEIGHT}))
    # Nothing is compressed: a strip is cut.
    _assert_same(_saved(_image("RGB"), "TIFF", tiffinfo={278: HEIGHT}))


def test_the_limit_of_pixels() -> None:
    data = _saved(_image("L"), "PNG")
    assert open_bands(data, max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH)
    with pytest.raises(ImageError, match=f"above the limit of {HEIGHT * WIDTH - 1}"):
        open_bands(data, max_pixels=HEIGHT * WIDTH - 1)


def test_what_is_not_coded_is_refused_for_the_same_reason() -> None:
    for data in (
        _saved(_image("RGB"), "PNG", transparency=(1, 2, 3)),
        _saved(_image("RGB").convert("CMYK"), "TIFF"),
        _saved(_image("L"), "PNG", save_all=True, append_images=[_image("L").rotate(90)]),
    ):
        reasons = []
        for take in (decode_image, open_bands):
            with pytest.raises(NotRepresentable) as caught:
                take(data)
            reasons.append((caught.value.reason, caught.value.header))
        assert reasons[0] == reasons[1]


def test_without_metadata_only_the_palette_stays() -> None:
    data = _saved(_image("P"), "PNG", dpi=(72, 72))
    assert open_bands(data, metadata=False).head.extras == decode_image(data, metadata=False).extras != b""


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF"])
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@settings(max_examples=40, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_damaged_files_are_errors_or_other_pixels(format: str, where: float, change: int) -> None:
    data = bytearray(_saved(_image("RGB"), format, **({"compression": "tiff_lzw"} if format == "TIFF" else {})))
    data[int(where * len(data))] ^= change
    for damaged in (bytes(data), bytes(data[: int(where * len(data))])):
        try:
            banded = open_bands(damaged, max_pixels=1 << 20)
            rows = sum(len(band) for band in banded.read())
        except ImageError:
            continue
        assert rows == banded.shape[0]


def test_pixels_of_a_damaged_png_never_pass_its_checksum() -> None:
    data = bytearray(_saved(_image("L"), "PNG", compress_level=0))
    data[data.index(b"IDAT") + 100] ^= 1
    with pytest.raises(ImageError, match="incorrect data check"):
        list(open_bands(bytes(data)).read())


def test_regrouped() -> None:
    array = np.arange(60, dtype=np.uint8).reshape(20, 3)
    for cuts in ([20], [1] * 20, [3, 9, 8]):
        bands = np.split(array, np.cumsum(cuts)[:-1])
        for heights in ([20], [7, 7, 6], [1] * 20):
            groups = list(regrouped(bands, heights))
            assert [len(group) for group in groups] == heights
            np.testing.assert_array_equal(np.concatenate(groups), array)


@pytest.mark.slow
@pytest.mark.skipif(not ODD.is_dir(), reason=f"the odd images are not at {ODD}")
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_odd_files_that_have_bands_have_their_pixels() -> None:
    banded = 0
    for path in sorted(ODD.rglob("*")):
        if path.suffix.lower() not in (".png", ".bmp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff"):
            continue
        data = path.read_bytes()
        try:
            image = open_bands(data, max_pixels=1 << 24)
            bands = np.concatenate(list(image.read()))
        except ImageError:
            continue
        whole = decode_image(data)
        assert (image.head.mode, image.head.extras) == (whole.mode, whole.extras), path
        np.testing.assert_array_equal(bands, whole.array, err_msg=str(path))
        banded += 1
    assert banded > 100
