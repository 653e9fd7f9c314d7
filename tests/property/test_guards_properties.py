"""What holds of every interval and every check, whatever was measured."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.contracts.rollouts import Guard, Measurement, Step
from perennial.contracts.verdicts import Outcome
from perennial.decisions.guards import judge
from perennial.decisions.sequential import (
    bernoulli_bounds,
    difference_bounds,
    distribution_band,
    distribution_bounds,
)

alphas = st.floats(1e-6, 0.5)
finite = st.floats(-1e6, 1e6)
variances = st.floats(0, 1e6)
sizes = st.integers(2, 10**7)
shares = st.floats(0, 1)
samples = st.lists(st.floats(-10, 10, width=16), max_size=300).map(np.array)
numbers = st.none() | st.floats()


@settings(deadline=None, max_examples=200)
@given(st.data(), sizes, alphas)
def test_a_rate_lies_within_its_bounds_and_a_smaller_alpha_widens_them(
    data: st.DataObject, n: int, alpha: float
) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = bernoulli_bounds(successes, n, alpha)
    assert 0 <= low <= successes / n <= high <= 1
    assert low < high
    assert bernoulli_bounds(successes, n, alpha / 2)[0] <= low


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(1, 5_000), alphas)
def test_one_more_failure_never_makes_a_version_look_better(
    data: st.DataObject, n: int, alpha: float
) -> None:
    """So that a guard that fails on some count of failures fails on every higher one."""
    successes = data.draw(st.integers(0, n - 1))
    fewer, more = (bernoulli_bounds(number, n, alpha) for number in (successes, successes + 1))
    assert fewer[0] <= more[0]
    assert fewer[1] <= more[1]


@settings(deadline=None, max_examples=200)
@given(finite, variances, sizes, finite, variances, sizes, alphas)
def test_a_difference_lies_within_its_bounds_and_turns_its_sign_with_the_groups(
    mean1: float, var1: float, n1: int, mean0: float, var0: float, n0: int, alpha: float
) -> None:
    low, high = difference_bounds(mean1, var1, n1, mean0, var0, n0, alpha)
    assert low <= mean1 - mean0 <= high
    back_low, back_high = difference_bounds(mean0, var0, n0, mean1, var1, n1, alpha)
    assert (back_low, back_high) == (-high, -low)


@settings(deadline=None, max_examples=200)
@given(variances, st.integers(2, 10**6), st.integers(2, 10**6), alphas)
def test_more_rows_and_a_larger_alpha_tell_more_of_a_difference(
    variance: float, n1: int, n0: int, alpha: float
) -> None:
    def high(rows: int, at: float) -> float:
        return difference_bounds(0.0, variance, rows, 0.0, variance, n0, at)[1]

    assert high(2 * n1, alpha) <= high(n1, alpha) * (1 + 1e-9)
    assert high(n1, alpha) <= high(n1, alpha / 2) * (1 + 1e-9)


@settings(deadline=None, max_examples=200)
@given(samples, samples, alphas, st.randoms())
def test_a_distance_lies_within_its_bounds_whatever_the_order_and_the_side(
    values1: np.ndarray, values0: np.ndarray, alpha: float, random: np.random.Generator
) -> None:
    found = distribution_bounds(values1, values0, alpha)
    value, low, high = found
    assert 0 <= low <= value <= high <= 1
    shuffled = values1.copy()
    random.shuffle(shuffled)
    assert distribution_bounds(values0, shuffled, alpha) == found


@settings(deadline=None, max_examples=50)
@given(alphas)
def test_a_band_never_widens_with_more_values(alpha: float) -> None:
    bands = [distribution_band(n, alpha) for n in (1, 10, 50, 51, 100, 1_000, 10**6)]
    assert all(later <= earlier for earlier, later in pairwise(bands))


@st.composite
def looks(draw: st.DrawFn) -> tuple[Step, list[Measurement]]:
    names = draw(st.lists(st.sampled_from("abcd"), unique=True, max_size=4))
    guards = tuple(
        Guard(name=name, kind=draw(st.sampled_from(["error_rate", "metric"])), limit=draw(shares))
        for name in names
    )
    step = Step(
        strategy="canary",
        weight=5,
        bake_seconds=0,
        timeout_seconds=1,
        min_requests=draw(st.integers(0, 50)),
        guards=guards,
    )
    found = [
        Measurement(
            guard=name,
            n_challenger=draw(st.integers(0, 100)),
            value=draw(numbers),
            low=draw(numbers),
            high=draw(numbers),
            error=draw(st.sampled_from(["", "", "gone"])),
        )
        for name in draw(st.lists(st.sampled_from("abcde"), unique=True, max_size=5))
    ]
    return step, found


@settings(deadline=None, max_examples=300)
@given(looks())
def test_a_check_is_successful_only_when_every_guard_was_measured_on_enough_rows(
    look: tuple[Step, list[Measurement]],
) -> None:
    step, found = look
    check = judge(0, step, found, 7, datetime(2026, 1, 1, tzinfo=UTC))

    by_name = {measurement.guard: measurement for measurement in found}
    assert [verdict.evidence.rule for verdict in check.verdicts] == [g.name for g in step.guards]
    if check.outcome == "successful":
        assert step.guards
        for guard in step.guards:
            measurement = by_name[guard.name]
            assert not measurement.error
            assert measurement.n_challenger >= step.min_requests
            assert measurement.value is not None
            assert measurement.value <= guard.limit
    failed = {v.evidence.rule for v in check.verdicts if v.outcome is Outcome.FAILED}
    assert (check.outcome == "failed") == bool(failed)
    for guard in step.guards:
        measurement = by_name.get(guard.name)
        if guard.name in failed:
            assert measurement is not None
            assert measurement.low is not None
            assert measurement.low > guard.limit
