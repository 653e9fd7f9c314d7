"""Predict with a booster by XGBoost's C function, without ``Booster.inplace_predict``'s detour.

For a few rows that method spends more time in Python than in the trees (it looks for seven kinds of
data frame and makes a class to hand over the result). The values are the same.
"""

from __future__ import annotations

import ctypes
import json
import math

import numpy as np
import xgboost as xgb

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
