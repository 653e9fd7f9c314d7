"""A column's counts by bin: joined into fewer, as quantiles, moved, and in words."""

from __future__ import annotations

from math import isfinite, sqrt

import numpy as np

from perennial.contracts.drift import Bins, ColumnCounts
from perennial.decisions.wording import figure, shortened

_NORMAL_QUARTILES = 1.349  # of a standard normal, from the first to the third


def joined(bins: Bins, most: int) -> np.ndarray:
    """For each bin the number of the joined one, so that about ``most`` hold values: neighbours of
    a number; of a text the commonest levels stay, the others and the buckets go round. It looks at
    no counts, so what is in them can't look special."""
    values = bins.size - 1
    if bins.kind == "number" and len(bins.edges) - 1 > most:
        inner = np.arange(len(bins.edges) - 1)
        inner = 1 + inner // -(-len(inner) // most)
        places = np.concatenate([[0], inner, [inner[-1] + 1]])
    elif bins.kind == "text" and values > most:
        kept, at = min(len(bins.levels), most // 2), np.arange(values)
        places = np.where(at < kept, at, kept + (at - kept) % (most - kept))
    else:
        places = np.arange(values)
    return np.append(places, places.max() + 1)


def shares(counts: ColumnCounts, places: np.ndarray) -> np.ndarray:
    """Counts in joined bins."""
    return np.bincount(places, np.array(counts.counts), places[-1] + 1)


def quantiles(
    bins: Bins, counts: ColumnCounts, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Of a number, the least and the greatest that the quantiles at shares above 0 can be. Between
    two edges both are on the line that joins them; of values beyond the outer edges just the
    extreme one is known, and one of them alone may be far away. None without values."""
    if bins.kind != "number" or not bins.edges or counts.least is None or counts.greatest is None:
        return None
    edges = np.array(bins.edges)
    share, place = _places(counts, at)
    along = (at - share[place]) / (share[place + 1] - share[place])
    line = np.append(edges[0], edges)[place] * (1 - along)
    line += np.append(edges, edges[-1])[place] * along
    least = np.where(place == 0, counts.least, line)
    return least, np.where(place == len(edges), counts.greatest, line)


def spread(bins: Bins, counts: ColumnCounts) -> float | None:
    """Of a number: what its quartiles' distance is in standard deviations of a normal; where bins
    don't tell them apart, the standard deviation. None when there is no spread."""
    at = np.array([0.25, 0.75])
    quartiles = quantiles(bins, counts, at)
    if quartiles is None:
        return None
    (first, third), (_, (lower, upper)) = _places(counts, at)[1], quartiles
    wide = float(upper - lower) / _NORMAL_QUARTILES if 0 < first < third < len(bins.edges) else 0.0
    finite = counts.present - counts.infinite
    if not wide > 0 and finite:
        variance = counts.squares / finite - (counts.total / finite) ** 2
        wide = sqrt(variance) if isfinite(variance) and variance > 0 else 0.0
    return wide if wide > 0 and isfinite(wide) else None


def named(bins: Bins, places: np.ndarray, place: int) -> str:
    """A joined bin in words."""
    if place == places[-1]:
        return "missing"
    members = np.flatnonzero(places == place)
    first, last = int(members[0]), int(members[-1])
    if bins.kind == "text":
        alone = first == last and first < len(bins.levels)
        return shortened(bins.levels[first]) if alone else "some other texts"
    if bins.kind == "time":
        return "a time"
    if not bins.edges:
        return "any number"
    if first == 0:
        return f"below {figure(bins.edges[0])}"
    greatest = float(np.nextafter(bins.edges[-1], -np.inf))  # the last edge is what follows it
    if last == len(bins.edges):
        return f"above {figure(greatest)}"
    end = bins.edges[last]
    if last == len(bins.edges) - 1:
        end = greatest
    elif all(edge.is_integer() for edge in bins.edges[:-1]):
        end -= 1  # of whole numbers, the last before the next bin
    low, high = figure(bins.edges[first - 1]), figure(end)
    return low if low == high else f"{low} to {high}"


def _places(counts: ColumnCounts, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of values below each bin and below the end of the last, and the bin in which each
    quantile lies."""
    share = np.append(0.0, np.cumsum(counts.counts[:-1]) / counts.present)
    return share, np.searchsorted(share, at) - 1
