"""How far two histograms are apart, and how far chance alone puts two samples of one distribution.

The divergence is Jensen and Shannon's (Lin 1991) in base 2: 0 for equal shares, 1 when they have
nothing in common, whatever the type of the column. Chance is measured by dealing the rows of both
samples out anew, at their own sizes: when both come from one distribution, every deal is as likely
as the one that was seen (a permutation test). So the sampling error of the reference is in it, and
many rare bins need no care.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import log, sqrt

import numpy as np

DEALS = 1000
_MOST_ROWS = 100_000_000
_POWER_Z = 1.2815515655446004  # of 90 %


@dataclass(frozen=True, slots=True)
class Chance:
    """The divergence of two samples of one distribution: its mean and standard deviation.

    It is close to a multiple of a chi-squared variable, as a sum of squares of many small gaps, so
    its tail is that of the gamma distribution with this mean and deviation.
    """

    mean: float
    deviation: float

    def p_value(self, divergence: float) -> float:
        """The share of equal pairs that are at least as far apart."""
        from scipy.special import gammaincc

        if not self.deviation:
            return 1.0
        return float(gammaincc(self._shape, divergence / self._scale))

    def limit(self, rate: float) -> float:
        """The divergence that this share of equal pairs exceeds."""
        from scipy.special import gammainccinv

        if not self.deviation:
            return 1.0
        return float(gammainccinv(self._shape, rate) * self._scale)

    def beyond(self, divergence: float) -> float:
        """The distance, from 0 to 1, that is left when the mean of chance is taken off."""
        return sqrt(max(divergence - self.mean, 0.0) / max(1 - self.mean, 1e-9))

    def at(self, distance: float) -> float:
        """The divergence that is ``distance`` beyond chance."""
        return self.mean + distance**2 * (1 - self.mean)

    def found(self, limit: float) -> float | None:
        """The distance beyond chance at which a divergence exceeds ``limit`` with 90 % probability;
        None when no distance does.

        Of a non-central chi-squared with as many degrees of freedom as the gamma distribution has,
        whose mean grows with the non-centrality and whose variance with twice that.
        """
        if not self.deviation:
            return None
        unit = self._scale / 2
        freedom, asked, z = 2 * self._shape, limit / unit, 2 * _POWER_Z**2
        half = asked - freedom + z
        excess = half + sqrt(max(half**2 - (asked - freedom) ** 2 + z * freedom, 0.0))
        distance = sqrt(max(excess, 0.0) * unit / max(1 - self.mean, 1e-9))
        return distance if distance <= 1 else None

    @property
    def _shape(self) -> float:
        return (self.mean / self.deviation) ** 2

    @property
    def _scale(self) -> float:
        return self.deviation**2 / self.mean


def surely(before: np.ndarray, after: np.ndarray) -> float:
    """The distance of two samples as far as chance doesn't explain it: by the chi-squared law, its
    mean and three standard deviations are taken off."""
    freedom = int(np.count_nonzero(before + after)) - 1
    unit = (1 / float(before.sum()) + 1 / float(after.sum())) / (8 * log(2))
    luck = unit * (freedom + 3 * sqrt(2 * max(freedom, 0)))
    return sqrt(max(float(divergence(before, after)) - luck, 0.0))


def divergence(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of counts along the last axis; neither may be without rows."""
    contributions: np.ndarray = parts(before, after).sum(axis=-1)
    return contributions


def parts(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What each bin adds to the divergence, at least 0."""
    p = before / before.sum(axis=-1, keepdims=True)
    q = after / after.sum(axis=-1, keepdims=True)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log2(p / middle), 0.0)
        terms += np.where(q > 0, q * np.log2(q / middle), 0.0)
    return np.maximum(terms / 2, 0.0)


def chance(before: np.ndarray, after: np.ndarray, rng: np.random.Generator) -> Chance:
    """The divergence by chance of two samples as large as these from what they hold together.

    Of more than a hundred million rows it is that of a hundred million, which is no less.
    """
    pooled, drawn = (before + after).astype(np.int64), int(after.sum())
    pooled = pooled[pooled > 0]
    total = int(pooled.sum())
    if total > _MOST_ROWS:
        pooled = np.maximum((pooled * (_MOST_ROWS / total)).astype(np.int64), 1)
        drawn = max(int(drawn * (_MOST_ROWS / total)), 1)
    if len(pooled) < 2:
        return Chance(0.0, 0.0)
    deals = rng.multivariate_hypergeometric(pooled, drawn, size=DEALS, method="marginals")
    found = divergence(pooled - deals, deals)
    return Chance(float(found.mean()), float(found.std()))


def as_spreads(distance: float) -> float:
    """How many standard deviations apart two normals are at a distance; at most 10."""
    shifts, distances = _normals()
    return float(np.interp(distance, distances, shifts))


def as_share(distance: float) -> float:
    """The share of rows that turn into something new which makes a distance."""
    new, distances = _turned()
    return float(np.interp(distance, distances, new))


@cache
def _normals() -> tuple[np.ndarray, np.ndarray]:
    shifts = np.linspace(0, 10, 501)
    at = np.linspace(-6, 16, 1101)
    there = np.exp(-((at - shifts[:, None]) ** 2) / 2)
    return shifts, np.sqrt(divergence(np.broadcast_to(there[0], there.shape), there))


@cache
def _turned() -> tuple[np.ndarray, np.ndarray]:
    new = np.linspace(0, 1, 1001) ** 2  # the distance grows as its root
    before = np.broadcast_to([1.0, 0.0], (len(new), 2))
    return new, np.sqrt(divergence(before, np.column_stack([1 - new, new])))
