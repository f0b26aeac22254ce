"""What a card's figures are made of, without one: other codecs' part, what is left out, and the pictures."""

from __future__ import annotations

import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")

from pilc_stream.errors import VerifyError
from pilc_stream.reports import card, card_peers
from pilc_stream.reports.card import BatchSize, bench_card, card_table, pictures
from pilc_stream.reports.card_peers import NvComp, peers

SIZE = BatchSize(8, 12, 3)


class Held:
    """An array of nvCOMP's: bytes on a card or in host memory."""

    def __init__(self, data: bytes) -> None:
        self.data, self.buffer_size = data, len(data)

    def cuda(self) -> Held:
        return self

    cpu = cuda

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.data, np.int8)


class Codec:
    """A compressor of nvCOMP."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm

    def encode(self, arrays: list[Held]) -> list[Held]:
        return [Held(zlib.compress(array.data)) for array in arrays]

    def decode(self, arrays: list[Held]) -> list[Held]:
        return [Held(zlib.decompress(array.data)[:: -1 if self.algorithm == "Wrong" else 1]) for array in arrays]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with nvCOMP, as far as this module goes."""
    library = SimpleNamespace(Codec=Codec, as_array=lambda values: Held(values.tobytes()))
    monkeypatch.setattr(card_peers, "import_module", lambda name: library)
    monkeypatch.setattr(card_peers, "_installed", lambda name: name == "nvidia.nvcomp")
    monkeypatch.setattr(card_peers, "cuda", SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr(card, "check_device", lambda: None)


def test_other_codecs_are_timed_where_they_are_installed() -> None:
    found = bench_card([], [SIZE], rounds=2)
    assert [one.profile for one in found] == ["nvCOMP ANS", "nvCOMP GDeflate"]
    for one in found:
        assert [stage.name for stage in one.stages] == ["encode on the card", "decode on the card"]
        assert all(stage.raw_bytes == 8 * 12 * 3 * 3 for stage in one.stages)
        coded = sum(len(zlib.compress(image.tobytes())) for image in pictures(SIZE))
        assert one.bpsp == 8 * coded / (8 * 12 * 3 * 3)
    assert card_table(found).count("decode on the card") == 2


def test_what_does_not_come_back_is_left_out_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "peers", lambda: {"wrong": lambda: NvComp("Wrong")})
    with pytest.raises(VerifyError, match="did not come back"):
        card._bench_peer("wrong", SIZE, pictures(SIZE), 1)
    said: list[str] = []
    assert bench_card([], [SIZE], progress=said.append) == []
    assert "left out, VerifyError" in said[-1]


def test_when_the_time_is_up_the_rest_is_left_out() -> None:
    said: list[str] = []
    assert bench_card([], [SIZE, SIZE], progress=said.append, most_seconds=-1) == []
    assert [line.rsplit(": ", 1)[1] for line in said] == ["left out, the time is up"] * 4


def test_nothing_is_listed_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_peers, "_installed", lambda name: False)
    assert not peers()


def test_pictures_are_different_and_compress() -> None:
    images = pictures(BatchSize(32, 32, 20))
    assert {image.shape for image in images} == {(32, 32, 3)}
    assert len({image.tobytes() for image in images}) == 20
    assert len(zlib.compress(images[0].tobytes())) < images[0].nbytes
