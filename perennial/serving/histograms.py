"""Durations and sizes by upper bound: since the start, and over the last minute."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence

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


class Answers:
    """The requests that one version answered as one arm: since the start, and in slots of time."""

    __slots__ = ("_clock", "_current", "_ends", "_recent", "_since", "histogram", "rows")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.histogram = Histogram(SECONDS)
        self.rows = 0
        self._clock = clock
        self._since = clock()
        self._recent: deque[tuple[float, list[int]]] = deque(maxlen=_SLOTS)
        self._turn(self._since)

    def add(self, rows: int, seconds: float) -> None:
        now = self._clock()
        if now >= self._ends:
            self._turn(now)
        place = bisect_left(SECONDS, seconds)
        self._current[place] += 1
        histogram = self.histogram
        histogram.counts[place] += 1
        histogram.total += seconds
        self.rows += rows

    def _turn(self, now: float) -> None:
        """Begin a new slot of time."""
        self._current = [0] * (len(SECONDS) + 1)
        self._ends = (now // _SLOT_SECONDS + 1) * _SLOT_SECONDS
        self._recent.append((self._ends, self._current))

    def last_minute(self) -> tuple[list[int], float]:
        """Counts by bound, and the seconds they were counted in (the running slot's included)."""
        now = self._clock()
        start = (now // _SLOT_SECONDS + 1 - _SLOTS) * _SLOT_SECONDS
        slots = [counts for ends, counts in self._recent if ends > start]
        counts = [sum(place) for place in zip(*slots, strict=True)]
        return counts or [0] * (len(SECONDS) + 1), now - max(start, self._since)


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
