"""Intervals of rows that come in clusters."""

from __future__ import annotations

import numpy as np
import pytest

from perennial.contracts.verdicts import Estimate
from perennial.decisions.performance import against_promise
from perennial.learning.bootstrap import score
from perennial.learning.clusters import Clustering, clustering, widened

DAY = np.timedelta64(1, "D")


def days(random: np.random.Generator, number: int, rows: int, effect: float) -> tuple:
    """Labels by chance, as often as a day of its own makes them; predictions know the average."""
    of_day = random.normal(0, effect, number)
    place = random.integers(0, number, rows)
    p = np.full(rows, 0.2)
    y = (random.random(rows) < 1 / (1 + np.exp(1.386 - of_day[place]))).astype(float)
    return y, p, np.datetime64("2026-03-01T12:00", "us") + place * DAY


def test_independent_rows_have_intervals_as_they_are() -> None:
    found = [
        clustering("binary", *days(np.random.default_rng(seed), 14, 5000, 0.0))
        for seed in range(40)
    ]
    assert {each.stretches for each in found} == {14}
    assert np.median([each.widening for each in found]) < 1.2
    assert max(each.likeness for each in found) < 0.005


def test_bad_days_are_no_changed_world() -> None:
    """A promise of 14 days, windows of 7, and nothing has changed but the days' luck."""
    alone, together = 0, 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        y, p, _ = days(random, 14, 4000, 0.8)
        promised = score("binary", y, [p], seed=1, replicates=200)[0].estimates()
        y, p, times = days(random, 7, 3000, 0.8)
        observed = score("binary", y, [p], seed=1, replicates=200)[0].estimates()
        alone += against_promise("logloss", observed, promised).change == "worse"
        alike = clustering("binary", y, p, times)
        wider = widened(promised, alike.widening_of(4000, 14))
        found = against_promise("logloss", widened(observed, alike.widening), wider)
        together += found.change == "worse"
    assert alone >= 15
    assert together <= 3


def test_a_loss_on_every_day_is_still_seen() -> None:
    random = np.random.default_rng(3)
    y, p, _ = days(random, 14, 4000, 0.3)
    promised = score("binary", y, [p], seed=1, replicates=200)[0].estimates()
    y, p, times = days(random, 7, 3000, 0.3)
    turned = score("binary", 1 - y, [p], seed=1, replicates=200)[0].estimates()
    alike = clustering("binary", 1 - y, p, times)
    wider = widened(promised, alike.widening_of(4000, 14))
    assert against_promise("logloss", widened(turned, alike.widening), wider).change == "worse"


@pytest.mark.parametrize("objective", ["regression", "multiclass"])
def test_every_objective_has_losses(objective: str) -> None:
    random = np.random.default_rng(5)
    times = np.repeat(np.datetime64("2026-03-01", "us") + np.arange(10) * DAY, 100)
    if objective == "regression":
        y, p = np.repeat(random.normal(0, 3, 10), 100) + random.normal(0, 1, 1000), np.zeros(1000)
    else:
        y = np.repeat(random.integers(0, 2, 10), 100).astype(float)
        p = np.tile([0.7, 0.2, 0.1], (1000, 1))
    found = clustering(objective, y, p, times)
    assert found.likeness > 0.2
    assert found.widening > 3


def test_a_short_window_is_cut_into_eight_stretches_and_little_into_none() -> None:
    start = np.datetime64("2026-03-01T00:00", "us")
    y, p = np.tile([0.0, 1.0], 200), np.full(400, 0.5)
    times = start + np.arange(400) * np.timedelta64(1, "m")
    assert clustering("binary", y, p, times) == Clustering(8, 0.0, 1.0)  # all losses are the same
    assert clustering("binary", y, p, np.full(400, start)) == Clustering(1, 0.0, 1.0)
    assert clustering("binary", y[:5], p[:5], times[:5]).widening == 1.0
    nothing = np.empty(0)
    assert clustering("binary", nothing, nothing, nothing.astype("M8[us]")).stretches == 0


def test_an_interval_reaches_as_many_times_as_far_to_either_side() -> None:
    (found,) = widened([Estimate(metric="rmse", value=1.0, low=0.5, high=2.0, n=9)], 2.0)
    assert (found.low, found.high) == (0.0, 3.0)
    assert Clustering(7, 0.1, 2.0).widening_of(1, 1.0) == 1.0
    assert Clustering(7, 0.0, 2.0).widening_of(500, 5.0) == 1.0
