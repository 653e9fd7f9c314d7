"""What a version's estimators learn from: rows it was not trained on, with label and prediction.

These are rows of the test part as the evaluation predicted them. Neither the bundle's reference
sample will do, which the booster was fitted to (its errors there are too small), nor the report's
calibration curve, whose ten points hide what lies between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from perennial.contracts.errors import IntegrityError, Problem
from perennial.contracts.metrics import Objective
from perennial.learning.metrics import checked

HOLDOUT_ROWS = 20_000
"""Most rows kept: more make calibrators and loss estimators hardly better."""
_LABEL, _PREDICTION, _FEATURES = "label", "prediction", "features"


@dataclass(frozen=True)
class Holdout:
    """``y`` (n,) and ``p`` (n,) or (n, classes) float64, as in ``perennial.learning.metrics``;
    ``x`` (n, features) float32 as the booster read it, NaN missing, kept for a regression only."""

    objective: Objective
    y: np.ndarray
    p: np.ndarray
    x: np.ndarray | None = None

    @classmethod
    def sample(
        cls,
        objective: Objective,
        y: np.ndarray,
        p: np.ndarray,
        x: np.ndarray | None,
        *,
        seed: int,
    ) -> Holdout:
        """At most 20,000 of the rows, in their order. ``x`` is needed for a regression, and ignored
        otherwise. Raises ValueError as ``metrics.checked`` does."""
        y, p = checked(objective, y, p)
        rows = np.arange(len(y))
        if len(rows) > HOLDOUT_ROWS:
            rows = np.sort(np.random.default_rng(seed).choice(rows, HOLDOUT_ROWS, replace=False))
        kept = None
        if objective == "regression":
            if x is None or len(x) != len(y):
                raise ValueError("the holdout of a regression needs the matrix of its rows")
            kept = np.asarray(x[rows], np.float32)
        return cls(objective, y[rows], p[rows], kept)

    def to_table(self) -> Any:
        """The holdout as an Arrow table, to be kept as Parquet beside the evaluation's report."""
        columns = {
            _LABEL: pa.array(self.y),
            _PREDICTION: pa.array(self.p) if self.p.ndim == 1 else _matrix(self.p),
        }
        if self.x is not None:
            columns[_FEATURES] = _matrix(self.x)
        return pa.table(columns, metadata={"objective": self.objective})

    @classmethod
    def from_table(cls, table: Any) -> Holdout:
        """What ``to_table`` made. Raises IntegrityError for anything else."""
        objective = (table.schema.metadata or {}).get(b"objective", b"").decode()
        table = table.combine_chunks()
        try:
            x = _array(table[_FEATURES]) if _FEATURES in table.column_names else None
            y, p = checked(objective, table[_LABEL].to_numpy(), _array(table[_PREDICTION]))
        except (KeyError, ValueError, pa.ArrowException) as error:
            what = f"not a holdout: {str(error).splitlines()[0][:200]}"
            raise IntegrityError(Problem("holdout", what, "evaluate the version again")) from None
        return cls(objective, y, p, x)


def _matrix(values: np.ndarray) -> Any:
    flat = pa.array(np.ascontiguousarray(values).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _array(column: Any) -> np.ndarray:
    """A column of numbers (n,), or of lists of equal length (n, k)."""
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy())
    width = column.type.list_size
    chunks = [np.asarray(chunk.flatten()).reshape(-1, width) for chunk in column.chunks]
    return np.concatenate(chunks) if chunks else np.empty((0, width))
