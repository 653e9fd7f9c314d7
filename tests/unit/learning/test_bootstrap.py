"""Bootstrap intervals: they cover what they promise, and are the same for the same seed."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from perennial.contracts.metrics import METRICS
from perennial.learning import bootstrap
from perennial.learning.bootstrap import score
from perennial.learning.metrics import scores


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, a good and a worse model's probabilities."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    good, worse = (1 / (1 + np.exp(-logit - noise * rng.normal(size=n))) for noise in (0.2, 1.0))
    return y, good, worse


def test_point_values_are_the_metrics_of_the_rows():
    y, good, _ = rows(400, 0)
    (scored,) = score("binary", y, [good], seed=1, replicates=50)
    assert scored.values == scores("binary", y, good)
    for estimate in scored.estimates():
        assert estimate.low < estimate.value < estimate.high
        assert estimate.n == 400


def test_the_same_seed_gives_the_same_intervals_whatever_is_scored_beside_or_held_at_once(
    monkeypatch,
):
    y, good, worse = rows(300, 1)
    alone = score("binary", y, [good], seed=5, replicates=60)[0].estimates()
    beside = score("binary", y, [good, worse], seed=5, replicates=60)[0].estimates()
    monkeypatch.setattr(bootstrap, "_CELLS", 700)
    in_chunks = score("binary", y, [good], seed=5, replicates=60)[0].estimates()
    other = score("binary", y, [good], seed=6, replicates=60)[0].estimates()
    assert alone == beside
    for whole, chunked in zip(alone, in_chunks, strict=True):
        assert whole.low == pytest.approx(chunked.low, rel=1e-12)
    assert alone != other


def test_intervals_equal_those_of_resampling_by_hand():
    y, good, worse = rows(120, 2)
    first, second = score("binary", y, [good, worse], seed=9, replicates=40)
    generator = np.random.default_rng(9)
    drawn = [generator.integers(0, 120, 120) for _ in range(40)]
    for metric in first.values:
        good_by_hand = np.array([scores("binary", y[at], good[at])[metric] for at in drawn])
        worse_by_hand = np.array([scores("binary", y[at], worse[at])[metric] for at in drawn])
        estimate = first.estimate(metric, confidence=0.9)
        assert estimate is not None
        assert [estimate.low, estimate.high] == pytest.approx(
            list(np.quantile(good_by_hand, [0.05, 0.95])), rel=1e-10
        )
        sign = 1 if METRICS[metric].greater_is_better else -1
        comparison = first.against(second, metric, 0.9)
        assert comparison is not None
        gains = sign * (good_by_hand - worse_by_hand)
        assert [comparison.low, comparison.high] == pytest.approx(
            list(np.quantile(gains, [0.1, 0.9])), rel=1e-8
        )
        normal = first.against(second, metric, 0.9, normal=True)
        assert normal is not None
        reach = NormalDist().inv_cdf(0.9) * gains.std()
        assert [normal.low, normal.high] == pytest.approx(
            [comparison.gain - reach, comparison.gain + reach], rel=1e-8
        )


def test_a_gain_is_positive_for_the_better_model_whatever_the_direction_of_the_metric():
    y, good, worse = rows(3000, 3)
    better, champion = score("binary", y, [good, worse], seed=1, replicates=100)
    for metric in better.values:
        there = better.against(champion, metric, 0.95)
        back = champion.against(better, metric, 0.95)
        assert there is not None
        assert back is not None
        assert there.gain > 0 > back.gain
        assert there.gain == -back.gain
        assert (there.challenger, there.champion) == (back.champion, back.challenger)


def test_a_model_compared_with_itself_gains_exactly_nothing():
    y, good, _ = rows(200, 4)
    one, same = score("binary", y, [good, good.copy()], seed=1, replicates=50)
    comparison = one.against(same, "roc_auc", 0.95)
    assert comparison is not None
    assert (comparison.low, comparison.gain, comparison.high) == (0, 0, 0)


def test_only_the_metrics_asked_for_are_scored():
    y, good, _ = rows(100, 5)
    (scored,) = score("binary", y, [good], seed=1, replicates=10, only=["brier"])
    assert list(scored.values) == ["brier"]
    assert scored.estimate("roc_auc") is None


def test_one_class_leaves_rank_metrics_without_an_estimate():
    (scored,) = score("binary", np.zeros(60), [np.full(60, 0.2)], seed=1, replicates=20)
    assert [e.metric for e in scored.estimates()] == ["logloss", "brier", "accuracy"]
    assert scored.against(scored, "roc_auc", 0.95) is None


@pytest.mark.parametrize(("positives", "estimated"), [(1, False), (2, False), (5, True)])
def test_a_class_of_one_or_two_rows_is_too_few_for_an_interval(positives, estimated):
    y = np.arange(200) < positives
    p = np.linspace(0.9, 0.1, 200)
    (scored,) = score("binary", y, [p], seed=1, replicates=400)
    assert scored.values["roc_auc"] == 1
    assert (scored.estimate("roc_auc") is not None) == estimated


def test_a_single_row_has_no_interval():
    (scored,) = score("regression", np.array([1.0]), [np.array([2.0])], seed=1, replicates=10)
    assert scored.values == {"rmse": 1, "mae": 1}
    assert scored.estimates() == ()


def covered(estimates: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in estimates]))


def test_95_percent_intervals_of_logloss_and_roc_auc_cover_the_truth_19_times_of_20():
    """600 holdouts of 300 rows from a known world; three standard errors of the share allowed."""
    grid = np.linspace(-8, 8, 20001)
    density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    q = 1 / (1 + np.exp(-grid))
    step = grid[1] - grid[0]
    entropy = -(q * np.log(q) + (1 - q) * np.log(1 - q))
    true_logloss = float((entropy * density).sum() * step)
    positive = q * density / (q * density).sum()
    negative = (1 - q) * density / ((1 - q) * density).sum()
    true_auc = float((positive * (np.cumsum(negative) - negative / 2)).sum())

    found: dict[str, list[tuple[float, float]]] = {"logloss": [], "roc_auc": []}
    for world in range(600):
        rng = np.random.default_rng(world)
        logit = rng.normal(size=300)
        p = 1 / (1 + np.exp(-logit))
        y = rng.random(300) < p
        (scored,) = score("binary", y, [p], seed=world, replicates=200)
        for metric, intervals in found.items():
            estimate = scored.estimate(metric)
            assert estimate is not None
            intervals.append((estimate.low, estimate.high))
    allowed = 3 * np.sqrt(0.95 * 0.05 / 600)
    assert covered(found["logloss"], true_logloss) == pytest.approx(0.95, abs=allowed)
    assert covered(found["roc_auc"], true_auc) == pytest.approx(0.95, abs=allowed)


@pytest.mark.parametrize("normal", [False, True])
def test_a_challenger_that_is_no_better_clears_a_95_percent_bound_once_in_20(normal):
    """Two models whose errors are equally distributed: the true gain is 0."""
    cleared = 0
    for world in range(600):
        rng = np.random.default_rng(world)
        y = rng.normal(size=200)
        one, other = (y + rng.normal(size=200) for _ in range(2))
        first, second = score("regression", y, [one, other], seed=world, replicates=200)
        comparison = first.against(second, "rmse", 0.95, normal=normal)
        assert comparison is not None
        cleared += comparison.low > 0
    assert cleared / 600 == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 600))
