"""Intervals that hold at every look: their values, what they know when little is known."""

from __future__ import annotations

from math import inf, log, nan, sqrt

import numpy as np
import pytest
from scipy import stats

from perennial.decisions.sequential import (
    bernoulli_bounds,
    difference_bounds,
    distribution_band,
    distribution_bounds,
)


def test_a_rate_of_nothing_may_be_anything() -> None:
    assert bernoulli_bounds(0, 0, 0.05) == (0.0, 1.0)


def test_a_rate_is_bounded_where_its_likelihood_is_alpha_of_the_mixtures() -> None:
    """Against the integral over the mixture's density itself, half uniform and half Beta(1, 30)."""
    successes, n, alpha = 7, 120, 0.01
    rates = np.linspace(0, 1, 2_000_001)
    density = 0.5 + 0.5 * stats.beta(1, 30).pdf(rates)
    mixed = np.trapezoid(density * rates**successes * (1 - rates) ** (n - successes), rates)
    low, high = bernoulli_bounds(successes, n, alpha)
    for bound in (low, high):
        likelihood = bound**successes * (1 - bound) ** (n - successes)
        assert likelihood == pytest.approx(alpha * mixed, rel=1e-5)
    assert low < successes / n < high


@pytest.mark.parametrize("n", [1, 40, 100_000])
def test_what_never_or_always_happened_is_bounded_on_one_side(n: int) -> None:
    low, high = bernoulli_bounds(0, n, 0.05)
    assert low == 0.0
    assert 0 < high < 1
    low, high = bernoulli_bounds(n, n, 0.05)
    assert 0 < low < 1
    assert high == 1.0


def test_a_rate_of_many_rows_is_known_well_and_to_many_digits() -> None:
    low, high = bernoulli_bounds(10_000_000, 1_000_000_000, 0.05)
    error = sqrt(0.01 * 0.99 / 1_000_000_000)
    assert 0.01 - 7 * error < low < 0.01 - 3 * error
    assert 0.01 + 3 * error < high < 0.01 + 7 * error


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="5 successes of 4 are not possible"):
        bernoulli_bounds(5, 4, 0.05)
    with pytest.raises(ValueError, match="-1 successes of 4 are not possible"):
        bernoulli_bounds(-1, 4, 0.05)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, nan])
def test_an_alpha_that_is_no_probability_is_refused(alpha: float) -> None:
    message = f"alpha {alpha} is not between 0 and 1"
    with pytest.raises(ValueError, match=message):
        bernoulli_bounds(1, 4, alpha)
    with pytest.raises(ValueError, match=message):
        difference_bounds(1, 1, 9, 0, 1, 9, alpha)
    with pytest.raises(ValueError, match=message):
        distribution_bounds(np.zeros(3), np.ones(3), alpha)


def test_a_difference_of_many_rows_is_the_mixture_of_normals() -> None:
    """The boundary of arXiv 2103.06476 at the rows an arm for which it is tightest, two arms."""
    alpha, n = 0.01, 1_000
    rows = n / 2
    prior = rows / (-2 * log(alpha) + log(1 - 2 * log(alpha)))
    radius = sqrt((rows + prior) / rows**2 * log((rows + prior) / (prior * alpha**2)))
    low, high = difference_bounds(3.0, 1.0, n, 1.0, 1.0, n, alpha)
    assert (low + high) / 2 == pytest.approx(2.0)
    assert (high - low) / 2 == pytest.approx(radius, rel=0.01)


def test_a_difference_of_few_rows_says_nothing() -> None:
    assert difference_bounds(1.0, 1.0, 1, 0.0, 1.0, 1_000, 0.05) == (-inf, inf)
    assert difference_bounds(1.0, 0.0, 0, 0.0, 0.0, 0, 0.05) == (-inf, inf)
    assert difference_bounds(1.0, 0.0, 5, 0.0, 0.0, 5, 0.05) == (-inf, inf)


def test_a_group_that_varies_less_is_taken_to_vary_as_the_other() -> None:
    """Sixty visits without a purchase tell nothing of revenue yet."""
    none_yet = difference_bounds(0.0, 0.0, 60, 0.5, 25.0, 1_140, 0.05)
    assert none_yet == difference_bounds(0.0, 25.0, 60, 0.5, 25.0, 1_140, 0.05)
    assert none_yet[1] > 0


@pytest.mark.parametrize("bad", [nan, inf])
def test_a_difference_of_what_is_not_finite_says_nothing(bad: float) -> None:
    assert difference_bounds(bad, 1.0, 100, 0.0, 1.0, 100, 0.05) == (-inf, inf)
    assert difference_bounds(0.0, bad, 100, 0.0, 1.0, 100, 0.05) == (-inf, inf)
    assert difference_bounds(0.0, 1.0, 100, 0.0, bad, 100, 0.05) == (-inf, inf)


def test_a_negative_variance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a variance is negative: -1\.0, 1\.0"):
        difference_bounds(0.0, -1.0, 100, 0.0, 1.0, 100, 0.05)


def test_a_band_is_that_of_the_paper_and_says_nothing_of_few_values() -> None:
    assert distribution_band(49, 0.05) == 1.0
    assert distribution_band(50, 0.05) == pytest.approx(0.85 * sqrt(0.8 * log(1612 / 0.05) / 50))
    expected = 0.85 * sqrt((log(log(np.e * 5_000 / 50)) + 0.8 * log(1612 / 0.05)) / 5_000)
    assert distribution_band(5_000, 0.05) == pytest.approx(expected)


def test_the_distance_of_distributions_is_that_of_kolmogorov_and_smirnov() -> None:
    random = np.random.default_rng(3)
    values1, values0 = random.normal(0.3, 1, 700), random.normal(0, 1, 2_000).round(1)
    value, low, high = distribution_bounds(values1, values0, 0.05)
    assert value == pytest.approx(stats.ks_2samp(values1, values0).statistic)
    band = distribution_band(700, 0.025) + distribution_band(2_000, 0.025)
    assert (low, high) == (max(value - band, 0.0), min(value + band, 1.0))


def test_distributions_that_do_not_overlap_are_surely_apart_after_a_few_rows() -> None:
    assert distribution_bounds(np.zeros(10), np.ones(10), 0.05) == (1.0, 0.0, 1.0)
    value, low, _ = distribution_bounds(np.zeros(100), np.ones(100), 0.05)
    assert value == 1.0
    assert low > 0.4


def test_distributions_of_nothing_say_nothing() -> None:
    assert distribution_bounds(np.empty(0), np.ones(900), 0.05) == (0.0, 0.0, 1.0)
    assert distribution_bounds(np.ones(900), np.empty(0), 0.05) == (0.0, 0.0, 1.0)


def test_a_missing_prediction_counts_as_a_value_above_all_others() -> None:
    half = np.concatenate([np.ones(500), np.full(500, nan)])
    value, low, _ = distribution_bounds(half, np.ones(1_000), 0.05)
    assert value == 0.5
    assert low > 0.2
    assert distribution_bounds(half, half, 0.05)[0] == 0.0
