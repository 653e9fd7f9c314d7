"""Metrics agree with scikit-learn to 1e-12, weighted and unweighted, with ties."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn import metrics as reference

from perennial.contracts.metrics import METRICS, metrics_for
from perennial.learning.metrics import EPSILON, rarer_labels, scores, statistics


def binary(n: int, seed: int, digits: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=n) - 1
    p = 1 / (1 + np.exp(-logit - rng.normal(size=n)))
    p = p if digits is None else p.round(digits)
    return (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float32), p.astype(np.float32)


def multiclass(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.choice(k, size=n, p=np.arange(1, k + 1) / (k * (k + 1) / 2))
    logits = rng.normal(size=(n, k)).round(1)
    logits[np.arange(n), y] += 1
    p = np.exp(logits)
    return y, p / p.sum(axis=1, keepdims=True)


def expected_binary(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> dict[str, float]:
    p = p.astype(np.float64)
    clipped = np.clip(p, EPSILON, 1 - EPSILON)
    return {
        "logloss": reference.log_loss(y, clipped, sample_weight=w),
        "roc_auc": reference.roc_auc_score(y, p, sample_weight=w),
        "pr_auc": reference.average_precision_score(y, p, sample_weight=w),
        "brier": reference.brier_score_loss(y, p, sample_weight=w),
        "accuracy": reference.accuracy_score(y, p > 0.5, sample_weight=w),
    }


def expected_multiclass(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> dict[str, float]:
    classes = np.arange(p.shape[1])
    each = [reference.roc_auc_score(y == k, p[:, k], sample_weight=w) for k in np.unique(y)]
    return {
        "logloss": reference.log_loss(y, p, sample_weight=w, labels=classes),
        "roc_auc": float(np.mean(each)),
        "accuracy": reference.accuracy_score(y, p.argmax(axis=1), sample_weight=w),
    }


def expected_regression(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> dict[str, float]:
    return {
        "rmse": float(np.sqrt(reference.mean_squared_error(y, p, sample_weight=w))),
        "mae": reference.mean_absolute_error(y, p, sample_weight=w),
        "r2": reference.r2_score(y, p, sample_weight=w),
    }


def assert_close(found: dict[str, float], expected: dict[str, float]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("digits", [None, 2, 1])
@pytest.mark.parametrize("n", [30, 2000])
def test_binary_metrics_equal_scikit_learn_with_and_without_ties(n, digits):
    y, p = binary(n, seed=n, digits=digits)
    assert_close(scores("binary", y, p), expected_binary(y, p, np.ones(n)))


@pytest.mark.parametrize("k", [3, 7])
def test_multiclass_metrics_equal_scikit_learn(k):
    y, p = multiclass(1500, k, seed=k)
    found = scores("multiclass", y, p)
    assert_close(found, expected_multiclass(y, p, np.ones(len(y))))
    whole = reference.roc_auc_score(y, p, multi_class="ovr", average="macro")
    assert found["roc_auc"] == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_regression_metrics_equal_scikit_learn_also_far_from_zero(offset):
    rng = np.random.default_rng(3)
    y = rng.normal(size=800) + offset
    p = y + rng.normal(size=800) * 0.4
    tolerance = 1e-12 if offset == 0 else 1e-9
    expected = expected_regression(y, p, np.ones(800))
    found = scores("regression", y, p)
    assert found == pytest.approx(expected, rel=tolerance)


def test_rows_that_count_several_times_are_weighted_as_in_scikit_learn():
    rng = np.random.default_rng(0)
    y, p = binary(400, seed=1, digits=2)
    ym, pm = multiclass(400, 4, seed=2)
    yr = rng.normal(size=400)
    pr = yr + rng.normal(size=400)
    for objective, labels, predictions, expected in (
        ("binary", y, p, expected_binary),
        ("multiclass", ym, pm, expected_multiclass),
        ("regression", yr, pr, expected_regression),
    ):
        counts = rng.multinomial(400, np.full(400, 1 / 400), size=5).astype(np.float64)
        for row in counts:
            found = {}
            for statistic in statistics(objective, labels, predictions):
                found |= dict(zip(statistic.names, statistic(row[None])[0], strict=True))
            wanted = expected(labels, predictions, row)
            assert found == pytest.approx(wanted, rel=1e-12, abs=1e-12), objective


def test_counts_of_many_resamples_at_once_give_what_each_gives_alone():
    rng = np.random.default_rng(4)
    y, p = binary(300, seed=5, digits=1)
    counts = rng.poisson(1.0, size=(6, 300)).astype(np.float64)
    for statistic in statistics("binary", y, p):
        together = statistic(counts)
        alone = np.vstack([statistic(row[None]) for row in counts])
        np.testing.assert_allclose(together, alone, rtol=1e-13)


def test_every_metric_of_the_contract_is_computed_for_its_objectives():
    y, p = binary(50, seed=1)
    ym, pm = multiclass(50, 3, seed=1)
    found = {
        "binary": scores("binary", y, p),
        "multiclass": scores("multiclass", ym, pm),
        "regression": scores("regression", y, p),
    }
    for objective, values in found.items():
        assert list(values) == list(metrics_for(objective))
    assert {name for values in found.values() for name in values} == set(METRICS)


def test_a_saturated_wrong_prediction_costs_a_bounded_logloss():
    worst = scores("binary", np.array([1.0, 0.0]), np.array([0.0, 1.0]))["logloss"]
    assert worst == pytest.approx(-np.log(EPSILON), rel=1e-12)


def test_metrics_that_one_class_or_a_constant_label_leave_undefined_are_absent():
    one_class = scores("binary", np.zeros(5), np.linspace(0.1, 0.9, 5))
    assert list(one_class) == ["logloss", "brier", "accuracy"]
    only_second = scores("multiclass", np.ones(4), np.full((4, 3), 1 / 3))
    assert list(only_second) == ["logloss", "accuracy"]
    constant = scores("regression", np.full(4, 7.0), np.array([6.0, 7, 8, 7]))
    assert list(constant) == ["rmse", "mae"]


def test_all_predictions_equal_rank_no_better_than_chance():
    found = scores("binary", np.array([0, 1, 0, 1, 0]), np.full(5, 0.3))
    assert found["roc_auc"] == 0.5
    assert found["pr_auc"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("objective", "y", "p", "message"),
    [
        ("binary", [0, 1], [0.2, np.nan], "1 of 2 prediction values are NaN or infinite"),
        ("regression", [0, np.inf, np.nan], [1, 1, 1], "2 of 3 label values are NaN or infinite"),
        ("binary", [0, 1], [0.2], "labels (2,) and predictions (1,) are not of the same rows"),
        ("binary", [], [], "labels (0,) and predictions (0,) are not of the same rows"),
        (
            "multiclass",
            [0, 1],
            [0.2, 0.3],
            "predictions of a multiclass model can't have the shape (2,)",
        ),
        (
            "binary",
            [0, 1],
            [[0.2, 0.8], [0.3, 0.7]],
            "predictions of a binary model can't have the shape (2, 2)",
        ),
        ("binary", [0, 2], [0.1, 0.2], "labels must be 0 to 1, predictions probabilities"),
        ("binary", [0, 1], [0.1, 1.2], "labels must be 0 to 1, predictions probabilities"),
        (
            "multiclass",
            [0, 3],
            [[0.5, 0.5], [0.5, 0.5]],
            "labels must be 0 to 1, predictions probabilities",
        ),
    ],
)
def test_what_can_not_be_scored_is_refused(objective, y, p, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        scores(objective, np.array(y, dtype=float), np.array(p, dtype=float))


def test_the_rarer_labels_are_those_not_of_the_commonest_class() -> None:
    assert rarer_labels("binary", np.array([0.0, 1, 0, 0])) == 1
    assert rarer_labels("binary", np.array([1.0, 1, 0, 1])) == 1
    assert rarer_labels("multiclass", np.array([0.0, 1, 2, 2, 2])) == 2
    assert rarer_labels("binary", np.zeros(9)) == rarer_labels("binary", np.empty(0)) == 0
    assert rarer_labels("regression", np.array([0.5, 1.5])) is None
