"""Intervals of metrics by the bootstrap over rows: resamples of n of n rows with replacement.

What a ``confidence`` means here:

* of an **estimate**: two-sided. At 0.95 the interval holds the central 95 % of the resamples.
* of a **comparison**: one-sided, of each bound taken alone. At 0.95 the true gain is above ``low``
  with 95 % confidence, and below ``high`` with 95 % confidence; between them lie 90 %. So a
  challenger that is no better passes ``low > 0`` in about 1 of 20 evaluations.

Intervals are percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
section 13.3); a comparison is paired, both models being scored on the same resamples. Slices, whose
bounds gates move far into the tail to correct for their number, get the standard normal interval
with the bootstrap's standard error (13.2), which a few hundred resamples settle.

Rows are resampled one by one, as independent. Where they come in clusters (the flights of a day
share its weather) the intervals are too narrow: ask for more confidence, or a longer test part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from perennial.contracts.metrics import METRICS, Objective, metrics_for
from perennial.contracts.verdicts import Comparison, Estimate
from perennial.learning.metrics import Array, statistics

_CELLS = 2**18
"""Counts held at a time (2 MiB, so that a chunk stays in the processor's cache)."""
_MAX_UNDEFINED = 0.05
"""A metric that more of the resamples leave undefined (a class of one or two rows) has no
interval."""


@dataclass(frozen=True)
class Scores:
    """The metrics of one model on n rows: point values, and one value a resample.

    ``values[name]`` is a number, ``resampled[name]`` (replicates,) with NaN where a resample leaves
    the metric undefined. Metrics that the rows leave undefined are absent.
    """

    n: int
    values: dict[str, float]
    resampled: dict[str, Array]

    def estimate(self, metric: str, confidence: float = 0.95) -> Estimate | None:
        """The metric with its two-sided interval; None where it can't be estimated."""
        if not self._measurable(metric):
            return None
        tail = (1 - confidence) / 2
        low, high = np.nanquantile(self.resampled[metric], [tail, 1 - tail])
        value = self.values[metric]
        return Estimate(metric=metric, value=value, low=float(low), high=float(high), n=self.n)

    def estimates(self, confidence: float = 0.95) -> tuple[Estimate, ...]:
        """Every metric that can be estimated, with its two-sided interval."""
        found = (self.estimate(metric, confidence) for metric in self.values)
        return tuple(estimate for estimate in found if estimate is not None)

    def against(
        self, champion: Scores, metric: str, confidence: float, *, normal: bool = False
    ) -> Comparison | None:
        """This model's gain over a champion scored by the same call of ``score``.

        ``low`` and ``high`` are one-sided bounds at ``confidence`` each; with ``normal`` they are
        ``gain -/+ z * standard error``. None where the metric can't be estimated.
        """
        if not (self._measurable(metric) and champion._measurable(metric)):
            return None
        sign = 1.0 if METRICS[metric].greater_is_better else -1.0
        gains = sign * (self.resampled[metric] - champion.resampled[metric])
        gain = sign * (self.values[metric] - champion.values[metric])
        if normal:
            reach = NormalDist().inv_cdf(confidence) * float(np.nanstd(gains))
            low, high = gain - reach, gain + reach
        else:
            low, high = map(float, np.nanquantile(gains, [1 - confidence, confidence]))
        return Comparison(
            metric=metric,
            champion=champion.values[metric],
            challenger=self.values[metric],
            gain=gain,
            low=low,
            high=high,
            confidence=confidence,
            n=self.n,
        )

    def _measurable(self, metric: str) -> bool:
        if metric not in self.values or self.n < 2:
            return False
        return float(np.isnan(self.resampled[metric]).mean()) <= _MAX_UNDEFINED


def score(
    objective: Objective,
    y: np.ndarray,
    predictions: Sequence[np.ndarray],
    *,
    seed: int,
    replicates: int,
    only: Collection[str] | None = None,
) -> tuple[Scores, ...]:
    """Score models on the same n >= 1 rows and the same resamples, one ``Scores`` a prediction.

    Labels (n,) and predictions as in ``perennial.learning.metrics``; ``only`` restricts the
    metrics. Raises ValueError as ``statistics`` does. The same seed gives the same resamples.
    """
    models = [statistics(objective, y, p, only) for p in predictions]
    ones = np.ones((1, len(y)))
    points = [np.hstack([s(ones) for s in model])[0] for model in models]
    replicated = [np.empty((replicates, len(point))) for point in points]
    done = 0
    for counts in _resamples(len(y), replicates, seed):
        rows = slice(done, done + len(counts))
        for model, block in zip(models, replicated, strict=True):
            block[rows] = np.hstack([s(counts) for s in model])
        done += len(counts)

    def collected(model: int) -> Scores:
        columns = {name: i for i, name in enumerate(n for s in models[model] for n in s.names)}
        names = [
            name
            for name in metrics_for(objective)
            if (only is None or name in only) and not np.isnan(points[model][columns[name]])
        ]
        return Scores(
            n=len(y),
            values={name: float(points[model][columns[name]]) for name in names},
            resampled={name: replicated[model][:, columns[name]] for name in names},
        )

    return tuple(collected(model) for model in range(len(models)))


def _resamples(n: int, replicates: int, seed: int) -> Iterator[Array]:
    """Multinomial counts (c, n), ``replicates`` rows in all, in chunks of bounded size.

    The draws don't depend on the size of the chunks.
    """
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS // n)
    for start in range(0, replicates, at_once):
        counts = np.empty((min(at_once, replicates - start), n))
        for row in counts:
            row[:] = np.bincount(generator.integers(0, n, n), minlength=n)
        yield counts
