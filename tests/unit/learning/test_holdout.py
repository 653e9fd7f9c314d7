"""The rows estimators learn from, kept beside the evaluation's report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.contracts.errors import IntegrityError
from perennial.learning.holdout import HOLDOUT_ROWS, Holdout

RANDOM = np.random.default_rng(1)
Y = RANDOM.integers(0, 2, 50)
P = RANDOM.random(50).astype(np.float32)
X = RANDOM.normal(size=(50, 3)).astype(np.float32)
X[::7, 1] = np.nan


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_a_holdout_comes_back_from_parquet_bit_for_bit(objective: str, tmp_path: Path) -> None:
    p = np.column_stack([P, 1 - P]) if objective == "multiclass" else P
    kept = Holdout.sample(objective, Y, p, X, seed=1)
    pq.write_table(kept.to_table(), tmp_path / "holdout.parquet", row_group_size=20)
    read = Holdout.from_table(pq.read_table(tmp_path / "holdout.parquet"))
    assert read.objective == objective
    assert np.array_equal(read.y, Y)
    assert np.array_equal(read.p, p.astype(np.float64))
    if objective == "regression":
        assert read.x is not None
        assert read.x.dtype == np.float32
        assert np.array_equal(read.x, X, equal_nan=True)
    else:
        assert read.x is None


def test_many_rows_are_sampled_in_their_order_and_alike_by_seed() -> None:
    y = np.arange(HOLDOUT_ROWS + 5000) % 2
    p = np.linspace(0, 1, len(y))
    kept, again, other = (Holdout.sample("binary", y, p, None, seed=s) for s in (1, 1, 2))
    assert len(kept.y) == len(np.unique(kept.p)) == HOLDOUT_ROWS
    assert (np.diff(kept.p) > 0).all()
    assert np.array_equal(kept.p, again.p)
    assert not np.array_equal(kept.p, other.p)


def test_a_regression_needs_the_matrix_of_its_rows() -> None:
    for x in (None, X[1:]):
        with pytest.raises(ValueError, match="needs the matrix"):
            Holdout.sample("regression", Y, P, x, seed=1)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": [1]}),
        pa.table({"label": [1.0], "prediction": ["x"]}, metadata={"objective": "binary"}),
        pa.table({"label": [2.0], "prediction": [0.5]}, metadata={"objective": "binary"}),
        pa.table({"label": [1.0], "prediction": [None]}, metadata={"objective": "regression"}),
    ],
)
def test_another_table_is_no_holdout(table: pa.Table) -> None:
    with pytest.raises(IntegrityError, match="not a holdout"):
        Holdout.from_table(table)
