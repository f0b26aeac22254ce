from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.errors import FormatError
from pilc_stream.images.metadata import (
    MAX_EXTRAS_BYTES,
    MAX_INFLATED_BYTES,
    TAGS,
    Chunk,
    density_chunk,
    find_fault,
    icc_chunk,
    iterate_png_chunks,
    kept,
    pack_extras,
    palette_of,
    palette_only,
    unpack_extras,
    xmp_chunk,
)

VALID = [
    Chunk(b"gAMA", struct.pack(">I", 45455)),
    Chunk(b"cHRM", bytes(32)),
    Chunk(b"sRGB", b"\x03"),
    Chunk(b"cICP", bytes(4)),
    Chunk(b"mDCV", bytes(24)),
    Chunk(b"cLLI", bytes(8)),
    Chunk(b"sBIT", b"\x05\x06\x05"),
    Chunk(b"bKGD", bytes(6)),
    Chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
    Chunk(b"tIME", bytes(7)),
    Chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0"),
    Chunk(b"tEXt", b"Title\0words"),
    Chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"words")),
    Chunk(b"iTXt", b"Title\0\0\0de\0Titel\0W\xc3\xb6rter"),
    icc_chunk(b"profile"),
    xmp_chunk(b"<xmp/>"),
    Chunk(b"prVt", b"anything"),
]


def test_every_known_chunk_is_covered_here_and_has_a_tag_of_its_own() -> None:
    assert {chunk.name for chunk in VALID} == {*TAGS, b"prVt"} - {b"PLTE", b"tRNS", b"frAm"}
    assert sorted(TAGS.values()) == list(range(1, len(TAGS) + 1))


PALETTE = [Chunk(b"PLTE", bytes(range(9))), Chunk(b"tRNS", b"\x00\x80")]


def test_a_palette_comes_back_and_is_found_at_once() -> None:
    for chunks in (PALETTE, PALETTE[:1]):
        extras = pack_extras([*chunks, Chunk(b"bKGD", b"\x02"), Chunk(b"sBIT", b"\x08\x08\x08")])
        assert unpack_extras(extras, 1)[: len(chunks)] == chunks
        assert palette_of(extras) == (PALETTE[0].data, PALETTE[1].data if len(chunks) == 2 else b"")
        assert palette_only(extras) == pack_extras(chunks)
    assert palette_of(b"") is palette_of(pack_extras(VALID)) is None


@pytest.mark.parametrize(
    ("chunks", "channels", "bits"),
    [
        (PALETTE[::-1], 1, 8),
        (PALETTE[1:], 1, 8),
        ([VALID[0], *PALETTE], 1, 8),
        (PALETTE, 3, 8),
        (PALETTE, 1, 16),
        ([PALETTE[0], PALETTE[0]], 1, 8),
        ([Chunk(b"PLTE", bytes(8))], 1, 8),
        ([Chunk(b"PLTE", bytes(771))], 1, 8),
        ([Chunk(b"PLTE", b"")], 1, 8),
        ([PALETTE[0], Chunk(b"tRNS", bytes(4))], 1, 8),
        ([PALETTE[0], Chunk(b"tRNS", b"")], 1, 8),
        ([PALETTE[0], Chunk(b"bKGD", bytes(2))], 1, 8),
        ([Chunk(b"sBIT", b"\x09\x09\x09")], 3, 8),
        ([Chunk(b"sBIT", b"\x11\x11\x11")], 3, 16),
    ],
)
def test_a_palette_out_of_place_or_shape_is_refused(chunks: list[Chunk], channels: int, bits: int) -> None:
    with pytest.raises(FormatError):
        unpack_extras(pack_extras(chunks), channels, bits)


def test_the_blob_is_small_and_spelled_as_documented() -> None:
    assert pack_extras([]) == b""
    assert pack_extras([Chunk(b"gAMA", b"\0\0\xb1\x8f")]) == b"\x01\x01\x04\0\0\xb1\x8f"
    assert pack_extras([Chunk(b"prVt", b"x")]) == b"\x01\x00\x05prVtx"
    assert pack_extras([Chunk(b"eXIf", bytes(300))])[:4] == b"\x01\x0c\xac\x02"


@pytest.mark.parametrize("chunk", VALID, ids=lambda chunk: chunk.name.decode())
def test_valid_chunks_come_back(chunk: Chunk) -> None:
    assert find_fault([chunk], 3) is None
    assert unpack_extras(pack_extras([chunk]), 3) == [chunk]


