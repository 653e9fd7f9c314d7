"""The plan of a rollout, from what model.yaml says of it."""

from __future__ import annotations

from collections.abc import Iterator

from perennial.contracts.rollouts import Guard, Limits, Plan, Step, Strategy
from perennial.spec.production import Guards
from perennial.spec.production import Rollout as RolloutSpec

_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.05, "p99_ms": 0.01}
"""The share of requests that may take longer."""


def plan_of(rollout: RolloutSpec) -> Plan:
    """The steps that a version takes, in order.

    A blue_green without guards has no step to wait at: its plan has none, as that of the defaults.
    Guards are named by their keys, that of ``metric`` by its loss, one of ``business`` ``mean
    <column>``.
    """
    limits = Limits(**rollout.limits.model_dump())
    guards = tuple(_guards(rollout.guards))
    if rollout.strategies == ("blue_green",) and not guards:
        return Plan(steps=(), alpha=rollout.alpha, limits=limits)
    steps = tuple(
        Step(
            strategy=strategy,
            weight=weight,
            bake_seconds=rollout.bake.total_seconds(),
            timeout_seconds=rollout.timeout.total_seconds(),
            min_requests=rollout.min_requests,
            approval=_waits(rollout, strategy, weight),
            guards=guards,
        )
        for strategy in rollout.strategies
        for weight in _weights(rollout, strategy)
    )
    return Plan(steps=steps, alpha=rollout.alpha, limits=limits)


def _weights(rollout: RolloutSpec, strategy: Strategy) -> tuple[int, ...]:
    match strategy:
        case "shadow":
            return (0,)
        case "ab_test":
            return (rollout.split,)
        case "canary":
            return rollout.steps
        case "blue_green":
            return (100,)


def _waits(rollout: RolloutSpec, strategy: Strategy, weight: int) -> bool:
    if isinstance(rollout.approval, bool):
        return rollout.approval and weight > 0
    return strategy == "canary" and weight in rollout.approval


def _guards(guards: Guards) -> Iterator[Guard]:
    if guards.error_rate is not None:
        yield Guard(name="error_rate", kind="error_rate", limit=guards.error_rate)
    for name, share in _QUANTILES.items():
        threshold = getattr(guards, name)
        if threshold is not None:
            yield Guard(name=name, kind="latency", limit=share, threshold=threshold)
    if guards.prediction_shift is not None:
        yield Guard(name="prediction_shift", kind="prediction", limit=guards.prediction_shift)
    if guards.metric is not None:
        yield Guard(name=guards.metric.name, kind="metric", limit=guards.metric.max_loss)
    for business in guards.business:
        name, column = f"mean {business.column}", business.column
        yield Guard(name=name, kind="business", limit=business.max_loss, column=column)
