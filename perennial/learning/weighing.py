"""The weights of a mean of several models' predictions."""

from __future__ import annotations

import numpy as np

from perennial.contracts.errors import PerennialError
from perennial.contracts.metrics import Objective
from perennial.learning.metrics import EPSILON

DECIMALS = 4
"""Of a weight. The loss is flat around its least; more digits would differ between machines."""


def fit_weights(objective: Objective, y: np.ndarray, predictions: np.ndarray) -> list[float]:
    """The weights, from 0 to 1 and of sum 1, whose mean of the predictions has the least log loss
    (classifiers) or mean squared error (regression) on these rows.

    ``predictions`` are (n, members), of a multiclass model (n, members, classes); ``y`` (n,) as
    training has it. Both losses are convex in the weights, so there is one least value; it is found
    by SciPy's SLSQP (Kraft 1988, "A software package for sequential quadratic programming").
    Raises PerennialError when it finds none.
    """
    from scipy.optimize import LinearConstraint, minimize

    p = np.asarray(predictions, np.float64)
    y = np.asarray(y, np.float64)
    if objective == "binary":
        likely = np.where(y[:, None] == 1, p, 1 - p)
    elif objective == "multiclass":
        likely = p[np.arange(len(y)), :, y.astype(np.int64)]
    else:
        spread = float(np.var(y)) or 1.0  # makes the size of the loss that of a classifier's

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        if objective == "regression":
            error = _mixed(p, weights) - y
            gradient = (2 / spread) * np.array([np.mean(error * column) for column in p.T])
            return float(np.mean(error**2) / spread), gradient
        mixed = _mixed(likely, weights)
        kept = np.maximum(mixed, EPSILON)
        gradient = np.array([-np.mean((mixed > EPSILON) * column / kept) for column in likely.T])
        return float(-np.mean(np.log(kept))), gradient

    members = p.shape[1]
    even = np.full(members, 1 / members)
    found = minimize(
        loss,
        even,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * members,
        constraints=LinearConstraint(np.ones((1, members)), 1.0, 1.0),
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    if not np.isfinite(found.x).all() or loss(found.x)[0] > loss(even)[0] + 1e-9:
        raise PerennialError(f"no weights for the members were found: {found.message}")
    return _rounded(np.clip(found.x, 0, 1))


def _mixed(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Summed column by column: BLAS would round by the number of threads."""
    total = np.zeros(len(columns))
    for place, weight in enumerate(weights):
        total += columns[:, place] * weight
    return total


def _rounded(weights: np.ndarray) -> list[float]:
    """To DECIMALS and a sum of 1; the greatest weight takes what is over."""
    rounded = np.round(weights / weights.sum(), DECIMALS)
    greatest = int(np.argmax(rounded))
    rounded[greatest] = round(1 - float(np.delete(rounded, greatest).sum()), DECIMALS)
    return [float(weight) for weight in rounded]
