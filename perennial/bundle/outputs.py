"""Predictions as columns of a table: the same in the log, in shadows and in batch scoring."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa


def output_columns(classes: tuple[str, ...] | None, values: np.ndarray) -> dict[str, Any]:
    """Predictions, (n,) or (n, classes), as Arrow arrays by column.

    ``_prediction`` float64: the probability of the positive class (binary) or the value
    (regression), null in a multiclass model. ``_class`` string and ``_probabilities`` list of
    float64 (in the order of ``classes``): the most probable class, the first of equals, and the
    probability of each; null in the others. A float64 holds the booster's float32 exactly.
    """
    rows = len(values)
    if values.ndim == 1:
        return {
            "_prediction": pa.array(values.astype(np.float64)),
            "_class": pa.nulls(rows, pa.string()),
            "_probabilities": pa.nulls(rows, pa.list_(pa.float64())),
        }
    assert classes is not None
    most = pa.array(values.argmax(axis=1)) if rows else pa.array([], pa.int64())
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * values.shape[1])
    flat = pa.array(values.astype(np.float64).ravel())
    return {
        "_prediction": pa.nulls(rows, pa.float64()),
        "_class": pa.array(classes, pa.string()).take(most),
        "_probabilities": pa.ListArray.from_arrays(offsets, flat),
    }


def all_classes(each: Iterable[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """The classes of several versions in one order: the first one's, then those that only later
    ones know. None when none has any."""
    return tuple(dict.fromkeys(name for known in each for name in known or ())) or None


def aligned(
    values: np.ndarray, known: tuple[str, ...] | None, classes: tuple[str, ...] | None
) -> np.ndarray:
    """Probabilities (n, known) in the order of other classes, (n, classes): a class that the
    version never saw has probability 0. Those of the last of two classes (n,), where the other is
    last, of that one; other predictions (n,) as they are."""
    if known is None or classes is None or known == classes:
        return values
    if values.ndim == 1:
        return 1 - values if known == classes[::-1] else values
    found = np.zeros((len(values), len(classes)), dtype=values.dtype)
    for position, name in enumerate(classes):
        if name in known:
            found[:, position] = values[:, known.index(name)]
    return found
