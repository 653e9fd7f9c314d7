"""The model matrix as XGBoost reads it: quantised once, and shared by all who train on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xgboost as xgb

from perennial.contracts.features import FeatureSchema

Fitting = Literal["train", "train+validation"]

MAX_BIN = 256
"""XGBoost's own default number of bins a feature."""

_FORBIDDEN_IN_NAMES = str.maketrans("[]<", "()‹")
"""XGBoost refuses these three in a feature's name."""


@dataclass(frozen=True)
class Matrices:
    """The training and the validation part.

    ``x_*`` float32 (rows, features): a category is its position in the feature's levels, NaN is
    missing. ``y_*`` float32 (rows,): 0/1, the position of the class, or the value. Arrays may be
    mapped from disk (np.memmap): they are read, never copied or changed.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    schema: FeatureSchema

    @property
    def feature_names(self) -> list[str]:
        """As the booster keeps them: the schema's, with brackets and ``<`` replaced."""
        return [f.name.translate(_FORBIDDEN_IN_NAMES) for f in self.schema.features]

    @property
    def feature_types(self) -> list[str]:
        """XGBoost's type of each feature: ``c`` has levels, ``q`` is a quantity."""
        return ["q" if f.levels is None else "c" for f in self.schema.features]


def quantised(
    matrices: Matrices, max_bin: int, threads: int
) -> tuple[xgb.QuantileDMatrix, xgb.QuantileDMatrix]:
    """The training part in bins, and the validation part in the same bins.

    Both may be shared by boosters that train side by side in threads; their trees are the same as
    alone, whatever ``threads`` is.
    """
    train = _quantile_matrix(
        matrices, [(matrices.x_train, matrices.y_train)], max_bin=max_bin, threads=threads
    )
    validation = _quantile_matrix(
        matrices,
        [(matrices.x_validation, matrices.y_validation)],
        max_bin=max_bin,
        threads=threads,
        ref=train,
    )
    return train, validation


def quantised_for_fitting(
    matrices: Matrices, part: Fitting, max_bin: int, threads: int
) -> xgb.QuantileDMatrix:
    """The rows a final booster is fitted to, in bins, without a copy of both parts together."""
    batches = [(matrices.x_train, matrices.y_train)]
    if part == "train+validation":
        batches.append((matrices.x_validation, matrices.y_validation))
    return _quantile_matrix(matrices, batches, max_bin=max_bin, threads=threads)


def _quantile_matrix(
    matrices: Matrices,
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    max_bin: int,
    threads: int,
    ref: xgb.QuantileDMatrix | None = None,
) -> xgb.QuantileDMatrix:
    return xgb.QuantileDMatrix(
        _Batches(batches, matrices.feature_names, matrices.feature_types),
        max_bin=max_bin,
        ref=ref,
        nthread=threads,
        enable_categorical=True,
    )


class _Batches(xgb.DataIter):  # type: ignore[misc]  # xgboost has no types
    """Hands XGBoost the parts one after the other, as often as it asks."""

    def __init__(
        self,
        batches: Sequence[tuple[np.ndarray, np.ndarray]],
        names: list[str],
        types: list[str],
    ) -> None:
        super().__init__()
        self._batches = batches
        self._columns = {"feature_names": names, "feature_types": types}
        self._next = 0

    def next(self, input_data: Callable[..., Any]) -> bool:
        if self._next == len(self._batches):
            return False
        x, y = self._batches[self._next]
        input_data(data=x, label=y, **self._columns)
        self._next += 1
        return True

    def reset(self) -> None:
        self._next = 0
