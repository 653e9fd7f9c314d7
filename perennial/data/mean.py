"""The weighted mean of members' predictions: one sum for training and serving."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def weighted_mean(
    matrix: np.ndarray, weights: Sequence[float], classes: int | None = None
) -> np.ndarray:
    """Predictions float32 (n,) of a float32 matrix (n, members); with ``classes`` (n, classes) of
    one (n, members * classes) that holds a member's classes side by side.

    Summed member by member in float64, so that a row's value doesn't depend on its table. The
    weights may have any positive sum.
    """
    width = 1 if classes is None else classes
    total = np.zeros((len(matrix), width))
    for place, weight in enumerate(weights):
        total += matrix[:, place * width : (place + 1) * width] * np.float64(weight)
    mean = (total / float(sum(weights))).astype(np.float32)
    return mean[:, 0] if classes is None else mean
