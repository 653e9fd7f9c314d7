"""A bundle's booster, asked by XGBoost's C function and not by ``Booster.inplace_predict``.

For a few rows that method spends more time in Python than in the trees (it looks for seven kinds of
data frame and makes a class to hand over the result). The values are the same.
"""

from __future__ import annotations

import ctypes
import json
import math

import numpy as np
import xgboost as xgb

from perennial.bundle.read import Bundle
from perennial.contracts.errors import IntegrityError, Problem

_ARGUMENTS = json.dumps(
    {
        "type": 0,  # as the objective gives them: probabilities, values
        "training": False,
        "iteration_begin": 0,
        "iteration_end": 0,  # all
        "missing": math.nan,
        "strict_shape": False,
        "cache_id": 0,
    }
).encode()
_MATRIX = b'{"data":[%d,true],"shape":[%d,%d],"strides":null,"typestr":"<f4","version":3}'


class Trees:
    """The head of a bundle that has a booster. Raises IntegrityError for one that can't be read."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._booster = _load_booster(bundle)
        self._booster.set_param({"device": "cpu", "nthread": threads})
        self.features: int = self._booster.num_features()

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        return predict(self._booster, matrix)


def predict(booster: xgb.Booster, matrix: np.ndarray) -> np.ndarray:
    """The booster's predictions for a float32 matrix in C order (rows, features), NaN where a value
    is missing: float32 (rows,) or (rows, classes). Safe in several threads at once.

    Raises XGBoostError when the booster can't predict with the matrix.
    """
    rows, features = matrix.shape
    described = _MATRIX % (matrix.ctypes.data, rows, features)
    lengths, result = ctypes.POINTER(ctypes.c_uint64)(), ctypes.POINTER(ctypes.c_float)()
    dimensions = ctypes.c_uint64()
    status = xgb.core._LIB.XGBoosterPredictFromDense(
        booster.handle,
        described,
        _ARGUMENTS,
        None,
        ctypes.byref(lengths),
        ctypes.byref(dimensions),
        ctypes.byref(result),
    )
    xgb.core._check_call(status)
    values = np.empty(lengths[: dimensions.value], dtype=np.float32)
    ctypes.memmove(values.ctypes.data, result, values.nbytes)  # this thread's until its next call
    return values


def _load_booster(bundle: Bundle) -> xgb.Booster:
    booster = xgb.Booster()
    try:
        booster.load_model(bytearray(bundle.booster))
    except xgb.core.XGBoostError as error:
        what = f"XGBoost can't read it: {str(error).strip().splitlines()[0]}"
        where = f"bundle {bundle.path}, booster.ubj"
        raise IntegrityError(Problem(where, what, "train again with this Perennial")) from None
    return booster
