"""How much less rows say that come in clusters: the flights of a day share its weather.

Intervals of metrics take rows as independent. Of rows that are alike within a stretch of time, the
mean loss scatters as if there were fewer of them: by the design effect 1 + (m - 1) rho (Kish,
Survey Sampling, 1965), m rows a stretch with intraclass correlation rho. It is measured on the
losses of labelled rows, by how far the sums of stretches lie from what independent rows would have
(the cluster-robust variance of a mean); few stretches tell it roughly, so Student's t takes the
normal's place for what they add (as in Cameron and Miller, Journal of Human Resources 50, 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from scipy.special import stdtrit

from perennial.contracts.metrics import Objective
from perennial.contracts.verdicts import Estimate
from perennial.learning.metrics import EPSILON

_FEWEST_DAYS = 3
_STRETCHES = 8
_NORMAL = 1.959964
_FEWEST_ROWS = 30
_ROUNDING = 1e-20


@dataclass(frozen=True)
class Clustering:
    """``stretches`` of time that hold rows, ``likeness`` of the losses within one (rho, 0 to 1),
    and ``widening``, by which an interval of these rows' metrics must be wider."""

    stretches: int
    likeness: float
    widening: float

    def widening_of(self, rows: int, stretches: float) -> float:
        """The same for other rows that are as alike, over another number of stretches."""
        if stretches <= 1 or rows <= stretches:
            return 1.0
        return _widening(1 + (rows / stretches - 1) * self.likeness, stretches)


def clustering(objective: Objective, y: np.ndarray, p: np.ndarray, times: np.ndarray) -> Clustering:
    """What labelled rows say of it: labels and predictions as in ``metrics``, datetime64 ``times``
    (n,) of when each happened.

    Stretches are the days (UTC); rows of less than three days are cut into eight equal stretches of
    their time, which can't show that days differ. Of fewer than 30 rows nothing is said.
    """
    losses = _losses(objective, y, p)
    place = _stretches(times)
    stretches = int(place.max()) + 1 if len(place) else 0
    if len(losses) < _FEWEST_ROWS or stretches < 2:
        return Clustering(stretches, 0.0, 1.0)
    off = losses - losses.mean()
    alone = float(np.square(off).sum())
    if not alone > _ROUNDING * float(np.square(losses).sum()):  # all losses are the same
        return Clustering(stretches, 0.0, 1.0)
    together = float(np.square(np.bincount(place, off, stretches)).sum())
    effect = together / alone * stretches / (stretches - 1)
    sizes = np.bincount(place, minlength=stretches)
    rows = float(np.square(sizes).sum()) / len(losses)  # in the stretch of a row, on average
    likeness = min(max((effect - 1) / (rows - 1), 0.0), 1.0) if rows > 1 else 0.0
    return Clustering(stretches, likeness, _widening(effect, stretches))


def widened(estimates: Sequence[Estimate], factor: float) -> tuple[Estimate, ...]:
    """Estimates whose intervals reach so many times as far to either side."""
    return tuple(
        e.model_copy(
            update={
                "low": e.value - factor * (e.value - e.low),
                "high": e.value + factor * (e.high - e.value),
            }
        )
        for e in estimates
    )


def _widening(effect: float, stretches: float) -> float:
    student = float(stdtrit(stretches - 1, 0.975)) / _NORMAL
    return sqrt(1 + student**2 * max(effect - 1, 0.0))


def _losses(objective: Objective, y: np.ndarray, p: np.ndarray) -> Any:
    if objective == "regression":
        return np.square(y - p)
    true = np.where(y == 1, p, 1 - p) if p.ndim == 1 else p[np.arange(len(y)), y.astype(int)]
    return -np.log(np.clip(true, EPSILON, 1 - EPSILON))


def _stretches(times: np.ndarray) -> np.ndarray:
    """The number of each row's stretch, those without rows left out."""
    if not len(times):
        return np.empty(0, int)
    found, place = np.unique(times.astype("datetime64[D]"), return_inverse=True)
    if len(found) < _FEWEST_DAYS:
        micros = times.astype("datetime64[us]").astype(np.int64)
        span = int(micros.max() - micros.min()) + 1
        parts = (micros - micros.min()) * _STRETCHES // span
        _, place = np.unique(parts, return_inverse=True)
    return np.asarray(place)
