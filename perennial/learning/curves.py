"""What a report draws of predictions on a holdout: calibration, ROC, PR, residuals.

Labels and predictions as in ``perennial.learning.metrics``, finite. Curves have at most 200 points,
in six significant digits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perennial.contracts.metrics import Objective
from perennial.contracts.verdicts import CalibrationBin, Curve
from perennial.learning.metrics import Array

MAX_POINTS = 200
_BINS = 10
_MOST_BARS = 40


def calibration(objective: Objective, y: Array, p: Array) -> tuple[CalibrationBin, ...]:
    """Mean prediction against mean observation in at most ten bins of about equal rows.

    Binary: probability against the share of positives. Multiclass: the probability of the predicted
    class against how often it was right. Regression: prediction against label. Equal predictions
    share a bin.
    """
    if objective == "multiclass":
        y, p = (p.argmax(axis=1) == y).astype(np.float64), p.max(axis=1)
    edges = np.unique(np.quantile(p, np.linspace(0, 1, _BINS + 1)[1:-1]))
    at = np.digitize(p, edges)
    rows = np.bincount(at)
    predicted, observed = np.bincount(at, weights=p), np.bincount(at, weights=y)
    return tuple(
        CalibrationBin(predicted=float(predicted[i] / n), observed=float(observed[i] / n), n=int(n))
        for i, n in enumerate(rows)
        if n
    )


def curves(objective: Objective, y: Array, p: Array, other: Array | None) -> tuple[Curve, ...]:
    """The curves of one model; ``other`` are the model's beside it, so that bars share their edges.

    Binary: ROC and precision-recall. Multiclass: ROC, the mean over one class against the rest.
    None where only one class is present. Regression: residuals, and prediction against label.
    """
    if objective == "regression":
        return (_residuals(y, p, other), _scatter(y, p))
    if len(np.unique(y)) < 2:
        return ()
    if objective == "multiclass":
        return (_macro_roc(y, p),)
    hits, alarms = _confusions(y == 1, p)
    total, others = hits[-1], alarms[-1]
    return (
        _roc(alarms / others, hits / total, "ROC"),
        _precision_recall(hits / total, hits / (hits + alarms)),
    )


def _confusions(positive: NDArray[np.bool_], score: Array) -> tuple[Array, Array]:
    """True and false positives at each distinct threshold, from the strictest down."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(positive[order])[last]
    return hits.astype(np.float64), (last + 1 - hits).astype(np.float64)


def _roc(false: Array, true: Array, name: str) -> Curve:
    false, true = np.append(0.0, false), np.append(0.0, true)
    at = _spread(false + true)  # along both axes: a steep start needs points as well
    return _curve(name, "False positive rate", "True positive rate", false[at], true[at])


def _precision_recall(recall: Array, precision: Array) -> Curve:
    at = _spread(recall)
    return _curve("Precision-recall", "Recall", "Precision", recall[at], precision[at])


def _macro_roc(y: Array, p: Array) -> Curve:
    grid = np.linspace(0, 1, MAX_POINTS - 1)
    lines = []
    for k in np.unique(y).astype(int):
        hits, alarms = _confusions(y == k, p[:, k])
        false, true = np.append(0.0, alarms / alarms[-1]), np.append(0.0, hits / hits[-1])
        lines.append(np.interp(grid, false, true))
    return _roc(grid, np.mean(lines, axis=0), "ROC, mean over classes")


def _residuals(y: Array, p: Array, other: Array | None) -> Curve:
    """Shares of rows in bars between the 1 % and 99 % quantiles; the outer bars hold the tails."""
    both = y - p if other is None else np.concatenate([y - p, y - other])
    low, high = np.quantile(both, [0.01, 0.99])
    if high - low <= 1e-4 * max(abs(low), abs(high)):  # nearly equal: six digits can't tell
        low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
    edges = np.linspace(low, high, int(np.clip(np.sqrt(len(y)), 8, _MOST_BARS)) + 1)
    rows, _ = np.histogram(np.clip(y - p, low, high), bins=edges)
    middles = (edges[1:] + edges[:-1]) / 2
    return _curve("Residuals", "Observed - predicted", "Share of rows", middles, rows / len(y))


def _scatter(y: Array, p: Array) -> Curve:
    """Rows at even steps in the order of their prediction."""
    order = np.lexsort((y, p))
    at = np.unique(np.linspace(0, len(y) - 1, min(len(y), MAX_POINTS)).round().astype(int))
    return _curve("Rows", "Predicted", "Observed", p[order[at]], y[order[at]])


def _spread(along: Array) -> NDArray[np.intp]:
    """Positions of at most 200 points at even steps of a quantity that never falls, ends kept."""
    if len(along) <= MAX_POINTS:
        return np.arange(len(along))
    steps = np.linspace(along[0], along[-1], MAX_POINTS - 1)
    found = np.searchsorted(along, steps)
    return np.unique(np.append(np.minimum(found, len(along) - 1), len(along) - 1))


def _curve(name: str, x_label: str, y_label: str, x: Array, y: Array) -> Curve:
    return Curve(name=name, x_label=x_label, y_label=y_label, x=_shortened(x), y=_shortened(y))


def _shortened(values: Array) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
