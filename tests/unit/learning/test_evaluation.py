"""What is measured of predictions on a holdout: enough for every gate, and what a report draws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from perennial.contracts.verdicts import Judgement, Outcome, ServingCheck
from perennial.decisions.gates import judge
from perennial.learning.evaluation import Measurement, measure
from perennial.learning.slices import levels
from perennial.spec.schema import ModelSpec

SERVING = ServingCheck(
    loaded=True, identical=True, rows=100, max_abs_difference=0.0, p50_ms=0.2, p99_ms=0.5
)


def spec(objective: str, *gates: dict) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "m",
            "objective": objective,
            "source": {"kind": "csv", "uri": "x.csv"},
            "label": {"column": "y"},
            "columns": {
                "shop": {"type": "category"},
                "hour": {"type": "integer"},
                "open": {"type": "boolean"},
            },
            "split": {"kind": "random", "validation": 0.2, "test": 0.2},
            "gates": list(gates),
        }
    )


def world(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Binary labels, the log-odds they came from, and columns to slice by."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=n) * 1.5
    y = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    rows = pd.DataFrame(
        {
            "shop": pd.Series(rng.choice(["a", "b", "c"], size=n), dtype="str"),
            "hour": rng.integers(0, 24, size=n).astype(np.float64),
            "open": rng.random(n) < 0.5,
        }
    )
    return y, logit, rows


def sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-x))).astype(np.float32)


def judged(model: ModelSpec, m: Measurement, has_champion: bool = True) -> Judgement:
    return judge(model.gates, m, serving=SERVING, has_champion=has_champion)


GATES = (
    {"metric": "roc_auc", "min": 0.7},
    {"metric": "logloss", "max": 0.6, "confidence": 0.9},
    {"beats": "champion", "metric": "logloss", "confidence": 0.9},
    {"beats": "champion", "metric": "roc_auc", "confidence": 0.99},
    {"slices": ["shop", "open"], "metric": "logloss", "max_regression": 0.01},
    {"p99_ms": 5},
)


def test_what_is_measured_lets_every_gate_be_judged():
    y, logit, rows = world(4000)
    model = spec("binary", *GATES)
    noise = np.random.default_rng(1).normal(size=4000)
    m = measure(model, y, sigmoid(logit), sigmoid(logit + noise), rows, seed=1)
    judgement = judged(model, m)
    assert [str(v.outcome) for v in judgement.verdicts] == ["passed"] * 8
    wanted = {("logloss", 0.9), ("roc_auc", 0.99)} | {(e.metric, 0.95) for e in m.estimates}
    assert {(c.metric, c.confidence) for c in m.comparisons} == wanted


def test_a_candidate_that_is_worse_in_one_shop_is_refused_for_it():
    y, logit, rows = world(6000)
    spoilt = np.where(rows["shop"] == "b", 0.1 * logit, logit)
    model = spec("binary", GATES[4])
    m = measure(model, y, sigmoid(spoilt), sigmoid(logit), rows, seed=1)
    judgement = judged(model, m)
    assert judgement.outcome is Outcome.FAILED
    assert "shop=b loses 0.1" in judgement.reason
    same = measure(model, y, sigmoid(logit), sigmoid(logit), rows, seed=1)
    assert judged(model, same).outcome is Outcome.PASSED


def test_without_a_champion_nothing_is_compared():
    y, logit, rows = world(500)
    model = spec("binary", *GATES)
    m = measure(model, y, sigmoid(logit), None, rows, seed=1)
    assert m.comparisons == ()
    assert m.champion_curves == ()
    assert all(s.comparison is None for s in m.slices)
    outcomes = [str(v.outcome) for v in judged(model, m, has_champion=False).verdicts]
    assert outcomes[2:5] == ["inconclusive", "inconclusive", "passed"]


def test_a_champion_that_could_not_predict_these_rows_leaves_its_gates_inconclusive():
    y, logit, rows = world(500)
    model = spec("binary", *GATES)
    m = measure(model, y, sigmoid(logit), None, rows, seed=1)
    outcomes = [str(v.outcome) for v in judged(model, m).verdicts]
    assert outcomes[2:5] == ["inconclusive"] * 3


def test_an_empty_holdout_and_one_of_one_class_never_pass():
    y, logit, rows = world(300)
    model = spec("binary", GATES[0])
    empty = measure(model, y[:0], sigmoid(logit[:0]), None, rows[:0], seed=1)
    assert empty == Measurement()
    one_class = measure(model, np.zeros(300), sigmoid(logit), None, rows, seed=1)
    assert one_class.curves == ()
    for measured in (empty, one_class):
        assert judged(model, measured).verdicts[0].outcome is Outcome.INCONCLUSIVE


def test_a_slice_of_one_class_has_no_roc_auc_and_its_gate_is_inconclusive():
    y, logit, rows = world(3000)
    y[(rows["shop"] == "c").to_numpy()] = 0
    gate = {"slices": ["shop"], "metric": "roc_auc", "max_regression": 0.1}
    model = spec("binary", gate)
    m = measure(model, y, sigmoid(logit), sigmoid(logit), rows, seed=1)
    assert {s.level for s in m.slices} == {"a", "b"}
    assert judged(model, m).reason.startswith(
        "inconclusive: slices of shop on roc_auc: 1 of 3 could not be compared, such as shop=c"
    )


def test_the_two_are_compared_on_the_rows_that_are_marked_and_the_candidate_measured_on_all():
    y, logit, rows = world(4000)
    model = spec("binary", *GATES)
    random = np.random.default_rng(1)
    marked = random.random(4000) < 0.4
    p, weak = sigmoid(logit), sigmoid(logit + 2 * random.normal(size=4000))
    champion = np.where(marked, weak, y * 0.98 + 0.01)  # it knows the others by heart
    m = measure(model, y, p, champion, rows, seed=1, compared=marked)
    alone = measure(model, y, p, None, rows, seed=1)
    part = measure(model, y[marked], p[marked], weak[marked], rows[marked], seed=1)
    assert m.estimates == alone.estimates
    assert m.comparisons == part.comparisons
    assert m.curves == alone.curves
    assert m.champion_curves == ()
    assert m.levels == {
        column: {level: part.levels[column][level] for level in levels}
        for column, levels in alone.levels.items()
    }
    assert [s.estimate for s in m.slices] == [s.estimate for s in alone.slices]
    assert [s.comparison.n for s in m.slices] == [part.levels[s.column][s.level] for s in m.slices]
    assert judged(model, m).outcome is Outcome.PASSED
    assert judged(model, measure(model, y, p, champion, rows, seed=1)).outcome is Outcome.FAILED


def test_where_no_row_is_marked_nothing_is_compared():
    y, logit, rows = world(500)
    model = spec("binary", *GATES)
    p, nothing = sigmoid(logit), np.zeros(500, dtype=bool)
    m = measure(model, y, p, sigmoid(0.5 * logit), rows, seed=1, compared=nothing)
    assert m.comparisons == ()
    assert {rows for levels in m.levels.values() for rows in levels.values()} == {0}
    outcomes = [str(v.outcome) for v in judged(model, m).verdicts]
    assert outcomes[2:5] == ["inconclusive"] * 3


def test_measuring_is_deterministic_by_seed():
    y, logit, rows = world(400)
    model = spec("binary", *GATES)
    p, champion = sigmoid(logit), sigmoid(0.5 * logit)
    one = measure(model, y, p, champion, rows, seed=3)
    assert measure(model, y, p, champion, rows, seed=3) == one
    assert measure(model, y, p, champion, rows, seed=4).estimates != one.estimates


def test_rows_that_do_not_belong_together_are_refused():
    y, logit, rows = world(20)
    with pytest.raises(ValueError, match="20 labels, 20 predictions and 19 rows differ"):
        measure(spec("binary"), y, sigmoid(logit), None, rows[:19], seed=1)
    p = sigmoid(logit)
    p[3] = np.nan
    with pytest.raises(ValueError, match="1 of 20 prediction values are NaN"):
        measure(spec("binary"), y, p, None, rows, seed=1)


def test_a_slice_is_measured_on_its_own_rows():
    y, logit, rows = world(2000)
    model = spec("binary", GATES[4])
    p, champion = sigmoid(logit), sigmoid(0.5 * logit)
    m = measure(model, y, p, champion, rows, seed=1)
    (b,) = (s for s in m.slices if s.level == "b")
    at = (rows["shop"] == "b").to_numpy()
    assert b.estimate.n == at.sum()
    expected = reference.log_loss(y[at], p[at].astype(float))
    assert b.estimate.value == pytest.approx(expected, rel=1e-12)
    assert b.comparison is not None
    loss = reference.log_loss(y[at], champion[at].astype(float))
    assert b.comparison.gain == pytest.approx(loss - expected, rel=1e-9)
    assert b.comparison.high - b.comparison.gain == pytest.approx(
        b.comparison.gain - b.comparison.low
    )


class TestLevels:
    def test_slices_of_a_column_hold_every_row_once(self):
        _, _, rows = world(1000)
        rows.loc[:99, "shop"] = None
        rows.loc[50:80, "hour"] = np.nan
        for column in rows:
            found = levels(rows[column], 200)
            assert sorted(np.concatenate(list(found.values()))) == list(range(1000))

    def test_missing_values_are_a_slice(self):
        values = pd.Series(["x", None, "x", None, "y"], dtype="str")
        found = levels(values, 1)
        assert {k: list(v) for k, v in found.items()} == {
            "(missing)": [1, 3],
            "x": [0, 2],
            "y": [4],
        }

    def test_booleans_and_few_whole_numbers_are_named_as_written(self):
        assert list(levels(pd.Series([True, False, True]), 1)) == ["true", "false"]
        assert list(levels(pd.Series([3.0, 3.0, 12.0, np.nan]), 1)) == ["3", "(missing)", "12"]

    def test_many_numbers_are_cut_into_fifths(self):
        found = levels(pd.Series(np.arange(100.0)), 1)
        assert {k: len(v) for k, v in found.items()} == {
            "0 to 19": 20, "20 to 39": 20, "40 to 59": 20, "60 to 79": 20, "80 to 99": 20,
        }  # fmt: skip

    @pytest.mark.parametrize(
        "values",
        [
            20240000001 + np.arange(3),
            2**62 + np.arange(3),  # more digits than a float has
            (2**52 + np.arange(3)).astype(np.float64),
            np.array([0.1, np.nextafter(0.1, 1), np.nextafter(0.1, 0)]),
        ],
    )
    def test_numbers_that_differ_in_their_last_digit_are_slices_of_their_own(self, values):
        found = levels(pd.Series(np.repeat(values, [5, 4, 3])), 1)
        assert [float(name) for name in found] == [float(value) for value in values]
        assert list(map(len, found.values())) == [5, 4, 3]

    def test_fifths_of_large_numbers_are_told_to_the_last_digit(self):
        found = levels(pd.Series(2**62 + np.arange(100)), 1)
        first = 2**62
        assert {name: len(at) for name, at in found.items()} == {
            f"{first + i} to {first + i + 19}": 20 for i in range(0, 100, 20)
        }

    def test_of_many_small_values_the_smallest_are_taken_together(self):
        sizes = {"big": 60, **{f"s{i:02}": 40 - i for i in range(35)}}
        values = pd.Series([name for name, n in sizes.items() for _ in range(n)], dtype="str")
        found = levels(values, 50)
        assert list(found)[:3] == ["big", "s00", "s01"]
        assert len(found) == 22
        assert list(found)[-1] == "(other: 15 values)"
        assert len(found["(other: 15 values)"]) == sum(40 - i for i in range(20, 35))


class TestCurves:
    def test_roc_and_precision_recall_are_those_of_scikit_learn(self):
        y, logit, rows = world(150)
        p = sigmoid(logit).round(2)
        roc, pr = measure(spec("binary"), y, p, None, rows, seed=1).curves
        false, true, _ = reference.roc_curve(y, p, drop_intermediate=False)
        np.testing.assert_allclose(roc.x, false, rtol=1e-5)
        np.testing.assert_allclose(roc.y, true, rtol=1e-5)
        precision, recall, _ = reference.precision_recall_curve(y, p)
        np.testing.assert_allclose(pr.x, recall[-2::-1], rtol=1e-5)
        np.testing.assert_allclose(pr.y, precision[-2::-1], rtol=1e-5)

    def test_curves_of_many_rows_have_at_most_200_points_and_keep_their_area(self):
        y, logit, rows = world(20_000)
        p = sigmoid(logit)
        m = measure(spec("binary"), y, p, sigmoid(0.5 * logit), rows, seed=1)
        for curve in (*m.curves, *m.champion_curves):
            assert 150 < len(curve.x) == len(curve.y) <= 200
        roc = m.curves[0]
        assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
        area = float(np.trapezoid(roc.y, roc.x))
        assert area == pytest.approx(reference.roc_auc_score(y, p), abs=1e-3)

    def test_the_roc_of_many_classes_is_the_mean_of_one_against_the_rest(self):
        rng = np.random.default_rng(0)
        y = rng.integers(0, 4, 3000)
        logits = rng.normal(size=(3000, 5))  # the fifth class has no rows
        logits[np.arange(3000), y] += 1
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        m = measure(spec("multiclass"), y, p, None, pd.DataFrame(index=range(3000)), seed=1)
        (roc,) = m.curves
        (auc,) = (e.value for e in m.estimates if e.metric == "roc_auc")
        assert float(np.trapezoid(roc.y, roc.x)) == pytest.approx(auc, abs=2e-3)

    def test_residuals_are_shares_and_share_their_edges_with_the_champion(self):
        rng = np.random.default_rng(0)
        y = rng.normal(size=1000)
        rows = pd.DataFrame(index=range(1000))
        p, champion = y + rng.normal(size=1000) * 0.1, y + rng.normal(size=1000) + 0.5
        m = measure(spec("regression"), y, p, champion, rows, seed=1)
        residuals, scatter = m.curves
        assert residuals.x == m.champion_curves[0].x
        for curve in (residuals, m.champion_curves[0]):
            assert sum(curve.y) == pytest.approx(1, abs=1e-4)
        mean = float(np.dot(m.champion_curves[0].x, m.champion_curves[0].y))
        assert mean == pytest.approx(-0.5, abs=0.1)
        assert len(scatter.x) == 200
        np.testing.assert_allclose(scatter.x, np.sort(scatter.x))


class TestCalibration:
    def test_bins_are_of_about_equal_rows_and_hold_their_means(self):
        y, logit, rows = world(5003)
        p = sigmoid(logit)
        bins = measure(spec("binary"), y, p, None, rows, seed=1).calibration
        assert len(bins) == 10
        assert all(499 <= b.n <= 502 for b in bins)
        assert sum(b.n * b.predicted for b in bins) / 5003 == pytest.approx(p.mean(), rel=1e-6)
        assert sum(b.n * b.observed for b in bins) / 5003 == pytest.approx(y.mean(), rel=1e-6)
        assert all(abs(b.predicted - b.observed) < 0.08 for b in bins)

    def test_equal_predictions_share_a_bin(self):
        rows = pd.DataFrame(index=range(40))
        y = np.tile([0.0, 1.0], 20)
        constant = measure(spec("binary"), y, np.full(40, 0.25), None, rows, seed=1).calibration
        assert [(b.predicted, b.observed, b.n) for b in constant] == [(0.25, 0.5, 40)]
        two = np.repeat([0.25, 0.75], [30, 10])
        bins = measure(spec("binary"), y, two, None, rows, seed=1).calibration
        assert [b.n for b in bins] == [30, 10]

    def test_of_many_classes_it_is_how_often_the_predicted_one_is_right(self):
        y = np.array([0, 1, 2, 0] * 10)
        p = np.tile([[0.6, 0.2, 0.2], [0.5, 0.3, 0.2]], (20, 1))
        rows = pd.DataFrame(index=range(40))
        bins = measure(spec("multiclass"), y, p, None, rows, seed=1).calibration
        assert [b.predicted for b in bins] == pytest.approx([0.5, 0.6])
        assert [(b.observed, b.n) for b in bins] == [(0.5, 20), (0.5, 20)]
