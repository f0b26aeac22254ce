from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.errors import FormatError
from pilc_stream.pipeline.keys import doubled, doubled_digests
from pilc_stream.pipeline.naming import Names, unsafe

# Few letters, so that names meet often.
KEYS = st.lists(st.from_regex(r"([ab]/)?[ab](\.(png|PNG|jpg|2|bmp)){0,3}", fullmatch=True), unique=True, max_size=12)


def _names(keys: list[str], suffix: str = ".png") -> dict[str, str]:
    names = Names(lambda: keys, suffix)
    return {key: names[key] for key in keys}


def test_a_suffix_takes_the_place_of_the_old_one() -> None:
    assert _names(["a/cat.bmp", "dog.png", "DOG.PNG", "plain", ".hidden", "x.y/plain"]) == {
        "a/cat.bmp": "a/cat.png",
        "dog.png": "dog.png",
        "DOG.PNG": "DOG.PNG",
        "plain": "plain.png",
        ".hidden": ".hidden.png",
        "x.y/plain": "x.y/plain.png",
    }


def test_keys_that_meet_keep_their_suffix() -> None:
    assert _names(["cat.bmp", "cat.jpg"]) == {"cat.bmp": "cat.bmp.png", "cat.jpg": "cat.jpg.png"}
    assert _names(["cat.bmp", "cat.png"]) == {"cat.bmp": "cat.bmp.png", "cat.png": "cat.png"}
    assert _names(["cat.bmp", "cat.png", "cat.bmp.png"])["cat.bmp"] == "cat.bmp.2.png"
    assert _names(["cat.bmp", "cat.npy"], ".npy") == {"cat.bmp": "cat.bmp.npy", "cat.npy": "cat.npy"}


@given(KEYS)
def test_no_two_keys_share_a_name_whatever_their_order(keys: list[str]) -> None:
    names = _names(keys)
    assert len(set(names.values())) == len(keys)
    assert all(name.lower().endswith(".png") for name in names.values())
    assert _names(keys[::-1]) == names


@given(KEYS)
def test_a_kept_file_under_its_own_key_overwrites_nobody(keys: list[str]) -> None:
    names = _names(keys)
    for key in keys:
        assert all(name != key for other, name in names.items() if other != key)


def test_a_doubled_key_is_a_fault_of_the_data_set() -> None:
    with pytest.raises(FormatError, match=r"'a\.bmp' is in the data set more than once"):
        Names(lambda: ["a.bmp", "b.bmp", "a.bmp"], ".png")


@given(st.lists(st.text(max_size=3)))
def test_doubled_finds_what_a_count_finds(texts: list[str]) -> None:
    assert doubled(lambda: texts) == {text for text in texts if texts.count(text) > 1}


def test_many_digests_are_compared_whole() -> None:
    texts = [str(number) for number in range(20_000)]
    assert doubled_digests(texts) == set()
    assert len(doubled_digests([*texts, "17", "17", "19999"])) == 2


@pytest.mark.parametrize(
    "key",
    ["../x", "a/../../x", "..", "/etc/passwd", "//x", "a//b", "a/", "", ".", "./a", "a/./b", "a\0b", "a/.."],
)
def test_keys_that_lead_elsewhere_are_named(key: str) -> None:
    assert unsafe(key)


@pytest.mark.parametrize("key", ["a", "a/b.png", "..a/b..", "...", "a b/ü.png", "C:x", r"odd\xff.png", ".hidden"])
def test_other_keys_are_paths(key: str) -> None:
    assert unsafe(key) is None
