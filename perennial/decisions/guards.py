"""What a look at a rollout's step says: each guard's verdict, and the worst of them.

A guard fails only when it is *surely* beyond its limit, and ``Measurement.low`` is sure at every
look at once (``perennial.decisions.sequential``). So a version without harm is rolled back with
probability ``Plan.alpha`` at most, over all looks, guards and steps. What was not measured, or on
too few rows, is inconclusive; what could not be measured is an error. Neither lets a step end well.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import isfinite

from perennial.contracts.rollouts import (
    OF_REQUESTS,
    Check,
    CheckOutcome,
    Guard,
    Measurement,
    Plan,
    Step,
)
from perennial.contracts.verdicts import Evidence, Outcome, Verdict
from perennial.decisions.wording import counted, figure, unlike

_WORST_FIRST: tuple[tuple[Outcome, CheckOutcome], ...] = (
    (Outcome.FAILED, "failed"),
    (Outcome.ERROR, "error"),
    (Outcome.INCONCLUSIVE, "inconclusive"),
    (Outcome.PASSED, "successful"),
)


def shares(plan: Plan) -> float:
    """The part of ``alpha`` that one guard has for one step.

    All guards of all steps have the same (Bonferroni), so that some guard of some step fails by
    chance with probability ``alpha`` at most, whatever they have to do with one another. A plan
    that watches nothing has all of it left.
    """
    return plan.alpha / max(sum(len(step.guards) for step in plan.steps), 1)


def judge(
    step_number: int, step: Step, measurements: Sequence[Measurement], requests: int, at: datetime
) -> Check:
    """The verdicts of a step's guards, in their order, and the worst: failed, error, inconclusive,
    successful.

    ``requests`` are the rows that the challenger answered (or scored) in this step. A guard fails
    when ``low`` is above its limit, on however few rows; it passes when it is not above its limit
    on at least ``min_requests`` of the challenger's rows. Measurements of guards that the step
    doesn't have are left out. A step without guards is inconclusive: nothing was measured.
    """
    found = {measurement.guard: measurement for measurement in measurements}
    measured = [found.get(guard.name, Measurement(guard=guard.name)) for guard in step.guards]
    verdicts = tuple(
        _verdict(guard, measurement, step.min_requests)
        for guard, measurement in zip(step.guards, measured, strict=True)
    )
    outcomes = {verdict.outcome for verdict in verdicts}
    outcome = next((name for worst, name in _WORST_FIRST if worst in outcomes), "inconclusive")
    return Check(
        at=at,
        step=step_number,
        outcome=outcome,
        requests=requests,
        measurements=tuple(measured),
        verdicts=verdicts,
    )


def _verdict(guard: Guard, measured: Measurement, min_rows: int) -> Verdict:
    value, low, limit = measured.value, measured.low, guard.limit
    evidence = Evidence(
        rule=guard.name,
        limit=limit,
        value=value,
        low=low,
        high=measured.high,
        n=measured.n_challenger,
    )
    if measured.error:
        reason = f"{guard.name} could not be measured: {measured.error}"
        return Verdict(outcome=Outcome.ERROR, reason=reason, evidence=evidence)
    if value is None or not isfinite(value):
        reason = f"{guard.name} has not been measured yet"
        return Verdict(outcome=Outcome.INCONCLUSIVE, reason=reason, evidence=evidence)
    unit = "request" if guard.kind in OF_REQUESTS else "row"
    told, on = _told(guard, value), f"on {counted(measured.n_challenger, unit)}"
    if low is not None and low > limit:
        sure = f"surely above {_amount(guard, low)}"
        reason = f"{guard.name}: {told}, {sure} {on}; at most {_amount(guard, limit)} is allowed"
        return Verdict(outcome=Outcome.FAILED, reason=reason, evidence=evidence)
    allowed = f"the {_amount(guard, limit)} allowed"
    if measured.n_challenger < min_rows:
        reason = f"{guard.name}: {told} {on}, fewer than the {min_rows:,} asked for"
        return Verdict(outcome=Outcome.INCONCLUSIVE, reason=reason, evidence=evidence)
    if value > limit:
        reason = f"{guard.name}: {told} {on}, above {allowed}, but not surely so"
        return Verdict(outcome=Outcome.INCONCLUSIVE, reason=reason, evidence=evidence)
    reason = f"{guard.name}: {told} {on}, within {allowed}"
    return Verdict(outcome=Outcome.PASSED, reason=reason, evidence=evidence)


def _told(guard: Guard, value: float) -> str:
    """What was measured, in words."""
    amount = _amount(guard, value)
    match guard.kind:
        case "error_rate":
            return f"{amount} failed"
        case "latency":
            slow = "" if guard.threshold is None else f" than {figure(guard.threshold)} ms"
            return f"{amount} took longer{slow}"
        case "prediction":
            return f"predictions are {amount} from the champion's"
        case "metric":
            return f"the loss is {_amount(guard, abs(value))} {_more(value)} than the champion's"
        case "business":
            column = guard.column or "the mean"
            return f"{column} is {_amount(guard, abs(value))} {_less(value)} than the champion's"


def _amount(guard: Guard, value: float) -> str:
    """In as many digits as show the side of the limit on which it lies; shares in percent."""
    if guard.kind in OF_REQUESTS:
        return f"{unlike(100 * value, 100 * guard.limit)} %"
    return unlike(value, guard.limit)


def _more(value: float) -> str:
    return "higher" if value >= 0 else "lower"


def _less(value: float) -> str:
    return "lower" if value >= 0 else "higher"
