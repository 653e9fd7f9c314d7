"""Predicted probabilities as true ones: a map from score to share of positives, learnt on holdout
rows.

Platt's sigmoid (Platt, Probabilistic Outputs for Support Vector Machines, 1999), on the score's
logit, has two parameters and is right for boosted trees that are mostly too sure or too timid;
isotonic regression (Zadrozny and Elkan, KDD 2002) fits any rising curve and needs more rows
(Niculescu-Mizil and Caruana, ICML 2005). Which of them, the rows decide by cross-validation.
Several classes are calibrated one against the rest and normalised (Zadrozny and Elkan).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from perennial.learning.metrics import EPSILON, Array

Method = Literal["sigmoid", "isotonic"]
_METHODS: tuple[Method, Method] = ("sigmoid", "isotonic")
Curve = Callable[[Array], Array]

_FOLDS = 5
_LEAST_OF_A_CLASS = 10
"""Rows a class needs, and its rest, to be calibrated; scores of a rarer one are taken as they
are."""


def choose_method(y: Array, p: Array, *, seed: int) -> Method:
    """Isotonic regression where its cross-validated logloss is less than the sigmoid's by more than
    a standard error of their difference, for labels (n,) and probabilities (n, k); else the sigmoid
    (the one-standard-error rule of Breiman et al., Classification and Regression Trees, 1984).
    """
    fold = np.random.default_rng(seed).permutation(len(y)) % _FOLDS
    gains = np.empty(len(y))
    for number in range(_FOLDS):
        inside, out = (fold != number).astype(np.float64), fold == number
        sigmoid, isotonic = (
            fit_calibration(method, y, p, inside)(p[out])[
                np.arange(out.sum()), y[out].astype(np.intp)
            ]
            for method in _METHODS
        )
        gains[out] = np.log(isotonic) - np.log(sigmoid)
    error = float(gains.std()) / len(y) ** 0.5
    return "isotonic" if gains.mean() > error else "sigmoid"


def fit_calibration(method: Method, y: Array, p: Array, counts: Array) -> Curve:
    """A map of probabilities (m, k) to calibrated ones (m, k) whose rows sum to 1.

    ``y`` (n,) are class numbers, ``p`` (n, k) probabilities, ``counts`` (n,) how often each row
    counts. No event is impossible: calibrated values stay off 0 and 1 by half a row.
    """
    kept = counts > 0
    y, p, counts = y[kept], p[kept], counts[kept]
    classes = p.shape[1]
    fit = _sigmoid if method == "sigmoid" else _isotonic
    fitted = range(1, 2) if classes == 2 else range(classes)  # of two, one says it all
    curves = {k: _one_against_rest(fit, y == k, p[:, k], counts) for k in fitted}
    margin = 0.5 / (counts.sum() + 1)

    def calibrated(scores: Array) -> Array:
        columns = [np.clip(curve(scores[:, k]), margin, 1 - margin) for k, curve in curves.items()]
        if classes == 2:
            return np.column_stack([1 - columns[0], columns[0]])
        values = np.column_stack(columns)
        normalised: Array = values / values.sum(axis=1, keepdims=True)
        return normalised

    return calibrated


def _one_against_rest(
    fit: Callable[[Array, Array, Array], Curve], positive: Array, p: Array, counts: Array
) -> Curve:
    rows = float(counts @ positive)
    if min(rows, float(counts.sum()) - rows) < _LEAST_OF_A_CLASS:
        return lambda scores: scores
    return fit(positive, p, counts)


def _sigmoid(positive: Array, p: Array, counts: Array) -> Curve:
    from sklearn.linear_model import LogisticRegression

    # The default penalty is next to nothing beside hundreds of rows, and keeps the slope finite
    # where the scores part the classes.
    model = LogisticRegression(solver="newton-cholesky")
    model.fit(_logit(p)[:, None], positive, sample_weight=counts)

    def curve(scores: Array) -> Array:
        values: Array = model.predict_proba(_logit(scores)[:, None])[:, 1]
        return values

    return curve


def _isotonic(positive: Array, p: Array, counts: Array) -> Curve:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(out_of_bounds="clip").fit(
        p, positive.astype(np.float64), sample_weight=counts
    )

    def curve(scores: Array) -> Array:
        values: Array = model.predict(scores)
        return values

    return curve


def _logit(p: Array) -> Array:
    inside = np.clip(p, EPSILON, 1 - EPSILON)
    logit: Array = np.log(inside / (1 - inside))
    return logit
