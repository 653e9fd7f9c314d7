"""From the section ``rollout`` of model.yaml to a plan."""

from __future__ import annotations

from typing import Any

import pytest

from perennial.contracts.rollouts import Guard, Limits, Plan
from perennial.decisions.plans import plan_of
from perennial.spec.production import Rollout

GUARDS = {"error_rate": 0.01}
LOSS = {"metric": {"name": "logloss", "max_loss": 0.02}}


def plan(**written: Any) -> Plan:
    return plan_of(Rollout.model_validate(written))


def shares(made: Plan) -> list[tuple[str, int]]:
    return [(step.strategy, step.weight) for step in made.steps]


def test_the_default_is_a_switch_at_once() -> None:
    assert plan_of(Rollout()) == Plan(steps=())


def test_a_blue_green_with_a_guard_has_a_step_to_wait_at() -> None:
    [step] = plan(guards=GUARDS).steps
    assert (step.strategy, step.weight) == ("blue_green", 100)
    assert (step.bake_seconds, step.timeout_seconds, step.min_requests) == (600, 86_400, 100)


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [
        ("shadow", [("shadow", 0)]),
        ("ab_test", [("ab_test", 20)]),
        ("canary", [("canary", 30), ("canary", 100)]),
        ("blue_green", [("blue_green", 100)]),
        (["shadow", "canary"], [("shadow", 0), ("canary", 30), ("canary", 100)]),
        (
            ["shadow", "ab_test", "canary"],
            [("shadow", 0), ("ab_test", 20), ("canary", 30), ("canary", 100)],
        ),
        (
            ["shadow", "ab_test", "blue_green"],
            [("shadow", 0), ("ab_test", 20), ("blue_green", 100)],
        ),
    ],
)
def test_each_strategy_gives_its_steps(strategy: Any, steps: list[tuple[str, int]]) -> None:
    own = {"steps": [30, 100]} if "canary" in strategy else {}
    own |= {"split": 20} if "ab_test" in strategy else {}
    assert shares(plan(strategy=strategy, guards=GUARDS | LOSS, **own)) == steps


def test_every_step_has_the_same_times_guards_and_least_requests() -> None:
    made = plan(
        strategy=["shadow", "canary"], bake="90s", timeout="6h", min_requests=7, guards=GUARDS
    )
    assert len(made.steps) == 5
    for step in made.steps:
        assert (step.bake_seconds, step.timeout_seconds, step.min_requests) == (90, 21_600, 7)
        assert [guard.name for guard in step.guards] == ["error_rate"]


@pytest.mark.parametrize(
    ("approval", "waiting"),
    [
        (False, [False, False, False, False]),
        (True, [False, True, True, True]),
        ([25, 100], [False, False, True, True]),
    ],
)
def test_a_person_approves_what_gives_the_version_requests_or_the_percents_named(
    approval: Any, waiting: list[bool]
) -> None:
    made = plan(strategy=["shadow", "canary"], steps=[5, 25, 100], approval=approval, guards=GUARDS)
    assert [step.approval for step in made.steps] == waiting


def test_percents_to_approve_are_the_canarys_not_those_of_another_strategy() -> None:
    made = plan(
        strategy=["ab_test", "canary"], split=50, steps=[50, 100], approval=[50], guards=LOSS
    )
    assert [step.approval for step in made.steps] == [False, True, False]


def test_guards_carry_their_limit_in_the_unit_they_are_measured_in() -> None:
    guards = {
        "error_rate": 0,
        "p50_ms": 10,
        "p95_ms": 50,
        "p99_ms": 100.5,
        "prediction_shift": 0.1,
        "metric": {"name": "brier", "max_loss": 0.02},
        "business": [
            {"column": "revenue", "max_loss": 0.5},
            {"column": "error_rate", "max_loss": 0},
        ],
    }
    [step] = plan(guards=guards).steps
    assert step.guards == (
        Guard(name="error_rate", kind="error_rate", limit=0),
        Guard(name="p50_ms", kind="latency", limit=0.5, threshold=10),
        Guard(name="p95_ms", kind="latency", limit=0.05, threshold=50),
        Guard(name="p99_ms", kind="latency", limit=0.01, threshold=100.5),
        Guard(name="prediction_shift", kind="prediction", limit=0.1),
        Guard(name="brier", kind="metric", limit=0.02),
        Guard(name="mean revenue", kind="business", limit=0.5, column="revenue"),
        Guard(name="mean error_rate", kind="business", limit=0, column="error_rate"),
    )


def test_alpha_and_limits_are_the_specs() -> None:
    limits = {"failed": 1, "inconclusive": 20, "error": 0}
    made = plan(alpha=0.01, limits=limits, guards=GUARDS)
    assert (made.alpha, made.limits) == (0.01, Limits(failed=1, inconclusive=20, error=0))
