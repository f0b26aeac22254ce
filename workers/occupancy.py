"""Which stage holds a job up: the share of its time that each stage is at work, over the last while."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 30.0
STAGES: Final = ("read", "decode", "code", "write")
"""What runs side by side. `code` is what the codec does, verification included."""

_LITTLE: Final = 0.005


@dataclass(frozen=True, slots=True)
class Slots:
    """How much of each stage can go on at once: threads, codecs, shards being written, summed over the workers."""

    read: int = 0
    decode: int = 0
    code: int = 0
    write: int = 0

    def of(self, stage: str) -> int:
        """The slots of a stage."""
        return int(getattr(self, stage))


def busy(seconds: Mapping[str, float], slots: Slots, wall_s: float) -> dict[str, float]:
    """The share of `wall_s` that each stage of `STAGES` was at work, from 0 to 1; {} where nothing is known.

    `seconds`: of work, as `StageTimes` counts them.
    """
    if wall_s <= 0 or not slots.code:
        return {}
    worked = {**seconds, "code": seconds.get("code", 0.0) + seconds.get("verify", 0.0)}
    return {stage: min(1.0, max(0.0, worked.get(stage, 0.0)) / (wall_s * slots.of(stage))) for stage in STAGES}


def bottleneck(shares: Mapping[str, float]) -> str:
    """The stage that is busiest; "" where none is at work."""
    stage = max(shares, key=lambda each: shares[each], default="")
    return stage if stage and shares[stage] > _LITTLE else ""


def sentence(shares: Mapping[str, float]) -> str:
    """What a person reads: "read 12 %, decode 83 %, code 41 % busy: decode-bound"; "" where nothing is at work."""
    held_up_by = bottleneck(shares)
    if not held_up_by:
        return ""
    listed = ", ".join(f"{stage} {100 * share:.0f} %" for stage, share in shares.items())
    return f"{listed} busy: {held_up_by}-bound"


class Occupancy:
    """Shares over the last `WINDOW_S` seconds, from sums that grow."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, dict[str, float]]] = deque()

    def add(self, now: float, seconds: Mapping[str, float]) -> None:
        """Note the seconds of work in all, at `now`."""
        # A lost worker takes its part back; from there it counts anew.
        if self._points and sum(seconds.values()) < sum(self._points[-1][1].values()):
            self._points.clear()
        self._points.append((now, dict(seconds)))
        while len(self._points) > 2 and self._points[1][0] <= now - WINDOW_S:
            self._points.popleft()

    def shares(self, slots: Slots) -> dict[str, float]:
        """As `busy`, of the last while."""
        if not self._points:
            return {}
        (then, before), (now, after) = self._points[0], self._points[-1]
        return busy({stage: after[stage] - before.get(stage, 0.0) for stage in after}, slots, now - then)
