"""How far a column's distribution in one profile is from that in another.

The population stability index is sum((p - q) · ln(p / q)) over bins, 0 for equal distributions; by
convention 0.1 is a small and 0.25 a large shift (Siddiqi 2006). Two samples of one distribution
give, on average, (bins − 1)·(1/n + 1/m), with the spread of a chi-squared of as many degrees of
freedom (Yurdakul 2018), so the limit is that much higher in small samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from perennial.data.histogram import Histogram

LIMIT = 0.25
_BINS = 10
_LEVELS = 50


@dataclass(frozen=True, slots=True)
class Shift:
    """``psi`` above ``limit`` is a shift that chance alone doesn't explain."""

    psi: float
    limit: float

    @property
    def notable(self) -> bool:
        return self.psi > self.limit


def shift(reference: Mapping[str, Any], current: Mapping[str, Any]) -> Shift | None:
    """Compare one column of two profiles (``Profile.as_dict()["columns"][…]``).

    Numbers are put in about ten bins of equal share in the reference and one beyond each of its
    ends, texts in one for each of the commonest levels and one for the rest; missing values are a
    bin of their own. None where there is nothing to compare: an empty side, times, or a column
    whose type changed.
    """
    if reference["type"] != current["type"] or reference["type"] == "datetime":
        return None
    if not (reference["count"] and current["count"]):
        return None
    binned = _binned_texts if "levels" in reference else _binned_numbers
    before, after = binned(reference, current)
    before = np.append(before, reference["missing"]).astype(float)
    after = np.append(after, current["missing"]).astype(float)
    filled = (before + after) > 0
    return _index(before[filled], after[filled])


def _index(before: np.ndarray, after: np.ndarray) -> Shift:
    n, m, bins = before.sum(), after.sum(), len(before)
    p = (before + 0.5) / (n + 0.5 * bins)  # half a row more in each bin: none is empty
    q = (after + 0.5) / (m + 0.5 * bins)
    psi = float(((p - q) * np.log(p / q)).sum())
    freedom = bins - 1
    chance = (freedom + 3 * math.sqrt(2 * freedom)) * (1 / n + 1 / m)
    return Shift(psi, LIMIT + chance)


def _binned_numbers(
    reference: Mapping[str, Any], current: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    before, after = Histogram.read(reference["histogram"]), Histogram.read(current["histogram"])
    coarsest = max(before.shift, after.shift)
    before, after = before.coarser(coarsest), after.coarser(coarsest)
    share = np.cumsum(before.counts) / before.total
    # A bin ends where the reference's share passes another tenth; what lies below or above all of
    # the reference has bins of its own.
    ends = np.unique(np.minimum(np.floor(share * _BINS - 1e-9), _BINS - 1), return_index=True)[1]
    starts = np.array([before.keys[0], *before.keys[ends[1:]], before.keys[-1] + 1])
    bins = len(starts) + 1
    return (
        np.bincount(np.searchsorted(starts, before.keys, "right"), before.counts, bins),
        np.bincount(np.searchsorted(starts, after.keys, "right"), after.counts, bins),
    )


def _binned_texts(
    reference: Mapping[str, Any], current: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    commonest = sorted(reference["levels"].items(), key=lambda item: (-item[1], item[0]))
    levels = [level for level, _ in commonest[:_LEVELS]]
    before = np.array([reference["levels"][level] for level in levels])
    after = np.array([current["levels"].get(level, 0) for level in levels])
    return (
        np.append(before, reference["count"] - before.sum()),
        np.append(after, current["count"] - after.sum()),
    )
