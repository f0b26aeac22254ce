"""Synthetic pictures: the same for the same seed, of every kind, each with the statistics it is listed with."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pilc_stream.errors import UsageError
from pilc_stream.training.synthetic import KINDS, SMALLEST_EDGE, synthetic_pictures

Pixels = NDArray[np.uint8]


def drawn(kind: str, edge: int, count: int) -> list[Pixels]:
    return [KINDS[kind].draw(np.random.default_rng((11, number)), edge) for number in range(count)]


def equal_share(picture: Pixels) -> float:
    """The share of pixels that equal their western neighbour in all channels."""
    return float((picture[:, 1:] == picture[:, :-1]).all(axis=-1).mean())


@pytest.mark.parametrize("edge", [SMALLEST_EDGE, 33, 64])
def test_a_seed_repeats_its_pictures(edge: int) -> None:
    once, again = list(synthetic_pictures(30, edge, 5)), list(synthetic_pictures(30, edge, 5))
    assert len(once) == 30
    assert {(picture.shape, picture.dtype) for picture in once} == {((edge, edge, 3), np.dtype(np.uint8))}
    for first, second in zip(once, again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_picture_does_not_depend_on_how_many_are_asked_for() -> None:
    for first, second in zip(synthetic_pictures(8, 32, 5), synthetic_pictures(20, 32, 5), strict=False):
        np.testing.assert_array_equal(first, second)


def test_other_seeds_and_other_places_give_other_pictures() -> None:
    pictures = [picture.tobytes() for seed in range(3) for picture in synthetic_pictures(40, 48, seed)]
    assert len(set(pictures)) == len(pictures)


def test_every_kind_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    marked = {
        name: kind._replace(draw=lambda _, edge, number=number: np.full((edge, edge, 3), number, np.uint8))
        for number, (name, kind) in enumerate(KINDS.items())
    }
    monkeypatch.setattr("pilc_stream.training.synthetic.KINDS", marked)
    seen = {int(picture[0, 0, 0]) for picture in synthetic_pictures(20 * len(KINDS), SMALLEST_EDGE, 0)}
    assert seen == set(range(len(KINDS)))


@pytest.mark.parametrize("edge", [64, 96])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_the_statistics_it_is_listed_with(kind: str, edge: int) -> None:
    pictures = drawn(kind, edge, 20)
    least, most = KINDS[kind].equal_share
    assert least <= np.mean([equal_share(picture) for picture in pictures]) <= most
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    assert np.mean([np.ptp(picture) > 0 for picture in pictures]) >= 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_draws_at_the_smallest_and_at_odd_edges(kind: str) -> None:
    for edge in (SMALLEST_EDGE, 13, 101):
        for picture in drawn(kind, edge, 4):
            assert picture.shape == (edge, edge, 3)
            assert picture.dtype == np.uint8


def test_palette_pictures_have_few_colours_and_grey_ones_no_colour() -> None:
    for picture in drawn("palette", 64, 12):
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) <= 64
    for picture in drawn("grey", 64, 12):
        assert (picture == picture[:, :, :1]).all()


@pytest.mark.parametrize(("count", "edge", "seed"), [(-1, 32, 0), (1, SMALLEST_EDGE - 1, 0), (1, 32, -1)])
def test_impossible_requests_are_refused_at_once(count: int, edge: int, seed: int) -> None:
    with pytest.raises(UsageError, match=f"count {count}, edge {edge}, seed {seed}; give a count and a seed"):
        synthetic_pictures(count, edge, seed)