def test_order_is_kept_and_empty_is_empty() -> None:
    assert unpack_extras(pack_extras(VALID[::-1]), 3) == VALID[::-1]
    assert unpack_extras(b"", 1) == []


@given(st.binary(max_size=60))
def test_nonsense_is_a_format_error_or_the_one_spelling_of_chunks(blob: bytes) -> None:
    try:
        chunks = unpack_extras(blob, 3)
    except FormatError:
        return
    assert pack_extras(chunks) == blob


@given(st.data())
def test_damaged_blobs_are_a_format_error_or_other_valid_chunks(data: st.DataObject) -> None:
    blob = bytearray(pack_extras(data.draw(st.lists(st.sampled_from(VALID), unique_by=lambda chunk: chunk.name))))
    if not blob:
        return
    blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    del blob[data.draw(st.integers(1, len(blob))) :]
    try:
        chunks = unpack_extras(bytes(blob), 3)
    except FormatError:
        return
    assert pack_extras(chunks) == blob


@pytest.mark.parametrize(
    ("blob", "sentence"),
    [
        (b"\x02", "version 2"),
        (b"\x01", "no chunk"),
        (b"\x01\x01\x05\0\0\xb1\x8f", "announces 5 bytes"),
        (b"\x01\x01\x84\x00\0\0\xb1\x8f", "no valid length"),
        (b"\x01\x01", "no valid length"),
        (b"\x01\x63\x00", "tag 99"),
        (b"\x01\x00\x02ab", "does not belong"),
        (b"\x01\x00\x08gAMA\0\0\xb1\x8f", "does not belong"),
        (b"\x01\x00\x05IDATx", "does not belong"),
        (b"\x01\x00\x05iDOTx", "does not belong"),
        (b"\x01\x03\x01\x04", "malformed sRGB"),
        (b"\x01\x01\x04abcd\x01\x04abcd", "two gAMA"),
    ],
)
def test_each_fault_is_named(blob: bytes, sentence: str) -> None:
    with pytest.raises(FormatError, match=sentence):
        unpack_extras(blob, 3)


def test_significant_bits_and_background_fit_the_channels() -> None:
    assert find_fault([Chunk(b"sBIT", b"\x05\x06\x05")], 1) == "a malformed sBIT chunk"
    assert find_fault([Chunk(b"bKGD", bytes(2))], 1) is None
    assert find_fault([Chunk(b"bKGD", bytes(2))], 3) == "a malformed bKGD chunk"


def test_text_that_no_reader_would_inflate_is_a_fault() -> None:
    bomb = Chunk(b"zTXt", b"Key\0\0" + zlib.compress(bytes(MAX_INFLATED_BYTES + 1)))
    assert find_fault([bomb], 3) == "a malformed zTXt chunk"
    just = Chunk(b"zTXt", b"Key\0\0" + zlib.compress(bytes(MAX_INFLATED_BYTES)))
    assert find_fault([just], 3) is None


def test_too_much_metadata_is_a_fault() -> None:
    assert (
        find_fault([Chunk(b"prVt", bytes(MAX_EXTRAS_BYTES + 1))], 3)
        == f"more than {MAX_EXTRAS_BYTES} bytes of metadata"
    )


@pytest.mark.parametrize("dpi", [(0, 0), (float("inf"), 1), (float("nan"), 1), (-72, 72), (1e12, 1), (72.0,)])
def test_density_that_means_nothing_is_left_out(dpi: tuple[float, float]) -> None:
    assert density_chunk(dpi) is None


def test_density_is_rounded_to_pixels_per_metre() -> None:
    assert density_chunk((72, 300)) == Chunk(b"pHYs", struct.pack(">IIB", 2835, 11811, 1))


@pytest.mark.parametrize("name", [b"tRNS", b"acTL", b"fdAT", b"IDAT", b"PLTE", b"iDOT", b"ab1d"])
def test_structure_does_not_travel(name: bytes) -> None:
    assert not kept(name)


def test_a_png_without_its_end_is_a_format_error() -> None:
    with pytest.raises(FormatError, match="truncated at byte 28: there is no IEND"):
        list(iterate_png_chunks(b"\x89PNG\r\n\x1a\n" + bytes(20)))
