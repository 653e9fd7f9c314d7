"""The section ``rollout``: what its keys ask of one another and of other sections."""

from __future__ import annotations

from typing import Any

import pytest

from perennial.spec.production import Rollout

GUARDS = {"error_rate": 0.01}
LOSS = {"metric": {"name": "logloss", "max_loss": 0.02}}


@pytest.mark.parametrize(
    ("rollout", "said"),
    [
        # strategies
        (
            {"strategy": ["canary", "shadow"], "guards": GUARDS},
            ["strategy: a chain is of shadow, ab_test and then canary or blue_green, "
             "not [canary, shadow]"],
        ),
        (
            {"strategy": ["canary", "blue_green"], "guards": GUARDS},
            ["strategy: a chain is of shadow, ab_test and then canary or blue_green, "
             "not [canary, blue_green]"],
        ),
        (
            {"strategy": ["shadow", "shadow"], "guards": GUARDS},
            ["strategy: a chain is of shadow, ab_test and then canary or blue_green, "
             "not [shadow, shadow]"],
        ),
        ({"strategy": "shadow, canary", "guards": GUARDS}, [
            "strategy: 'shadow, canary' is not one of shadow, canary, blue_green, ab_test; "
            "did you mean 'shadow'?"
        ]),
        # keys that belong to a strategy
        (
            {"steps": [5, 100], "guards": GUARDS},
            ["steps: only a canary has steps; write strategy: canary"],
        ),
        ({"split": 20}, ["split: only an ab_test has a split; write strategy: ab_test"]),
        (
            {"strategy": "shadow", "approval": [5], "guards": GUARDS},
            ["approval: only a canary has percents to approve; "
             "write true, or strategy: canary"],
        ),
        (
            {"strategy": "canary", "approval": [5, 30], "guards": GUARDS},
            ["approval.1: 30 is none of the steps 5, 25, 50, 100"],
        ),
        # steps
        (
            {"strategy": "canary", "steps": [], "guards": GUARDS},
            ["steps: must not be empty"],
        ),
        (
            {"strategy": "canary", "steps": 5, "guards": GUARDS},
            ["steps: expected a list such as [a, b], not 5"],
        ),
        (
            {"strategy": "canary", "steps": [50, 25, 100], "guards": GUARDS},
            ["steps: steps rise and end at 100, not [50, 25, 100]"],
        ),
        (
            {"strategy": "canary", "steps": [5, 5, 100], "guards": GUARDS},
            ["steps: steps rise and end at 100, not [5, 5, 100]"],
        ),
        (
            {"strategy": "canary", "steps": [5, 50], "guards": GUARDS},
            ["steps: steps rise and end at 100, not [5, 50]"],
        ),
        (
            {"strategy": ["ab_test", "canary"], "guards": LOSS},
            ["steps: the canary takes over from ab_test's split of 50 %; "
             "begin at that or above, not at 5"],
        ),
        (
            {"strategy": "ab_test", "split": 100, "guards": LOSS},
            ["split: must be at most 99, not 100"],
        ),
        # guards
        (
            {"strategy": "canary"},
            ["guards: canary needs a guard, such as error_rate: 0.01; none is given"],
        ),
        (
            {"strategy": ["shadow", "blue_green"], "guards": {}},
            ["guards: shadow and blue_green need a guard, such as error_rate: 0.01; "
             "none is given"],
        ),
        (
            {"strategy": "ab_test", "guards": GUARDS},
            ["guards: an ab_test decides by labels; give metric or business"],
        ),
        (
            {"bake": "1h"},
            ["guards: without a guard a blue_green switches at once, and bake has no meaning; "
             "give a guard, such as error_rate: 0.01, or remove bake"],
        ),
        (
            {"approval": True},
            ["guards: without a guard a blue_green switches at once, and approval has no "
             "meaning; give a guard, such as error_rate: 0.01, or remove approval"],
        ),
        (
            {"bake": "1h", "timeout": "2h", "min_requests": 10, "alpha": 0.1, "limits": {},
             "check_every": "1s"},
            ["guards: without a guard a blue_green switches at once, and bake, timeout, "
             "min_requests, alpha, limits, check_every have no meaning; give a guard, "
             "such as error_rate: 0.01, or remove them"],
        ),
        (
            {"guards": {"business": [{"column": "a", "max_loss": 0}] * 2}},
            ["guards.business.1: 'a' is given twice"],
        ),
        (
            {"guards": {"business": [{"column": "", "max_loss": -1, "max_los": 1}]}},
            [
                "guards.business.0.column: must not be empty",
                "guards.business.0.max_loss: must be at least 0, not -1",
                "guards.business.0.max_los: unknown key 'max_los'; did you mean 'max_loss'?",
            ],
        ),
        (
            {"guards": {"metric": {"name": "log_loss", "max_loss": 0}}},
            ["guards.metric.name: 'log_loss' is not one of logloss, brier, absolute_error, "
             "squared_error; did you mean 'logloss'?"],
        ),
        (
            {"guards": {"metric": {"name": "absolute_error", "max_loss": 1}}},
            ["guards.metric.name: 'absolute_error' is no loss of a binary model; "
             "use logloss or brier"],
        ),
        # time
        (
            {"bake": "2h", "timeout": "2h", "guards": GUARDS},
            ["timeout: a step lasts 2h at least (bake), so the longest must be above that, "
             "not 2h"],
        ),
    ],
)  # fmt: skip
def test_a_broken_rule_of_the_rollout_is_told_at_its_key(
    mistakes: Any, rollout: dict[str, Any], said: list[str]
) -> None:
    assert mistakes({"rollout": rollout}) == [f"rollout.{text}" for text in said]


