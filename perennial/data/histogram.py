"""A histogram that needs no range in advance, merges without loss, and stays small.

Every float64 belongs to a bucket of a fixed grid: its bits, put in numeric order and shifted right.
Without a shift a bucket is one value, so few distinct values are counted exactly; each further
shift joins neighbours. The shift is the least that keeps ``LIMIT`` buckets, so the result depends
on the values alone, not on the order or the batches they came in. (The idea of DDSketch, Masson,
Rim and Lee 2019, with the uniform collapse of UDDSketch, Epicoco et al. 2020, on the grid of
floating-point numbers themselves.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LIMIT = 512


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of finite values. ``keys`` (int64, ascending) are grid positions at ``shift``."""

    shift: int
    keys: np.ndarray
    counts: np.ndarray

    @classmethod
    def empty(cls) -> Self:
        return cls(0, np.array([], np.int64), np.array([], np.int64))

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """From what ``as_dict`` gave."""
        keys = np.cumsum(np.array(document["steps"], np.int64))
        return cls(int(document["shift"]), keys, np.array(document["counts"], np.int64))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: the shift, the counts, and the keys as steps from one to the next."""
        steps = np.diff(self.keys, prepend=np.int64(0))
        return {"shift": self.shift, "steps": steps.tolist(), "counts": self.counts.tolist()}

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def add(self, values: np.ndarray) -> Histogram:
        """With more values, float64 and finite."""
        counted = pc.value_counts(pa.array(_ordered(values) >> self.shift))
        keys, counts = counted.field("values").to_numpy(), counted.field("counts").to_numpy()
        return self.merge(Histogram(self.shift, keys, counts))

    def merge(self, other: Histogram) -> Histogram:
        """Both together. Associative and commutative."""
        shift = max(self.shift, other.shift)
        a, b = self.coarser(shift), other.coarser(shift)
        keys = np.concatenate([a.keys, b.keys])
        counts = np.concatenate([a.counts, b.counts])
        return _bounded(_summed(shift, keys, counts))

    def coarser(self, shift: int) -> Histogram:
        """At a shift that is no less than the present one."""
        if shift == self.shift:
            return self
        return _summed(shift, self.keys >> (shift - self.shift), self.counts)

    def quantile(self, share: float) -> float | None:
        """The value below which a share of the values lies, to the accuracy of a bucket; exact
        where buckets are single values. None without values."""
        if not self.total:
            return None
        ranks = np.cumsum(self.counts)
        target = share * self.total
        at = min(int(np.searchsorted(ranks, target)), len(ranks) - 1)
        low, high = self.edges(at)
        within = (target - (ranks[at] - self.counts[at])) / self.counts[at]
        return low + (high - low) * float(min(max(within, 0.0), 1.0))

    def edges(self, bucket: int) -> tuple[float, float]:
        """The least and the greatest value of a bucket."""
        first = int(self.keys[bucket]) << self.shift
        last = first + (1 << self.shift) - 1
        low, high = _from_ordered(np.array([first, last], np.int64))
        return float(low), float(high)


def _ordered(values: np.ndarray) -> np.ndarray:
    """The bits of float64 as int64 in numeric order (−0 and 0 alike)."""
    bits = (np.asarray(values, np.float64) + 0.0).view(np.int64)
    return bits ^ ((bits >> 63) & np.int64(0x7FFF_FFFF_FFFF_FFFF))


def _from_ordered(keys: np.ndarray) -> np.ndarray:
    bits = keys ^ ((keys >> 63) & np.int64(0x7FFF_FFFF_FFFF_FFFF))
    values: np.ndarray = np.nan_to_num(bits.view(np.float64))  # the grid's ends aren't finite
    return values


def _summed(shift: int, keys: np.ndarray, counts: np.ndarray) -> Histogram:
    joined, inverse = np.unique(keys, return_inverse=True)
    totals = np.zeros(len(joined), np.int64)
    np.add.at(totals, inverse, counts)
    return Histogram(shift, joined, totals)


def _bounded(histogram: Histogram) -> Histogram:
    if len(histogram.keys) <= LIMIT:
        return histogram
    low, high = 1, 64 - histogram.shift  # the least extra shift that leaves few enough buckets
    while low < high:
        middle = (low + high) // 2
        distinct = 1 + np.count_nonzero(np.diff(histogram.keys >> middle))
        low, high = (low, middle) if distinct <= LIMIT else (middle + 1, high)
    return histogram.coarser(histogram.shift + low)
