"""The tests that ours are compared with are what they claim to be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks.rollouts import (
    POWER,
    Spending,
    fixed,
    group_sequential,
    obrien_fleming,
    pocock,
    rate_planned,
    rate_test,
)

SPENDING = [obrien_fleming, pocock]


def test_the_bounds_of_five_looks_are_those_of_the_tables() -> None:
    """As R's gsDesign gives them for a one-sided 2.5 %."""
    of = group_sequential(obrien_fleming, 0.025, looks=5).bounds
    assert of == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=0.01)
    of = group_sequential(pocock, 0.025, looks=5).bounds
    assert of == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=0.01)


@pytest.mark.parametrize("spending", SPENDING)
def test_a_group_sequential_test_has_its_alpha_and_its_power(spending: Spending) -> None:
    alpha, paths = 0.02, 200_000
    test = group_sequential(spending, alpha)
    random = np.random.default_rng(9)
    steps = np.diff(test.times, prepend=0)
    moved = (random.standard_normal((paths, len(steps))) * np.sqrt(steps)).cumsum(axis=1)
    needed = norm.isf(alpha) + norm.isf(1 - POWER)
    for drift, crossed in ((0.0, alpha), (needed * np.sqrt(test.inflation), POWER)):
        z = (moved + drift * test.times) / np.sqrt(test.times)
        assert (z >= test.bounds).any(axis=1).mean() == pytest.approx(crossed, abs=0.004)


def test_a_planned_test_of_a_rate_catches_its_harm_with_its_power() -> None:
    random = np.random.default_rng(9)
    rows = rate_planned(0.08, 0.05, 0.02)
    taken = rate_test(random, 0.08, 0.05, fixed(0.02), rows, 20_000)
    assert taken.caught.mean() == pytest.approx(POWER, abs=0.02)
    assert set(taken.rows.tolist()) == {int(np.ceil(rows))}