def test_a_guard_by_labels_needs_a_step_that_lasts_until_they_come(mistakes: Any) -> None:
    rollout = {"strategy": "canary", "guards": LOSS}
    assert mistakes({"rollout": rollout, "label.delay": "2d"}) == [
        "rollout.timeout: labels come 2d after the event (label.delay), but a step ends after 1d, "
        "before a guard by labels has any; make it longer"
    ]


def test_guards_need_the_log(mistakes: Any) -> None:
    assert mistakes({"rollout": {"guards": GUARDS}, "log": {"enabled": False}}) == [
        "log.enabled: rollout.guards are measured on the log; without it none ever is"
    ]


@pytest.mark.parametrize(
    ("objective", "loss", "valid"),
    [
        ("multiclass", "brier", "logloss"),
        ("regression", "logloss", "absolute_error or squared_error"),
    ],
)
def test_a_loss_belongs_to_its_objective(
    mistakes: Any, objective: str, loss: str, valid: str
) -> None:
    guards = {"metric": {"name": loss, "max_loss": 0}}
    assert mistakes({"objective": objective, "rollout": {"guards": guards}}) == [
        f"rollout.guards.metric.name: {loss!r} is no loss of a {objective} model; use {valid}"
    ]


def earning(*columns: str) -> dict[str, Any]:
    business = [{"column": column, "max_loss": 0} for column in columns]
    return {"strategy": "canary", "guards": {"business": business}}


@pytest.mark.parametrize(
    ("column", "changes", "said"),
    [
        (
            "country",
            {},
            "a category column is not a number; name a float, integer or boolean column, or a "
            "number that comes with the labels",
        ),
        (
            "id",
            {},
            "a string column is not a number; name a float, integer or boolean column, or a "
            "number that comes with the labels",
        ),
        ("at", {}, "the event time is not a number"),
        ("amount", {"log.omit": ["amount"]}, "log.omit keeps the column's numbers out of the log"),
        ("count", {"log.hash": ["count"]}, "log.hash keeps the column's numbers out of the log"),
        (
            "late",
            {},
            "the label of a binary model is a class, not a number; send the number with the "
            "labels, under another name",
        ),
        (
            "late",
            {"columns.late": {"type": "integer"}, "objective": "multiclass"},
            "the label of a multiclass model is a class, not a number; send the number with the "
            "labels, under another name",
        ),
    ],
)
def test_a_business_column_that_would_never_be_measured_is_refused(
    mistakes: Any, column: str, changes: dict[str, Any], said: str
) -> None:
    assert mistakes({"rollout": earning("revenue", column), **changes}) == [
        f"rollout.guards.business.1.column: {said}"
    ]


def test_a_business_column_is_a_number_of_the_log_or_of_the_labels(spec: Any) -> None:
    given = earning("amount", "count", "gift", "revenue")
    guards = spec(columns__gift={"type": "boolean"}, rollout=given).rollout.guards
    assert [guard.column for guard in guards.business] == ["amount", "count", "gift", "revenue"]
    assert spec(objective="regression", rollout=earning("late")).rollout.guards.by_labels


@pytest.mark.parametrize(
    ("written", "strategies"),
    [
        ("canary", ("canary",)),
        (["canary"], ("canary",)),
        (["shadow", "canary"], ("shadow", "canary")),
        (["shadow", "ab_test", "blue_green"], ("shadow", "ab_test", "blue_green")),
    ],
)
def test_strategies_follow_one_another_as_they_are_written(
    spec: Any, written: Any, strategies: tuple[str, ...]
) -> None:
    rollout = spec(rollout={"strategy": written, "guards": GUARDS | LOSS}).rollout
    assert rollout.strategies == strategies


def test_a_canary_may_go_on_from_where_an_ab_test_left_off(spec: Any) -> None:
    made = {"strategy": ["ab_test", "canary"], "steps": [50, 100], "guards": LOSS}
    assert spec(rollout=made).rollout.steps == (50, 100)


@pytest.mark.parametrize("written", [{}, {"bake": "0s"}, {"strategy": ["blue_green"]}])
def test_a_blue_green_without_guards_may_stand_by_itself(
    spec: Any, written: dict[str, Any]
) -> None:
    rollout = spec(rollout=written).rollout
    assert (rollout.strategies, rollout.guards.given) == (("blue_green",), False)


def test_a_guard_that_allows_nothing_is_a_guard() -> None:
    rollout = Rollout.model_validate({"strategy": "canary", "guards": {"error_rate": 0}})
    assert rollout.guards.given
    assert not rollout.guards.by_labels
