"""Metrics of production rows whose labels have come."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from perennial.learning.metrics import scores
from perennial.learning.realised import Outputs, read_outputs, realise
from perennial.spec.schema import ModelSpec


def spec(objective: str) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "m",
            "objective": objective,
            "source": {"kind": "csv", "uri": "x.csv"},
            "label": {"column": "y"},
            "columns": {"shop": {"type": "category"}},
            "split": {"kind": "random", "validation": 0.2, "test": 0.2},
            "gates": [{"slices": ["shop"], "metric": "logloss", "max_regression": 1.0}]
            if objective != "regression"
            else [],
        }
    )


def batch(**columns: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def test_a_binary_label_is_positive_by_the_version_s_own_classes() -> None:
    rows = batch(
        _prediction=pa.array([0.1, 0.2, 0.3, 0.4, None, float("nan")]),
        _label=pa.array(["late", "on time", None, "maybe", "late", "late"]),
    )
    found = read_outputs([rows, rows.slice(0, 1)], "binary", ("on time", "late"))
    assert found.p.tolist() == [0.1, 0.2, 0.3, 0.1]
    assert np.array_equal(found.y, [1, 0, np.nan, 1], equal_nan=True)
    assert found.labelled.tolist() == [True, True, False, True]
    assert found.unreadable == 3


def test_several_classes_come_in_the_version_s_order() -> None:
    kind = pa.list_(pa.float64())
    rows = batch(
        _probabilities=pa.array([[0.1, 0.9], None, [1.0], [0.5, None], [0.7, 0.3]], kind),
        _label=pa.array(["b", "a", "a", "a", None]),
    )
    found = read_outputs([rows], "multiclass", ("a", "b"))
    assert found.p.tolist() == [[0.1, 0.9], [0.7, 0.3]]
    assert np.array_equal(found.y, [1, np.nan], equal_nan=True)
    assert found.unreadable == 3


def test_a_regression_s_labels_are_numbers() -> None:
    rows = batch(_prediction=pa.array([1.0, 2.0, 3.0]), _label=pa.array([1.5, None, float("inf")]))
    found = read_outputs([rows], "regression", None)
    assert np.array_equal(found.y, [1.5, np.nan], equal_nan=True)
    assert found.unreadable == 1


def test_predictions_without_labels_are_read_as_well() -> None:
    found = read_outputs([batch(_prediction=pa.array([0.5]))], "binary", ("a", "b"))
    assert (found.p.tolist(), found.labelled.tolist()) == ([0.5], [False])
    for objective, shape in {"binary": (0,), "multiclass": (0, 3), "regression": (0,)}.items():
        assert read_outputs([], objective, ("a", "b", "c")).p.shape == shape


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_realised_metrics_are_those_of_the_labelled_rows(objective: str) -> None:
    random = np.random.default_rng(1)
    y = random.integers(0, 3 if objective == "multiclass" else 2, 400).astype(float)
    p = random.dirichlet([1, 1, 1], 400) if objective == "multiclass" else random.random(400)
    hidden = y.copy()
    hidden[::4] = np.nan
    known = ~np.isnan(hidden)
    found = realise(spec(objective), 3, Outputs(hidden, p, 7), seed=1)
    assert (found.version, found.rows, found.unreadable) == (3, 300, 7)
    expected = scores(objective, y[known], p[known])
    assert {e.metric: e.value for e in found.estimates} == pytest.approx(expected)
    assert all(e.low < e.value < e.high and e.n == 300 for e in found.estimates)
    assert sum(b.n for b in found.calibration) == 300
    assert found == realise(spec(objective), 3, Outputs(hidden, p, 7), seed=1)


def test_of_many_labelled_rows_a_random_part_is_known_in_its_order() -> None:
    y = np.where(np.arange(1000) % 2, np.nan, 1.0)
    outputs = Outputs(y, np.linspace(0, 1, 1000), 3)
    every, part, again = (outputs.known(most, seed=1) for most in (500, 100, 100))
    assert (len(every.y), len(part.y), part.unreadable) == (500, 100, 3)
    assert part.labelled.all()
    assert (np.diff(part.p) > 0).all()
    assert np.isin(part.p, every.p).all()
    assert np.array_equal(part.p, again.p)


def test_nothing_labelled_is_nothing_measured() -> None:
    none = realise(spec("binary"), 1, Outputs(np.full(3, np.nan), np.full(3, 0.5), 0), seed=1)
    assert (none.rows, none.estimates, none.calibration) == (0, (), ())
    one_class = realise(spec("binary"), 1, Outputs(np.ones(50), np.full(50, 0.5), 0), seed=1)
    assert {e.metric for e in one_class.estimates} == {"logloss", "brier", "accuracy"}
