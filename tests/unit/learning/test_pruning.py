"""Giving up on a trial: by where its curve leads, not by where it is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.learning.pruning import EVERY, hopeless

ROUNDS = 400


def fast(rounds: int) -> list[float]:
    """Falls from 0.5 to 0.42 within a few rounds, and no further."""
    return [0.42 + 0.08 * math.exp(-i / 4) for i in range(rounds)]


def slow(rounds: int) -> list[float]:
    """Falls evenly in the logarithm of the rounds, from 0.6 to 0.36 at 400."""
    return [0.6 - 0.04 * math.log2(i + 1) for i in range(rounds)]


FAST_END, SLOW_END = fast(ROUNDS)[-1], slow(ROUNDS)[-1]


def test_a_slow_learner_that_will_win_is_kept_at_every_look() -> None:
    assert slow(10)[-1] > fast(10)[-1], "at the first look it is behind"
    assert SLOW_END < FAST_END, "in the end it wins"
    looks = range(EVERY, ROUNDS + 1, EVERY)
    assert not any(hopeless(slow(rounds), [FAST_END], ROUNDS) for rounds in looks)


def test_a_curve_that_has_flattened_above_the_others_is_given_up() -> None:
    assert not hopeless(fast(10), [0.4], ROUNDS), "it still falls too quickly to tell"
    assert hopeless(fast(40), [0.4], ROUNDS)


def test_what_counts_is_the_best_of_the_finished_trials() -> None:
    flat = [0.5] * 40
    assert not hopeless(flat, [0.5, 0.6, 0.9], ROUNDS)
    assert hopeless(flat, [0.4, 0.6, 0.9], ROUNDS)


@pytest.mark.parametrize("seen", [0, 1])
def test_a_curve_of_less_than_two_rounds_says_nothing(seen: int) -> None:
    assert not hopeless([9.0] * seen, [0.1], ROUNDS)


LOSS = st.floats(-10, 10)


def falling(steps: list[float], start: float) -> list[float]:
    curve = [start]
    for step in steps:
        curve.append(curve[-1] - step)
    return curve


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), LOSS, st.lists(LOSS, max_size=7))
def test_nothing_is_hopeless_that_is_better_already_or_has_nothing_to_beat(
    steps: list[float], start: float, finished: list[float]
) -> None:
    curve = falling(steps, start)
    assert not hopeless(curve, [], ROUNDS)
    assert not hopeless(curve, [max(value, curve[-1]) for value in finished], ROUNDS)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=60),
    LOSS,
    st.lists(LOSS, min_size=1, max_size=7),
    st.floats(0, 5),
)
def test_a_trial_that_is_kept_is_kept_too_against_worse_ones(
    steps: list[float], start: float, finished: list[float], worse: float
) -> None:
    curve = falling(steps, start)
    if not hopeless(curve, finished, ROUNDS):
        assert not hopeless(curve, [value + worse for value in finished], ROUNDS)
