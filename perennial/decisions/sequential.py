"""Intervals that hold at every look at once, so that one may look whenever and stop when sure.

An interval of a fixed size is right for one look; one that is looked at again and again until it
says what one waited for is wrong far more often than it claims. A confidence sequence (Robbins
1970; Howard, Ramdas, McAuliffe and Sekhon, arXiv 1810.08240) holds the truth at *all* sample sizes
together with probability at least ``1 - alpha``. How often it is looked at, and why one stops, then
doesn't matter; that deploying in steps may rest on this is shown by Lindon, Sanden and Shirikian
(arXiv 2205.14762).

Each needs only what is known now (counts, means, variances, the values so far), no history. Rows
count as independent draws.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, expm1, inf, isfinite, lgamma, log, log1p, sqrt

import numpy as np

_PRIORS = ((1.0, 1.0), (1.0, 30.0))  # Beta: any rate, and rates of a few percent
_TIGHTEST = 1_000  # rows an arm at which a difference of means is known best for its alpha
_FIRST = 50  # rows from which the band of a distribution holds; fewer could tell nothing
_BISECTIONS = 60


def bernoulli_bounds(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """The rate of something that happened ``successes`` times in ``n``: lowest and highest.

    A mixture over rates (Robbins 1970; Howard et al., arXiv 1810.08240): the likelihood of the rows
    on average over the mixture, divided by that at the true rate, is a martingale that starts at 1,
    so by Ville's inequality it ever exceeds ``1 / alpha`` with probability ``alpha`` at most. The
    interval is of all rates at which it does not now. Exact at every n. Half of the mixture is
    uniform, half leans to the few percent that failures come in.

    ``(0, 1)`` for n = 0. Raises ValueError unless 0 <= successes <= n and 0 < alpha < 1.
    """
    _check_alpha(alpha)
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} are not possible")
    failures = n - successes
    mixed = _log_mean_exp(
        [_log_beta(a + successes, b + failures) - _log_beta(a, b) for a, b in _PRIORS]
    )

    def excluded(rate: float) -> bool:
        likelihood = successes * log(rate) + failures * log1p(-rate)
        return mixed - likelihood >= -log(alpha)

    at = successes / n if n else 0.5
    low = _last(excluded, 0.0, at) if successes else 0.0
    high = _last(excluded, 1.0, at) if failures else 1.0
    return low, high


def difference_bounds(
    mean1: float, var1: float, n1: int, mean0: float, var0: float, n0: int, alpha: float
) -> tuple[float, float]:
    """``mean1 - mean0`` of two groups of rows: lowest and highest.

    Means and sample variances (ddof 1) of ``n1`` and ``n0`` rows. An asymptotic confidence sequence
    (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, arXiv 2103.06476): a mixture of normals over
    differences, for rows of any distribution with a variance. Two things make it hold from the
    first rows on, where the asymptotic one does not:

    - The t statistic's mixture instead of the normal's (Lindon, Ham, Tingley and Bojinov, arXiv
      2210.08589, and for one sample Wang and Ramdas, arXiv 2310.03722). It is exact for normal rows
      of equal variance at every n, infinite while there are too few, and the same later on.
    - Both groups are taken to vary as the one that varies more. A small group that has not yet seen
      a rare value (a purchase in a hundred visits) otherwise looks as if it knew its mean exactly:
      beside a large one, up to half of such rollouts without a difference alarm.

    A group of fewer than two rows, or anything not finite: ``(-inf, inf)``. Raises ValueError
    unless 0 < alpha < 1 and variances are not negative.
    """
    _check_alpha(alpha)
    if var1 < 0 or var0 < 0:
        raise ValueError(f"a variance is negative: {var1}, {var0}")
    if min(n1, n0) < 2 or not all(map(isfinite, (mean1, var1, mean0, var0))):
        return -inf, inf
    rows, freedom = n1 * n0 / (n1 + n0), n1 + n0 - 2
    reach = _t_reach(rows, freedom, alpha)
    if reach == inf:  # whatever the variance is, if 0 too
        return -inf, inf
    difference, radius = mean1 - mean0, reach * sqrt(max(var1, var0) / rows)
    return difference - radius, difference + radius


def distribution_bounds(
    values1: np.ndarray, values0: np.ndarray, alpha: float
) -> tuple[float, float, float]:
    """The largest distance of two cumulative distributions: its value, lowest and highest.

    ``values1`` and ``values0`` are one-dimensional, in any order, of any distribution with any
    ties; NaN counts as a value above all others. 0 when they are distributed alike, 1 when all of
    one lie below all of the other. The value is that of the samples (Kolmogorov and Smirnov's
    statistic); the bounds are from a band for each at half of ``alpha``.

    Sorting decides the time: some 50 ms for 100,000 values each. An empty side: value 0, bounds 0
    and 1. Raises ValueError unless 0 < alpha < 1.
    """
    _check_alpha(alpha)
    band = distribution_band(len(values1), alpha / 2) + distribution_band(len(values0), alpha / 2)
    if not (len(values1) and len(values0)):
        return 0.0, 0.0, 1.0
    sorted1, sorted0 = np.sort(values1), np.sort(values0)
    apart = 0.0
    for at in (sorted1, sorted0):  # between its jumps a cumulative distribution stays
        below1 = np.searchsorted(sorted1, at, side="right") / len(sorted1)
        below0 = np.searchsorted(sorted0, at, side="right") / len(sorted0)
        apart = max(apart, float(np.abs(below1 - below0).max()))
    return apart, max(apart - band, 0.0), min(apart + band, 1.0)


def distribution_band(n: int, alpha: float) -> float:
    """How far the cumulative distribution of ``n`` values may be, anywhere, from the true one.

    The inequality of Dvoretzky, Kiefer, Wolfowitz and Massart at all n >= m at once (Howard and
    Ramdas, arXiv 1906.09712, theorem 2 with the constants of its corollary: A = 0.85, C = 0.8
    log(1612 / alpha)), m = 50. 1, which says nothing, below that. Raises ValueError unless
    0 < alpha < 1.
    """
    _check_alpha(alpha)
    if n < _FIRST:
        return 1.0
    return min(0.85 * sqrt((log(1 + log(n / _FIRST)) + 0.8 * log(1612 / alpha)) / n), 1.0)


def _t_reach(rows: float, freedom: int, alpha: float) -> float:
    """The t statistic beyond which its mixture exceeds 1 / alpha.

    The mixture is over differences that are normal with the rows' variance divided by ``prior``,
    the one that is best for ``alpha`` at so many rows an arm (arXiv 2103.06476).
    """
    sure = -2 * log(alpha)
    prior = (_TIGHTEST / 2) / (sure + log1p(sure))
    shrunk = log(prior / (prior + rows))
    exponent = (shrunk - sure) / (freedom + 1)
    if exponent <= shrunk:  # no t is enough
        return inf
    return sqrt(freedom * -expm1(exponent) / (exp(exponent) - exp(shrunk)))


def _last(excluded: Callable[[float], bool], outer: float, inner: float) -> float:
    """The last excluded number on the way from ``outer``, which is, to ``inner``, which isn't."""
    for _ in range(_BISECTIONS):
        middle = (outer + inner) / 2
        if excluded(middle):
            outer = middle
        else:
            inner = middle
    return outer


def _log_mean_exp(logs: list[float]) -> float:
    most = max(logs)
    return most + log(sum(exp(value - most) for value in logs) / len(logs))


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha} is not between 0 and 1")
