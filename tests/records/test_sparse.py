from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.records.sparse import SparseFile

WHOLE = bytes(range(200))


@given(st.lists(st.tuples(st.integers(0, 210), st.integers(-1, 210)), max_size=10))
def test_a_whole_file_reads_like_bytes_io(reads: list[tuple[int, int]]) -> None:
    sparse, plain = SparseFile(200, [(0, WHOLE)]), io.BytesIO(WHOLE)
    for position, size in reads:
        assert sparse.seek(position) == plain.seek(position)
        assert sparse.read(size) == plain.read(size)
        assert sparse.tell() == plain.tell()


@given(st.integers(0, 200), st.integers(1, 60))
def test_only_the_pieces_can_be_read(position: int, size: int) -> None:
    pieces = [(10, WHOLE[10:50]), (60, WHOLE[60:90]), (150, WHOLE[150:])]
    sparse = SparseFile(200, pieces)
    end = min(position + size, 200)
    sparse.seek(position)
    if position >= 200:
        assert sparse.read(size) == b""
    elif any(start <= position and end <= start + len(piece) for start, piece in pieces):
        assert sparse.read(size) == WHOLE[position:end]
    else:
        with pytest.raises(OSError, match=f"bytes {position} to {end} were not fetched"):
            sparse.read(size)


def test_seeking_from_the_end_and_from_here() -> None:
    sparse = SparseFile(200, [(190, WHOLE[190:])])
    assert sparse.seek(-10, io.SEEK_END) == 190
    assert sparse.read(3) == WHOLE[190:193]
    assert sparse.seek(2, io.SEEK_CUR) == 195
    assert sparse.read() == WHOLE[195:]
    assert sparse.readable()
    assert sparse.seekable()
