"""The last step of a prediction: from the matrix of features to what is answered."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from perennial.bundle.read import Bundle
from perennial.data.mean import weighted_mean


class Head(Protocol):
    """``features`` is how many columns the matrix has. Safe to share between threads."""

    features: int

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """float32 (rows,) or (rows, classes) of a float32 matrix in C order, of a row at least."""
        ...


def head_of(bundle: Bundle, threads: int) -> Head:
    """What a bundle predicts by. Raises IntegrityError for a booster that can't be read."""
    if bundle.weights is None:
        from perennial.bundle.trees import Trees  # XGBoost is half of what a process imports

        return Trees(bundle, threads)
    return _Mean(bundle.weights, bundle.class_count)


class _Mean:
    def __init__(self, weights: tuple[float, ...], classes: int | None) -> None:
        self._weights, self._classes = weights, classes
        self.features = len(weights) * (classes or 1)

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        return weighted_mean(matrix, self._weights, self._classes)
