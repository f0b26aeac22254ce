from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from pilc_stream.cli.console import bits, duration, per_cent, size
from pilc_stream.cli.progress import LINE_EVERY_S, WINDOW_S, Display, JobDisplay, Meter, describe
from workers.occupancy import Slots
from workers.progress import Snapshot, Tally, Totals


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_rates_are_those_of_the_last_while() -> None:
    meter = Meter(0.0)
    for second in range(1, 101):
        # Slow at first, then ten times faster.
        images = second if second <= 50 else 50 + 10 * (second - 50)
        meter.add(float(second), images, 1000 * images)

    images_per_second, bytes_per_second = meter.rates()
    assert WINDOW_S < 50
    assert images_per_second == pytest.approx(10)
    assert bytes_per_second == pytest.approx(10_000)


def test_nothing_is_known_at_first() -> None:
    assert Meter(5.0).rates() == (0.0, 0.0)


def test_images_that_a_lost_worker_takes_back_do_not_make_a_negative_rate() -> None:
    meter = Meter(0.0)
    meter.add(1.0, 100, 100)
    meter.add(2.0, 40, 40)
    meter.add(3.0, 60, 60)

    assert meter.rates() == (20.0, 20.0)


def test_a_line_says_how_far_how_fast_and_how_long() -> None:
    line = describe(250, 1000, (25.0, 3.2e6), "ratio 2.50", "")

    assert line == "250/1,000 images, 25 images/s, 3.2 MB/s raw, ratio 2.50, ETA 30.0 s"
    assert describe(0, 10, (0.0, 0.0)) == "0/10 images"
    assert "ETA" not in describe(10, 10, (5.0, 5.0))


def test_where_there_is_no_terminal_a_line_comes_every_few_seconds(clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=200)
    with Display(console, clock) as display:
        shown = JobDisplay(display, clock)
        plan = Snapshot("working", images=100, shards=10)
        shown.show(plan)
        for step in range(1, 31):
            clock.now += 1.0
            shown.show(replace(plan, running=Tally(step, 3000 * step, 2000 * step, 1000 * step)))
        shown.say("Shard 3 failed.")

    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert LINE_EVERY_S == 10.0
    assert lines == [
        "pilc: 100 images in 10 shards.",
        "pilc: compressing: 10/100 images, 1 images/s, 3 kB/s raw, ratio 3.00 (2.00 to the source), ETA 1:30 min",
        "pilc: compressing: 20/100 images, 1 images/s, 3 kB/s raw, ratio 3.00 (2.00 to the source), ETA 1:20 min",
        "pilc: compressing: 30/100 images, 1 images/s, 3 kB/s raw, ratio 3.00 (2.00 to the source), ETA 1:10 min",
        "pilc: Shard 3 failed.",
    ]


def test_a_terminal_gets_a_bar_with_the_failures(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=160, highlight=False)
    with Display(console, clock) as display:
        shown = JobDisplay(display, clock)
        skipped, made = Totals(shards=1, images=10, failed=2), Totals(shards=1, images=5, failed=1)
        clock.now += 1.0
        shown.show(Snapshot("working", images=100, shards=10, skipped=skipped, made=made))

    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "100 images in 10 shards, 1 of them committed already." in output
    assert "15/100 images" in output
    assert "3 failed" in output


def test_resumed_images_do_not_count_as_speed(clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=200)
    with Display(console, clock) as display:
        shown = JobDisplay(display, clock)
        plan = Snapshot("starting", images=1000, shards=10, skipped=Totals(images=900))
        shown.show(plan)
        clock.now += 60.0
        shown.show(replace(plan, phase="working"))
        clock.now += 10.0
        shown.show(replace(plan, phase="working", running=Tally(20, 20, 20, 20)))

    last = console.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined]
    assert "920/1,000 images, 2 images/s" in last
    assert "ETA 40.0 s" in last


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345, "12.3 kB"), (999_600, "1 MB"), (5.5e12, "5.5 TB")],
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1:00 min"), (187, "3:07 min"), (7500, "2:05 h")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_shares_and_bits_of_nothing() -> None:
    assert (per_cent(1, 4), per_cent(1, 0), bits(3.14159), bits(None)) == ("25.0 %", "-", "3.142", "-")


def test_the_line_names_the_stage_that_holds_the_job_up(clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=200)
    with Display(console, clock) as display:
        shown = JobDisplay(display, clock)
        plan = Snapshot("working", images=100, shards=10, slots=Slots(read=8, decode=2, code=1, write=2))
        for step in range(21):
            clock.now += 1.0
            work = Tally(step, read_s=0.96 * step, decode_s=1.66 * step, code_s=0.41 * step)
            shown.show(replace(plan, running=work))
    assert "read 12 %, decode 83 %, code 41 %, write 0 % busy: decode-bound" in console.file.getvalue()  # type: ignore[attr-defined]
