"""Durations and sizes by upper bound: since the start, and over the last minute."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from operator import add

_LOW = (100, 112, 125, 140, 160, 180, 200, 224, 250, 280)
_R20 = (*_LOW, 315, 355, 400, 450, 500, 560, 630, 710, 800, 900)
SECONDS = (*(float(f"{m}e{e}") for e in range(-6, -1) for m in _R20), 10.0)
"""Upper bounds of durations, 0.1 ms to 10 s in steps of an eighth (ISO 3, series R20): fine enough
for percentiles."""

_SLOT_SECONDS = 5
_SLOTS = 12  # a minute


class Histogram:
    """Observations by upper bound; the last place is for what is above every bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Recent:
    """What was answered in a stretch of time: requests by SECONDS, and rows."""

    __slots__ = ("counts", "ends", "rows")

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.counts = [0] * (len(SECONDS) + 1)
        self.rows = 0


class Answers:
    """The requests that one version answered as one arm: since the start, and in slots of time."""

    __slots__ = ("_clock", "_recent", "_since", "_slot", "histogram", "rows")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.histogram = Histogram(SECONDS)
        self.rows = 0
        self._clock = clock
        self._since = clock()
        self._recent: deque[Recent] = deque(maxlen=_SLOTS)
        self._slot = self._turn(self._since)

    def add(self, rows: int, seconds: float) -> None:
        now = self._clock()
        slot = self._slot
        if now >= slot.ends:
            slot = self._slot = self._turn(now)
        place = bisect_left(SECONDS, seconds)
        slot.counts[place] += 1
        slot.rows += rows
        histogram = self.histogram
        histogram.counts[place] += 1
        histogram.total += seconds
        self.rows += rows

    def _turn(self, now: float) -> Recent:
        """Begin a slot of time."""
        slot = Recent((now // _SLOT_SECONDS + 1) * _SLOT_SECONDS)
        self._recent.append(slot)
        return slot

    def last_minute(self) -> tuple[Recent, float]:
        """The last minute together, and the seconds it has had: 55 to 60, the running slot being
        part of it; fewer after the start."""
        now = self._clock()
        ends = (now // _SLOT_SECONDS + 1) * _SLOT_SECONDS
        start = ends - _SLOTS * _SLOT_SECONDS
        total = Recent(ends)
        for slot in self._recent:
            if slot.ends > start:
                total.rows += slot.rows
                total.counts = list(map(add, total.counts, slot.counts))
        return total, now - max(start, self._since)


def quantile_ms(counts: Sequence[int], q: float) -> float | None:
    """The q-quantile, in milliseconds, of counts by SECONDS; None when there are none.

    Observations are taken to be spread evenly below their bound, as Prometheus' histogram_quantile
    does; beyond the last bound it is that bound.
    """
    rank = q * sum(counts)
    below, low = 0, 0.0
    for bound, n in zip(SECONDS, counts, strict=False):  # counts has one more
        if n and below + n >= rank:
            return 1e3 * (low + (bound - low) * (rank - below) / n)
        below, low = below + n, bound
    return 1e3 * SECONDS[-1] if rank else None
