"""The last step of a prediction: from the matrix of features to what is answered."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import xgboost as xgb

from perennial.bundle.read import Bundle
from perennial.bundle.trees import predict
from perennial.contracts.errors import IntegrityError, Problem
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
        return _Trees(bundle, threads)
    return _Mean(bundle.weights, bundle.class_count)


class _Trees:
    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._booster = _load_booster(bundle)
        self._booster.set_param({"device": "cpu", "nthread": threads})
        self.features: int = self._booster.num_features()

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        return predict(self._booster, matrix)


class _Mean:
    def __init__(self, weights: tuple[float, ...], classes: int | None) -> None:
        self._weights, self._classes = weights, classes
        self.features = len(weights) * (classes or 1)

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        return weighted_mean(matrix, self._weights, self._classes)


def _load_booster(bundle: Bundle) -> xgb.Booster:
    booster = xgb.Booster()
    try:
        booster.load_model(bytearray(bundle.booster))
    except xgb.core.XGBoostError as error:
        what = f"XGBoost can't read it: {str(error).strip().splitlines()[0]}"
        where = f"bundle {bundle.path}, booster.ubj"
        raise IntegrityError(Problem(where, what, "train again with this Perennial")) from None
    return booster
