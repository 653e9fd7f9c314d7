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


def quantiles(bins: Bins, counts: ColumnCounts, at: np.ndarray) -> np.ndarray | None:
    """Of a number, by the line between the ends of its bins. None without values."""
    if bins.kind != "number" or not bins.edges or not counts.present:
        return None
    ends, share = _distribution(bins, counts)
    rising = np.append(True, np.diff(share) > 0)
    ends, share = ends[rising], share[rising]
    place = np.interp(at, share, np.arange(len(share)))
    low, high = np.floor(place).astype(int), np.ceil(place).astype(int)
    found: np.ndarray = ends[low] * (1 - place % 1) + ends[high] * (place % 1)
    return found


def spread(bins: Bins, counts: ColumnCounts) -> float | None:
    """Of a number: what its quartiles' distance is in standard deviations of a normal; where they
    are equal, the standard deviation. None when there is no spread."""
    quartiles = quantiles(bins, counts, np.array([0.25, 0.75]))
    if quartiles is None:
        return None
    wide = float(quartiles[1] - quartiles[0]) / _NORMAL_QUARTILES
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


def _distribution(bins: Bins, counts: ColumnCounts) -> tuple[np.ndarray, np.ndarray]:
    """Ascending ends of the bins, from the least value to the greatest, and the share of values
    below each."""
    edges = np.array(bins.edges)
    ends = [value for value in (counts.least, counts.greatest) if value is not None]
    finite = [value for value in ends if isfinite(value)]
    first, last = min([edges[0], *finite]), max([edges[-1], *finite])
    below = np.cumsum(counts.counts[:-1]) / counts.present
    return np.concatenate([[first], edges, [last]]), np.concatenate([[0.0], below])
