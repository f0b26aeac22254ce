"""Peers are lossless, named with their settings, and code the same in several processes."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pilc_stream.errors import UsageError, VerifyError
from pilc_stream.reports.peers import PEER_NAMES, PeerContestant, all_peers, peer_coder
from pilc_stream.reports.sets import ImageSet

pytest.importorskip("imagecodecs")
PEERS = {peer.name: peer for peer in all_peers([1, 3])}
Photo = Callable[..., NDArray[Any]]


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("shape", [(33, 21, 3), (21, 33, None), (1, 1, 3)])
def test_pixels_come_back(photo_like: Photo, name: str, shape: tuple[int, int, int | None]) -> None:
    image = photo_like(*shape)
    with peer_coder(1) as code:
        ((payload, seconds),) = code(PEERS[name], [image])
    decoded = PEERS[name].decode(payload)
    assert np.array_equal(decoded if decoded.ndim == image.ndim else decoded[:, :, 1], image)
    assert seconds > 0


def test_smooth_pictures_get_smaller_and_more_effort_pays(photo_like: Photo) -> None:
    image = photo_like(128, 128)
    sizes = {name: len(peer.encode(image)) for name, peer in PEERS.items()}
    assert max(sizes.values()) < image.nbytes
    assert sizes["JPEG XL e3"] < sizes["JPEG XL e1"]
    assert sizes["WebP"] < sizes["PNG"]


def test_settings_name_the_library_and_its_version() -> None:
    assert list(PEERS) == ["PNG", "WebP", "JPEG XL e1", "JPEG XL e3"]
    assert set(PEERS) <= set(PEER_NAMES)
    for peer, library in zip(PEERS.values(), ("libpng", "libwebp", "libjxl", "libjxl"), strict=True):
        assert library in peer.settings
        assert any(character.isdigit() for character in peer.settings)
    assert PEERS["JPEG XL e1"].settings != PEERS["JPEG XL e3"].settings


def test_a_peer_that_loses_pixels_is_refused(photo_like: Photo) -> None:
    lossy = replace(PEERS["PNG"], name="Lossy", decode=lambda payload: PEERS["PNG"].decode(payload) & 254)
    with peer_coder(1) as code, pytest.raises(VerifyError, match="Lossy does not give the pixels"):
        list(code(lossy, [photo_like(8, 8)]))


def test_processes_code_the_same_in_the_same_order(photo_like: Photo) -> None:
    images = [photo_like(9, 10 + i, seed=i) for i in range(7)]
    peer = PEERS["JPEG XL e1"]
    with peer_coder(1) as alone, peer_coder(2) as pooled:
        assert [payload for payload, _ in pooled(peer, images)] == [payload for payload, _ in alone(peer, images)]


def test_peers_travel_to_processes() -> None:
    for peer in PEERS.values():
        assert pickle.loads(pickle.dumps(peer)) == peer or peer.name.startswith("JPEG XL")


def test_the_figures_of_a_peer(photo_like: Photo) -> None:
    image_set = ImageSet("photos", [photo_like(20, 30), photo_like(10, 12, None)], 0)
    said: list[tuple[str, int, int]] = []
    with peer_coder(1) as code:
        contestant = PeerContestant(PEERS["PNG"], image_set, code)
        contestant.prepare(lambda *step: said.append(step))
        contestant.run()
        contestant.run()
    figures = contestant.figures()
    assert figures.key == contestant.key
    assert (figures.peer, figures.images, figures.threads, figures.rounds) == ("PNG", 2, 1, 2)
    assert (figures.pixels, figures.raw_bytes) == (720, 1920)
    assert figures.payload_bytes == sum(len(PEERS["PNG"].encode(image)) for image in image_set.images)
    assert figures.bpsp == round(8 * figures.payload_bytes / 1920, 4)
    assert min(figures.encode_mb_per_s, figures.decode_mb_per_s) > 0
    assert [done for _, done, _ in said] == [0, 1, 2]


def test_an_effort_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="no effort 11; its efforts are 1 to 10"):
        all_peers([3, 11])


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UsageError, match=r"pip install 'pilc-stream\[bench\]'"):
        all_peers([3])
