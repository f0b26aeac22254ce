from __future__ import annotations

import pytest

from workers.occupancy import WINDOW_S, Occupancy, Slots, bottleneck, busy, sentence

SLOTS = Slots(read=8, decode=2, code=1, write=2)


def test_shares_are_of_the_slots_and_verification_is_the_codecs() -> None:
    shares = busy({"read": 8.0, "decode": 16.6, "code": 2.0, "verify": 2.1, "write": 0.0}, SLOTS, 10.0)
    assert shares == pytest.approx({"read": 0.1, "decode": 0.83, "code": 0.41, "write": 0.0})
    assert sentence(shares) == "read 10 %, decode 83 %, code 41 %, write 0 % busy: decode-bound"
    assert bottleneck(shares) == "decode"


def test_nothing_at_work_says_nothing() -> None:
    assert sentence(busy({}, SLOTS, 10.0)) == ""
    assert sentence(busy({"code": 1.0}, Slots(), 10.0)) == ""
    assert sentence({}) == ""


def test_only_the_last_while_counts() -> None:
    occupancy = Occupancy()
    for second in range(100):
        slow = {"read": 0.0, "decode": 0.0, "code": float(second), "verify": 0.0, "write": 0.0}
        occupancy.add(float(second), slow if second < 50 else {**slow, "code": 50.0, "decode": 2.0 * (second - 50)})
    assert WINDOW_S < 49
    assert bottleneck(occupancy.shares(SLOTS)) == "decode"
    assert occupancy.shares(SLOTS)["code"] == 0.0


def test_a_lost_worker_makes_no_negative_share() -> None:
    occupancy = Occupancy()
    occupancy.add(0.0, {"decode": 0.0})
    occupancy.add(1.0, {"decode": 5.0})
    occupancy.add(2.0, {"decode": 1.0})
    occupancy.add(4.0, {"decode": 3.0})
    assert occupancy.shares(SLOTS)["decode"] == pytest.approx(0.5)
