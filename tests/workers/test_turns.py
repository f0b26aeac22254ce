from __future__ import annotations

import threading
import time

import pytest

from workers.turns import Turns


def test_the_lowest_number_that_waits_is_next() -> None:
    turns, order = Turns(), list[int]()

    def take(number: int) -> None:
        with turns.of(number):
            order.append(number)

    with turns.of(9):
        threads = [threading.Thread(target=take, args=(number,)) for number in (5, 3, 7)]
        for thread in threads:
            thread.start()
        while len(turns._waiting) < 3:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == [3, 5, 7]


def test_one_at_a_time() -> None:
    turns, inside, most = Turns(), 0, 0

    def work(number: int) -> None:
        nonlocal inside, most
        for _ in range(50):
            with turns.of(number):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_failure_passes_the_turn_on() -> None:
    turns = Turns()
    with pytest.raises(RuntimeError), turns.of(1):
        raise RuntimeError
    with turns.of(2):
        pass
