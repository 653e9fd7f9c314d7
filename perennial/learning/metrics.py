"""The metrics of ``perennial.contracts.metrics``, over rows that may count several times.

One definition serves the point value (every row counts once) and the bootstrap (a row counts as
often as a resample drew it). Predictions ``p``: binary (n,) probability of the positive class,
multiclass (n, k), regression (n,). Labels ``y``: (n,) 0/1, the class's index, or the value.

* logloss clips the probability of the true class to [1.19e-7, 1 - 1.19e-7], the resolution of a
  float32 prediction, so that one saturated row costs 16 and not infinity.
* accuracy predicts the most probable class, on a tie the first (binary: positive above 0.5).
* roc_auc counts a tie between a positive and a negative as half (Mann-Whitney). Multiclass: one
  against the rest, macro mean over the classes present.
* pr_auc is average precision: the sum over thresholds of precision times the gain in recall, no
  interpolation; rows of equal score share a threshold.
* roc_auc and pr_auc are undefined where only one class is present, r2 where the label is constant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perennial.contracts.metrics import Objective, metrics_for

Array = NDArray[np.float64]

EPSILON = float(np.finfo(np.float32).eps)
"""Where logloss clips probabilities."""


class Statistic(Protocol):
    """Metrics that are computed together, of one model on one set of n rows."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(self, counts: Array) -> Array:
        """(c, n) how often each row counts → (c, len(names)); NaN where a metric is undefined."""
        ...


