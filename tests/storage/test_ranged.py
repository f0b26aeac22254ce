from __future__ import annotations

import io
import random

import pytest

from pilc_stream.storage import RangedFile, Store
from pilc_stream.storage import ranged as ranged_module

SIZE = 10_000


@pytest.fixture
def content(monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr(ranged_module, "BLOCK_BYTES", 64)
    return random.Random(1).randbytes(SIZE)


def test_it_reads_like_a_file_in_memory(store: Store, content: bytes) -> None:
    store.put("object", content)
    file, model, choice = RangedFile(store, "object", SIZE), io.BytesIO(content), random.Random(2)
    for _ in range(40):
        offset, whence = choice.choice(
            [(choice.randrange(SIZE), 0), (choice.randrange(50), 1), (-choice.randrange(70), 2)]
        )
        assert file.seek(offset, whence) == model.seek(offset, whence)
        length = choice.choice([0, 1, 63, 64, 65, 200, SIZE])
        assert file.read(length) == model.read(length)
        assert file.tell() == model.tell()
    assert file.read() == model.read()


def test_reading_in_order_asks_for_each_byte_once_and_ahead(
    store: Store, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("object", content)
    asked: list[list[tuple[int, int]]] = []
    read_ranges = Store.read_ranges

    def counted(self: Store, path: str, ranges: list[tuple[int, int]]) -> list[bytes]:
        asked.append(list(ranges))
        return read_ranges(self, path, ranges)

    monkeypatch.setattr(Store, "read_ranges", counted)
    file = RangedFile(store, "object", SIZE)
    assert b"".join(iter(lambda: file.read(10), b"")) == content
    assert sum(length for ranges in asked for _, length in ranges) == SIZE
    assert len(asked) < SIZE / 64 / 4
    assert len(file._blocks) <= ranged_module._BLOCKS_KEPT


def test_an_empty_object(store: Store) -> None:
    store.put("object", b"")
    assert RangedFile(store, "object", 0).read() == b""
