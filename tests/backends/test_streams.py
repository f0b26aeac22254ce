"""What every backend refuses alike: streams that no encoder wrote."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
from contents import CONTENTS
from engines import engine, every_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import small_model

from pilc_stream.backends import open_engine
from pilc_stream.backends.base import (
    WORDS_BEHIND,
    TileJob,
    check_end,
    check_ends,
    pack_stream,
    split_stream,
    split_streams,
)
from pilc_stream.errors import DeviceError, FormatError, TruncatedError, UsageError

HEIGHT, WIDTH, LANES_LOG2 = 9, 7, 1


@cache
def stream() -> bytes:
    return engine("reference").encode_tiles(small_model(), [CONTENTS["photo"](HEIGHT, WIDTH, 3, 2)], [LANES_LOG2])[0]


def job(data: bytes) -> TileJob:
    return TileJob(memoryview(data), HEIGHT, WIDTH, 3, LANES_LOG2)


def test_states_and_words_come_back() -> None:
    states, words = np.array([1 << 16, (1 << 32) - 1], np.uint32), np.array([1, 65535, 300], np.uint16)
    ours = split_stream(TileJob(memoryview(pack_stream(states, words)), 1, 1, 1, 1))
    assert [part.tolist() for part in ours] == [states.tolist(), words.tolist()]


def test_streams_taken_at_once_are_those_taken_one_by_one() -> None:
    states = np.array([[1 << 16, (1 << 32) - 1], [70000, 1 << 20]], np.uint32)
    words = [np.array([1, 65535, 300], np.uint16), np.array([7], np.uint16)]
    jobs = [TileJob(memoryview(pack_stream(*parts)), HEIGHT, WIDTH, 3, 1) for parts in zip(states, words, strict=True)]
    all_states, all_words, counts = split_streams(jobs)
    assert all_states.tolist() == states.tolist()
    assert all_words.tolist() == [1, 65535, 300, 7, *[0] * WORDS_BEHIND]
    assert counts.tolist() == [3, 1]
    for damaged in (b"\xff" * 7, b"\xff" * 9, b"\xff\xff\0\0" * 2):
        with pytest.raises(FormatError) as alone:
            split_stream(job(damaged))
        with pytest.raises(type(alone.value), match=re.escape(str(alone.value))):
            split_streams([*jobs, job(damaged)])


def test_ends_are_checked_at_once() -> None:
    states, words = np.full((2, 3), 1 << 16, np.uint32), np.array([5, 6])
    check_ends(states, words, words)
    with pytest.raises(FormatError, match="used 4 of 6 words"):
        check_ends(states, np.array([5, 4]), words)
    states[1, 2] += 1
    with pytest.raises(FormatError, match="does not end in the state"):
        check_ends(states, words, words)


@pytest.mark.parametrize("length", [0, 1, 7, 9])
def test_a_stream_without_room_for_its_states_or_with_half_a_word_is_refused(length: int) -> None:
    with pytest.raises(TruncatedError, match="cannot hold 2 lanes and whole words"):
        split_stream(TileJob(memoryview(bytes([255] * length)), 1, 1, 1, 1))


def test_a_first_state_below_the_lowest_is_refused() -> None:
    with pytest.raises(FormatError, match=r"below 2\*\*16"):
        split_stream(TileJob(memoryview(b"\xff\xff\0\0"), 1, 1, 1, 0))


def test_the_end_is_checked() -> None:
    check_end(np.full(3, 1 << 16, np.uint32), 5, 5)
    with pytest.raises(FormatError, match="used 4 of 5 words"):
        check_end(np.full(3, 1 << 16, np.uint32), 4, 5)
    with pytest.raises(FormatError, match="does not end in the state"):
        check_end(np.array([1 << 16, (1 << 16) + 1], np.uint32), 5, 5)


@every_engine
def test_words_too_few_or_too_many_are_refused(engine_name: str) -> None:
    good = stream()
    for data in (good[:-2], good[: len(good) // 2 & ~1], good + b"\0\0", good[:8], good + good[8:]):
        with pytest.raises(FormatError, match="tile: "):
            engine(engine_name).decode_tiles(small_model(), [job(data)])


@every_engine
@settings(max_examples=40, deadline=None)
@given(bit=st.integers(0, 8 * len(stream()) - 1))
def test_a_flipped_bit_without_a_checksum_is_refused_or_gives_other_pixels(engine_name: str, bit: int) -> None:
    # The end conditions leave one stream per tile: another stream is another tile or none.
    good = stream()
    data = bytearray(good)
    data[bit // 8] ^= 1 << bit % 8
    try:
        tile = engine(engine_name).decode_tiles(small_model(), [job(bytes(data))])[0]
    except FormatError:
        return
    assert engine(engine_name).encode_tiles(small_model(), [tile], [LANES_LOG2]) == [bytes(data)]
    assert data != good


@every_engine
@settings(max_examples=30, deadline=None)
@given(data=st.binary(min_size=8, max_size=60))
def test_garbage_is_refused_or_is_what_the_encoder_writes(engine_name: str, data: bytes) -> None:
    try:
        tile = engine(engine_name).decode_tiles(small_model(), [TileJob(memoryview(data), 3, 2, 1, 1)])[0]
    except FormatError:
        return
    assert engine(engine_name).encode_tiles(small_model(), [tile], [1]) == [data]


@every_engine
def test_one_bad_tile_does_not_pass_among_good_ones(engine_name: str) -> None:
    good = stream()
    with pytest.raises(FormatError):
        engine(engine_name).decode_tiles(small_model(), [job(good), job(good[:-2]), job(good)])
    # And leaves nothing behind.
    assert len(engine(engine_name).decode_tiles(small_model(), [job(good)])) == 1


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="known: auto, cpu, cuda, reference"):
        open_engine("tpu")
    with pytest.raises(UsageError, match="give 1 or more"):
        open_engine("cpu", threads=0)


@pytest.mark.parametrize(
    ("device", "name"), [("auto", ("cpu", "cuda")), ("cpu", ("cpu",)), ("reference", ("reference",))]
)
def test_a_device_opens_its_backend(device: str, name: tuple[str, ...]) -> None:
    assert open_engine(device).name in name


def test_the_cuda_backend_opens_or_says_what_to_use_instead() -> None:
    try:
        answer = open_engine("cuda").name
    except DeviceError as error:
        answer = str(error)
    assert answer == "cuda" or ("'cuda'" in answer and "'cpu'" in answer)


@pytest.mark.parametrize("gang", [1, 2, 4])
@pytest.mark.parametrize("words", [-20, -1, 1])
def test_tiles_of_sixteen_lanes_use_all_their_words_and_no_more(gang: int, words: int) -> None:
    tiles = [CONTENTS["photo"](30, 21, 3, seed) for seed in range(gang)]
    streams = engine("cpu").encode_tiles(small_model(), tiles, [4] * gang)
    for number in range(gang):
        wrong = streams[number][: 2 * words] if words < 0 else streams[number] + bytes(2 * words)
        jobs = [TileJob(memoryview(wrong if k == number else stream), 30, 21, 3, 4) for k, stream in enumerate(streams)]
        with pytest.raises(FormatError):
            engine("cpu").decode_tiles(small_model(), jobs)