def scores(objective: Objective, y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Every metric of the objective that these rows define. Raises ValueError on NaN or shape."""
    values: dict[str, float] = {}
    for statistic in statistics(objective, y, p):
        row = statistic(np.ones((1, len(y))))[0]
        values |= {name: float(v) for name, v in zip(statistic.names, row, strict=True)}
    return {name: values[name] for name in metrics_for(objective) if not np.isnan(values[name])}


def statistics(
    objective: Objective, y: np.ndarray, p: np.ndarray, only: Collection[str] | None = None
) -> list[Statistic]:
    """What computes the metrics of an objective (those in ``only``) of predictions on n >= 1 rows.

    Raises ValueError when shapes don't agree, or a label or prediction is NaN or infinite.
    """
    y, p = checked(objective, y, p)
    if objective == "regression":
        found: list[Statistic] = [_errors(y, p)]
    elif objective == "binary":
        found = [_losses(y, np.column_stack([1 - p, p])), Ranks(y == 1, p)]
    else:
        found = [_losses(y, p), OneAgainstRest(y, p)]
    return [s for s in found if only is None or not set(only).isdisjoint(s.names)]


def rarer_labels(objective: Objective, y: np.ndarray) -> int | None:
    """How many labels are not of the commonest class: what a metric of rare classes rests on. None
    for a regression."""
    if objective == "regression":
        return None
    return len(y) - int(np.unique(y, return_counts=True)[1].max(initial=0))


def checked(objective: Objective, y: np.ndarray, p: np.ndarray) -> tuple[Array, Array]:
    """Labels and predictions as finite float64 arrays of the shapes the objective asks for."""
    y, p = np.asarray(y, np.float64), np.asarray(p, np.float64)
    if y.ndim != 1 or len(y) == 0 or len(y) != len(p):
        raise ValueError(f"labels {y.shape} and predictions {p.shape} are not of the same rows")
    if p.ndim != (2 if objective == "multiclass" else 1):
        raise ValueError(f"predictions of a {objective} model can't have the shape {p.shape}")
    for what, values in (("label", y), ("prediction", p)):
        if bad := int((~np.isfinite(values)).sum()):
            raise ValueError(f"{bad} of {values.size} {what} values are NaN or infinite")
    classes = {"binary": 2, "multiclass": p.shape[-1]}.get(objective)
    if classes and not (np.isin(y, np.arange(classes)).all() and 0 <= p.min() <= p.max() <= 1):
        raise ValueError(f"labels must be 0 to {classes - 1}, predictions probabilities")
    return y, p


class Means:
    """Metrics that are functions of the weighted means of per-row terms (n, t)."""

    def __init__(self, names: tuple[str, ...], terms: Array, finish: Callable[[Array], Array]):
        self.names = names
        self._centre = terms.mean(axis=0)
        self._terms = terms - self._centre
        self._finish = finish

    def __call__(self, counts: Array) -> Array:
        return self._finish(self._centre + counts @ self._terms / counts.sum(axis=1, keepdims=True))


def _losses(y: Array, p: Array) -> Means:
    """Terms of a classifier with probabilities (n, k)."""
    true = p[np.arange(len(y)), y.astype(np.intp)]
    logloss = -np.log(np.clip(true, EPSILON, 1 - EPSILON))
    terms = np.column_stack([logloss, (1 - true) ** 2, p.argmax(axis=1) == y])
    # For two classes (1 - true)^2 is the Brier score; for more it is not defined here.
    kept = (0, 1, 2) if p.shape[1] == 2 else (0, 2)
    names = tuple(("logloss", "brier", "accuracy")[i] for i in kept)
    return Means(names, terms[:, kept], lambda means: means)


def _errors(y: Array, p: Array) -> Means:
    """Terms of a regression. The label is centred, so that its variance keeps its digits."""
    error, label = p - y, y - y.mean()
    constant = float(np.ptp(y)) == 0

    def finish(means: Array) -> Array:
        squared, absolute, first, second = means.T
        variance = np.where(constant, 0.0, second - first**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            r2 = np.where(variance > 0, 1 - squared / variance, np.nan)
        return np.column_stack([np.sqrt(np.maximum(squared, 0)), absolute, r2])

    terms = np.column_stack([error**2, np.abs(error), label, label**2])
    return Means(("rmse", "mae", "r2"), terms, finish)


class Ranks:
    """roc_auc and pr_auc of scores (n,), whatever the weights, by one sort.

    For each positive row: ``below`` negatives score less and ``upto`` at most as much; positives
    from ``tied`` on score at least as much. Cumulated counts at these places give both metrics.
    """

    names = ("roc_auc", "pr_auc")

    def __init__(self, positive: NDArray[np.bool_], score: Array):
        order = np.argsort(score, kind="stable")
        self._positives, self._negatives = order[positive[order]], order[~positive[order]]
        p, n = score[self._positives], score[self._negatives]
        self._below = np.searchsorted(n, p, side="left")
        self._upto = np.searchsorted(n, p, side="right")
        self._tied = np.searchsorted(p, p, side="left")

    def __call__(self, counts: Array) -> Array:
        weight, below, negatives, auc = self._roc_auc(counts)
        cumulated = _cumulated(weight)
        positives = cumulated[:, -1]
        hits = positives[:, None] - cumulated[:, self._tied]
        alarms = hits + negatives[:, None] - below
        precision = hits / np.maximum(alarms, 1)  # without alarms the row's own weight is 0
        with np.errstate(divide="ignore", invalid="ignore"):
            average = np.einsum("ij,ij->i", weight, precision) / positives
        return np.column_stack([auc, np.where(np.isnan(auc), np.nan, average)])

    def roc_auc(self, counts: Array) -> Array:
        """(c, n) counts → (c,), without the work that only pr_auc needs."""
        return self._roc_auc(counts)[-1]

    def _roc_auc(self, counts: Array) -> tuple[Array, Array, Array, Array]:
        weight = np.take(counts, self._positives, axis=1)
        cumulated = _cumulated(np.take(counts, self._negatives, axis=1))
        negatives = cumulated[:, -1]
        below = cumulated[:, self._below]
        won = np.einsum("ij,ij->i", weight, below + cumulated[:, self._upto]) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            return weight, below, negatives, won / (weight.sum(axis=1) * negatives)


class OneAgainstRest:
    """roc_auc of probabilities (n, k): the mean over the classes that have rows."""

    names = ("roc_auc",)

    def __init__(self, y: Array, p: Array):
        self._ranks = [Ranks(y == k, p[:, k]) for k in np.unique(y).astype(int)]

    def __call__(self, counts: Array) -> Array:
        each = np.column_stack([ranks.roc_auc(counts) for ranks in self._ranks])
        defined = ~np.isnan(each)
        with np.errstate(invalid="ignore"):
            mean: Array = np.where(defined, each, 0).sum(axis=1) / defined.sum(axis=1)
        return mean[:, None]


def _cumulated(weights: Array) -> Array:
    """(c, m) → (c, m + 1): the sum of the first 0 … m weights."""
    sums = np.zeros((weights.shape[0], weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums
