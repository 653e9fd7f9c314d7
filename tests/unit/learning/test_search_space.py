"""The space a study searches, its starting points, and what it proposes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.learning.space import (
    XGBOOST_DEFAULTS,
    clipped,
    parameter_importance,
    propose,
    searched,
    starting_points,
)
from perennial.learning.studies import TrialRecord, frozen
from perennial.spec import ModelSpec
from perennial.spec.parameters import TUNABLE
from perennial.spec.schema import Range

SPACE = {
    "learning_rate": Range(low=0.05, high=0.3, log=True),
    "max_depth": Range(low=3, high=8),
    "subsample": Range(low=0.5, high=1.0),
}


def trial(number: int, learning_rate: float, value: float, state: str = "complete") -> TrialRecord:
    params = {"learning_rate": learning_rate, "max_depth": 3 + number % 6, "subsample": 0.8}
    return TrialRecord(
        number, "search", params, state, value, 10, {10: value}, "", "", {}, 1.0  # type: ignore[arg-type]
    )  # fmt: skip


def ask(history: list[TrialRecord], count: int, seed: tuple[int, ...] = (7, 0)) -> list[object]:
    proposals = propose(SPACE, frozen(history, SPACE), greater_is_better=False, seed=seed)
    return list(islice(proposals, count))


def test_fixed_parameters_leave_the_space(make_spec: Callable[..., ModelSpec]) -> None:
    space = {"max_depth": [3, 8], "subsample": [0.5, 1.0]}
    spec = make_spec(training={"params": {"max_depth": 4}}, tuning={"space": space})
    assert list(searched(spec)) == ["subsample"]


def test_every_tunable_parameter_has_a_default_to_start_from() -> None:
    assert set(XGBOOST_DEFAULTS) == set(TUNABLE)


@pytest.mark.parametrize(
    ("former", "point"),
    [
        ({"learning_rate": 0.1, "max_depth": 5, "subsample": 0.9}, (0.1, 5, 0.9)),
        ({"learning_rate": 0.001, "max_depth": 99, "subsample": 0.9}, (0.05, 8, 0.9)),
        ({"learning_rate": 0.1, "gamma": 3.0}, (0.1, 6, 1.0)),
        ({"learning_rate": "fast", "max_depth": True, "subsample": None}, (0.3, 6, 1.0)),
        ({"max_depth": 4.6}, (0.3, 5, 1.0)),
    ],
    ids=["inside", "outside", "lacking and unknown", "not numbers", "a fraction of a depth"],
)
def test_former_parameters_are_brought_into_the_space(
    former: dict[str, object], point: tuple[float, int, float]
) -> None:
    found = clipped(former, SPACE)
    assert tuple(found[name] for name in SPACE) == point
    assert isinstance(found["max_depth"], int)


def test_a_study_starts_from_the_newest_former_versions_each_once() -> None:
    former = [{"max_depth": 5}, {"max_depth": 5}, {"max_depth": 7}, {"max_depth": 4}]
    assert [p["max_depth"] for p in starting_points(SPACE, former, 3)] == [5, 7]


@pytest.mark.parametrize(("former", "limit"), [([], 3), ([{"max_depth": 5}], 0)])
def test_a_study_without_former_versions_starts_from_xgboosts_defaults(
    former: list[dict[str, object]], limit: int
) -> None:
    assert starting_points(SPACE, former, limit) == [
        {"learning_rate": 0.3, "max_depth": 6, "subsample": 1.0}
    ]


def test_the_same_history_and_seed_give_the_same_proposals() -> None:
    history = [trial(i, 0.05 + 0.02 * i, abs(i - 4) / 10) for i in range(12)]
    assert ask(history, 4) == ask(history, 4)
    assert ask(history, 2) == ask(history, 4)[:2], "those to come change nothing"
    assert ask(history, 4) != ask(history, 4, seed=(7, 4))
    assert ask(history, 4) != ask(history[:-1], 4)


def test_the_proposals_of_a_round_differ_from_one_another() -> None:
    history = [trial(i, 0.05 + 0.02 * i, abs(i - 4) / 10) for i in range(12)]
    assert len({str(point) for point in ask(history, 8)}) == 8


def test_the_search_goes_where_trials_were_good() -> None:
    history = [trial(i, 0.05 + 0.01 * i, abs(0.1 - (0.05 + 0.01 * i))) for i in range(25)]
    rates = [point["learning_rate"] for point in ask(history, 30)]  # type: ignore[index]
    near = sum(abs(rate - 0.1) < 0.05 for rate in rates)
    assert near > 20


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(0.05, 0.3), st.floats(-5, 5)), max_size=15), st.integers(0, 99))
def test_proposals_lie_in_the_space_and_whole_numbers_stay_whole(
    seen: list[tuple[float, float]], seed: int
) -> None:
    history = [trial(i, rate, value) for i, (rate, value) in enumerate(seen)]
    for point in ask(history, 3, seed=(seed,)):
        assert clipped(point, SPACE) == point  # type: ignore[arg-type]


def test_the_parameter_that_mattered_is_found() -> None:
    history = [trial(i, 0.05 + 0.01 * i, abs(0.2 - (0.05 + 0.01 * i))) for i in range(25)]
    shares = parameter_importance(frozen(history, SPACE), greater_is_better=False)
    assert next(iter(shares)) == "learning_rate"
    assert sum(shares.values()) == pytest.approx(1)
    given_up = [replace(one, state="pruned") if one.number > 2 else one for one in history]
    assert parameter_importance(frozen(given_up, SPACE), greater_is_better=False) == shares


@pytest.mark.parametrize(
    "history",
    [
        [],
        [trial(i, 0.1 + i / 100, i / 10) for i in range(3)],
        [trial(i, 0.1 + i / 100, 0.5) for i in range(9)],
    ],
    ids=["none", "three", "all alike"],
)
def test_too_little_to_tell_what_mattered_is_told_as_nothing(history: list[TrialRecord]) -> None:
    assert parameter_importance(frozen(history, SPACE), greater_is_better=False) == {}
