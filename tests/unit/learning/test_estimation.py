"""Performance without labels: what it says is held against the labels, which these tests know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from perennial.contracts.features import Feature, FeatureSchema
from perennial.contracts.performance import EstimatedPerformance
from perennial.contracts.verdicts import Estimate
from perennial.decisions.performance import against_promise, unexplained
from perennial.learning.bootstrap import score
from perennial.learning.calibrating import choose_method, fit_calibration
from perennial.learning.estimation import LEAST_HOLDOUT, estimate
from perennial.learning.holdout import Holdout
from perennial.learning.metrics import scores

SCHEMA = FeatureSchema(
    inputs=(),
    features=(Feature(name="a"), Feature(name="b"), Feature(name="c", levels=("x", "y"))),
    classes=None,
)


@dataclass(frozen=True)
class World:
    """Rows with labels, and what a model that was good at ``shift`` 0 says of them.

    ``shift`` moves who comes: inputs where the model is less sure (binary, multiclass) or errs more
    (regression). ``turn`` changes what they do: labels follow from inputs in another way.
    """

    objective: str
    shift: float = 0.0
    turn: float = 0.0

    def rows(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, predictions, and the matrix."""
        random = np.random.default_rng(seed)
        x = random.normal(size=(n, 3)).astype(np.float32)
        x[:, 2] = random.integers(0, 2, n)
        if self.objective == "regression":
            x[:, 0] = 4 * random.random(n) ** (1 / (1 + 2 * self.shift)) - 2  # of [-2, 2] always
            spread = 0.3 * np.exp(0.5 * x[:, 0]) * (1 + x[:, 2])
            p = 2 * x[:, 1] + np.sin(x[:, 0])
            y = p + self.turn * x[:, 1] + spread * random.normal(size=n)
            return y, p, x
        score = (2 - self.shift) * np.column_stack([x[:, :2], x[:, 0] - x[:, 1]])
        if self.objective == "binary":
            true = _sigmoid(score[:, 0] - 1 - self.turn * score[:, 0])
            y = (random.random(n) < true).astype(float)
            return y, _sigmoid(1.6 * (score[:, 0] - 1) + 0.4), x  # too sure, and too high
        true = _softmax(score - self.turn * score)
        y = (random.random(n)[:, None] >= true.cumsum(axis=1)).sum(axis=1).clip(0, 2)
        return y.astype(float), _softmax(1.4 * score), x

    def holdout(self, n: int = 2500, seed: int = 1) -> Holdout:
        y, p, x = self.rows(n, seed)
        return Holdout.sample(self.objective, y, p, x, seed=1)


def _sigmoid(score: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-score))


