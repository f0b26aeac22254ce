from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilc_stream.errors import FormatError, TruncatedError
from pilc_stream.records.pages import _struct, locate_payloads

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write(payloads: list[bytes | None], **options: Any) -> bytes:
    image = pa.array([{"bytes": payload, "path": "p"} for payload in payloads], IMAGE)
    sink = io.BytesIO()
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table({"image": image}), sink, **{**plain, **options})
    return sink.getvalue()


def locate(file: bytes) -> list[tuple[int, int]]:
    return locate_payloads(file, pq.read_metadata(pa.BufferReader(file)))


@settings(max_examples=100, deadline=None)
@given(
    payloads=st.lists(st.binary(max_size=40), max_size=60),
    page_bytes=st.integers(1, 200),
    batch=st.integers(1, 20),
    group=st.integers(1, 30),
    checksum=st.booleans(),
    statistics=st.booleans(),
)
def test_every_page_layout_is_walked(
    payloads: list[bytes], page_bytes: int, batch: int, group: int, checksum: bool, statistics: bool
) -> None:
    """Many pages in a group, one value a page, headers with and without checksum and statistics."""
    file = write(
        list(payloads),
        data_page_size=page_bytes,
        write_batch_size=batch,
        row_group_size=group,
        write_page_checksum=checksum,
        write_statistics=statistics,
    )
    assert [file[offset : offset + length] for offset, length in locate(file)] == payloads


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compression": "zstd"}, "compressed or in a dictionary"),
        ({"use_dictionary": True}, "compressed or in a dictionary"),
        ({"data_page_version": "2.0"}, r"expected a data page \(version 1\)"),
        ({"column_encoding": {"image.bytes": "DELTA_LENGTH_BYTE_ARRAY"}}, "the page is not PLAIN"),
    ],
)
def test_other_ways_to_store_payloads_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        locate(write([b"payload"] * 5, **options))


@pytest.mark.parametrize("payloads", [[None], [b"a", None, b"b"], [None, b"long enough"]])
def test_nulls_are_refused(payloads: list[bytes | None]) -> None:
    with pytest.raises(FormatError):
        locate(write(payloads))


def test_files_without_payloads_are_refused() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"key": ["a"]}), sink)
    with pytest.raises(FormatError, match=r"Row group 0 has no column image\.bytes"):
        locate(sink.getvalue())


def test_broken_off_files_are_refused() -> None:
    file = write([b"payload"] * 5)
    metadata = pq.read_metadata(pa.BufferReader(file))
    chunk_end = 4 + metadata.row_group(0).column(0).total_compressed_size
    for length in range(chunk_end):
        with pytest.raises(TruncatedError):
            locate_payloads(file[:length], metadata)


def test_bytes_that_belong_to_no_value_are_refused() -> None:
    file = bytearray(write([b"one", b"three"]))
    metadata = pq.read_metadata(pa.BufferReader(bytes(file)))
    file[file.index(b"\x05\0\0\0three")] = 4
    with pytest.raises(FormatError, match="has 1 bytes that are no value"):
        locate_payloads(bytes(file), metadata)


def test_a_footer_that_counts_other_rows_is_refused() -> None:
    file = write([b"one", b"three"])
    group = pq.read_metadata(pa.BufferReader(file)).row_group(0)
    wrong = SimpleNamespace(num_rows=3, num_columns=group.num_columns, column=group.column)
    with pytest.raises(FormatError, match="Row group 0 has 3 rows but 2 payloads"):
        locate_payloads(file, SimpleNamespace(num_row_groups=1, row_group=lambda _: wrong))


def test_damaged_pages_give_format_errors_only() -> None:
    file = write([b"payload", b"", b"x" * 30])
    metadata = pq.read_metadata(pa.BufferReader(file))
    right = locate(file)
    wrong = 0
    for bit in range(4 * 8, 8 * (4 + metadata.row_group(0).column(0).total_compressed_size)):
        damaged = bytearray(file)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert len(locate_payloads(bytes(damaged), metadata)) == len(right)
        except FormatError:
            wrong += 1
    assert wrong > 100


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@given(st.dictionaries(st.integers(1, 30), st.integers(-(2**40), 2**40), max_size=8))
def test_thrift_structs_read_back(fields: dict[int, int]) -> None:
    """Integers at any field number, in short and long form, between fields that are skipped."""
    out = bytearray()
    last = 0
    for number in sorted(fields):
        value = fields[number]
        step = number - last
        out += bytes([step << 4 | 6]) if step <= 15 else bytes([6]) + varint(number << 1)
        out += varint((value << 1) ^ (value >> 63))
        last = number
    # Behind them: a boolean, a string, a double and a struct.
    out += b"\x11" + b"\x18\x03abc" + b"\x17" + bytes(8) + b"\x1c\x15\x04\x00" + b"\x00"
    found, end = _struct(memoryview(bytes(out) + b"rest"), 0)
    assert found == {**fields, last + 4: {1: 2}}
    assert end == len(out)


@pytest.mark.parametrize("header", [b"", b"\x15", b"\x15\x80", b"\x15" + b"\xff" * 11, b"\x1d\x00", b"\x1c" * 3])
def test_headers_that_are_none(header: bytes) -> None:
    with pytest.raises(FormatError):
        _struct(memoryview(header), 0)


def test_pyarrow_still_writes_what_the_walk_expects() -> None:
    """The bytes of one small chunk, spelt out: header, levels, then length and bytes of each value."""
    file = write([b"one", b"", b"three"])
    chunk = file[4 : 4 + pq.read_metadata(pa.BufferReader(file)).row_group(0).column(0).total_compressed_size]
    assert chunk.endswith(b"\x03\0\0\0one" + b"\0\0\0\0" + b"\x05\0\0\0three")
    assert locate(file)[0][0] == 4 + chunk.index(b"one")