def _softmax(score: np.ndarray) -> np.ndarray:
    powers = np.exp(score - score.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def estimated(
    holdout: Holdout, p: np.ndarray, x: np.ndarray, *, fixed_rows: bool = False, seed: int = 1
) -> EstimatedPerformance:
    return estimate(holdout, p, x, SCHEMA, seed=seed, fixed_rows=fixed_rows)


OBJECTIVES = pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
MAIN = {"binary": "logloss", "multiclass": "logloss", "regression": "rmse"}


@OBJECTIVES
def test_under_covariate_shift_labels_confirm_the_estimate(objective: str) -> None:
    """The error moves a lot, the estimate moves as far, and its 95 % intervals hold."""
    metric = MAIN[objective]
    before = scores(objective, *World(objective).rows(50_000, 9)[:2])[metric]
    inside, foretold, came_true = [], 0.0, 0.0
    for seed in range(3):
        holdout = World(objective).holdout(2500, seed=100 + seed)
        y, p, x = World(objective, shift=1.0).rows(1500, 200 + seed)
        realised = scores(objective, y, p)
        found = {e.metric: e for e in estimated(holdout, p, x, fixed_rows=True).estimates}
        assert found.keys() == realised.keys() - {"r2"}
        inside += [e.low <= realised[e.metric] <= e.high for e in found.values()]
        foretold += found[metric].value / before - 1
        came_true += realised[metric] / before - 1
    assert came_true / 3 > 0.15
    assert foretold == pytest.approx(came_true, rel=0.25)
    assert np.mean(inside) >= 0.8


@OBJECTIVES
def test_concept_drift_is_what_labels_say_and_inputs_do_not(objective: str) -> None:
    """Nobody else comes, so the estimate stays; labels tell that it is wrong."""
    world, metric = World(objective), MAIN[objective]
    holdout = world.holdout()
    promised = score(objective, holdout.y, [holdout.p], seed=1, replicates=300)[0].estimates()
    y, p, x = World(objective, turn=0.7).rows(2000, 3)
    found = estimated(holdout, p, x)
    assert against_promise(metric, found.estimates, promised).change != "worse"

    realised = score(objective, y, [p], seed=1, replicates=300)[0].estimates()
    same_rows = estimated(holdout, p, x, fixed_rows=True)
    drift = unexplained(metric, realised, same_rows.estimates)
    assert drift.change == "worse"
    assert drift.evidence.high is not None
    assert drift.evidence.high < 0


@OBJECTIVES
def test_labels_that_follow_as_ever_are_explained_by_the_inputs(objective: str) -> None:
    holdout = World(objective).holdout()
    y, p, x = World(objective, shift=0.8).rows(2500, 4)
    realised = score(objective, y, [p], seed=1, replicates=300)[0].estimates()
    found = estimated(holdout, p, x, fixed_rows=True)
    change = unexplained(MAIN[objective], realised, found.estimates)
    assert change.change in ("as expected", "inconclusive")
    assert change.evidence.low is not None
    assert change.evidence.high is not None
    assert change.evidence.low < 0 < change.evidence.high


@OBJECTIVES
def test_harmful_drift_is_seen_before_any_label(objective: str) -> None:
    holdout = World(objective).holdout()
    promised = score(objective, holdout.y, [holdout.p], seed=1, replicates=300)[0].estimates()
    _, p, x = World(objective, shift=1.0).rows(2000, 5)
    found = estimated(holdout, p, x)
    assert against_promise(MAIN[objective], found.estimates, promised).change == "worse"


def test_a_binary_estimate_is_the_metric_of_the_expected_confusion_matrix() -> None:
    holdout = World("binary").holdout(800)
    _, p, x = World("binary").rows(150, 6)
    p = np.clip(np.round(p, 2), 0.01, 0.99)  # ties
    pairs = np.column_stack([1 - holdout.p, holdout.p])
    method = choose_method(holdout.y, pairs, seed=1)
    curve = fit_calibration(method, holdout.y, pairs, np.ones(800))
    c = curve(np.column_stack([1 - p, p]))[:, 1]
    wins = (p[:, None] > p[None, :]) + 0.5 * (p[:, None] == p[None, :])
    thresholds = [(p >= t) for t in np.unique(p)[::-1]]
    recalls = np.array([c[at].sum() for at in thresholds]) / c.sum()
    precisions = np.array([c[at].mean() for at in thresholds])
    expected = {
        "logloss": -np.mean(c * np.log(p) + (1 - c) * np.log(1 - p)),
        "brier": np.mean(c * (1 - p) ** 2 + (1 - c) * p**2),
        "accuracy": np.mean(np.where(p > 0.5, c, 1 - c)),
        "roc_auc": (c[:, None] * (1 - c)[None, :] * wins).sum() / (c.sum() * (1 - c).sum()),
        "pr_auc": np.sum(np.diff(recalls, prepend=0) * precisions),
    }
    found = estimated(holdout, p, x)
    assert found.calibrator == method
    assert {e.metric: e.value for e in found.estimates} == pytest.approx(expected)


def test_without_calibration_a_model_that_is_too_sure_would_be_believed() -> None:
    holdout = World("binary").holdout()
    y, p, x = World("binary").rows(4000, 7)
    believed = float(np.mean(np.maximum(p, 1 - p)))
    accuracy = {e.metric: e.value for e in estimated(holdout, p, x).estimates}["accuracy"]
    realised = scores("binary", y, p)["accuracy"]
    assert believed - realised > 0.05
    assert accuracy == pytest.approx(realised, abs=0.02)


def test_an_interval_of_rows_like_these_is_wider_than_that_of_these() -> None:
    for objective, metric in {"binary": "brier", "regression": "rmse"}.items():
        holdout = World(objective).holdout(500)
        _, p, x = World(objective).rows(400, 8)
        widths = []
        for fixed_rows in (True, False):
            found = estimated(holdout, p, x, fixed_rows=fixed_rows)
            assert found.fixed_rows is fixed_rows
            (e,) = [e for e in found.estimates if e.metric == metric]
            assert e.low < e.value < e.high
            widths.append(e.high - e.low)
        assert widths[0] < widths[1]


@OBJECTIVES
def test_an_estimate_is_the_same_by_its_seed(objective: str) -> None:
    holdout = World(objective).holdout(250)
    _, p, x = World(objective).rows(100, 2)
    assert estimated(holdout, p, x, seed=4) == estimated(holdout, p, x, seed=4)
    assert estimated(holdout, p, x, seed=4) != estimated(holdout, p, x, seed=5)


def test_of_many_rows_a_sample_is_estimated_and_many_classes_are_not_ranked() -> None:
    random = np.random.default_rng(1)
    p = random.dirichlet(np.full(25, 0.2), 9000)
    y = (random.random(9000)[:, None] >= p.cumsum(axis=1)).sum(axis=1).clip(0, 24)
    holdout = Holdout.sample("multiclass", y[:250], p[:250], None, seed=1)
    found = estimate(holdout, p[250:], seed=1)
    realised = scores("multiclass", y[250:], p[250:])
    assert found.rows == 8750
    assert {(e.metric, e.n) for e in found.estimates} == {("logloss", 8000), ("accuracy", 8000)}
    for e in found.estimates:
        assert e.value == pytest.approx(realised[e.metric], rel=0.15)


def test_a_model_without_an_error_is_estimated_to_make_none() -> None:
    _, p, x = World("regression").rows(500, 1)
    holdout = Holdout.sample("regression", p, p, x, seed=1)
    found = estimated(holdout, p, x)
    assert [(e.metric, e.value, e.high) for e in found.estimates] == [
        ("rmse", 0.0, 0.0),
        ("mae", 0.0, 0.0),
    ]


Cut = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize(
    ("cut", "rows", "problem"),
    [
        (lambda y, p: (y, p), 0, "no predictions"),
        (
            lambda y, p: (y[: LEAST_HOLDOUT - 1], p[: LEAST_HOLDOUT - 1]),
            10,
            "the holdout has 199 rows, fewer than 200",
        ),
        (lambda y, p: (y * 0, p), 10, "the holdout has rows of one class only"),
    ],
)
def test_what_cannot_be_estimated_says_so(cut: Cut, rows: int, problem: str) -> None:
    y, p, _ = World("binary").rows(400, 1)
    holdout = Holdout.sample("binary", *cut(y, p), None, seed=1)
    found = estimate(holdout, p[:rows], seed=1)
    assert (found.problem, found.estimates, found.rows) == (problem, (), rows)


def test_one_row_has_no_interval_and_no_estimate() -> None:
    found = estimate(World("binary").holdout(600), np.array([0.5]), seed=1)
    assert found.estimates == ()


def test_predictions_of_another_shape_or_missing_are_refused() -> None:
    binary, regression = World("binary").holdout(250), World("regression").holdout(250)
    with pytest.raises(ValueError, match="not of the holdout's shape"):
        estimate(binary, np.full((3, 2), 0.5), seed=1)
    with pytest.raises(ValueError, match="1 of 3 predictions are NaN"):
        estimate(binary, np.array([0.5, np.nan, 0.1]), seed=1)
    with pytest.raises(ValueError, match="from the matrix of the same rows"):
        estimate(regression, np.zeros(3), seed=1)
    assert isinstance(estimate(regression, np.zeros(0), seed=1), EstimatedPerformance)


def test_estimates_are_estimates_like_any_other() -> None:
    found = estimate(World("binary").holdout(600), np.linspace(0.1, 0.9, 50), seed=1)
    assert all(isinstance(e, Estimate) and e.n == 50 for e in found.estimates)
