"""Four policies walked through one past, and what is to be made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise

from perennial.contracts.backtest import (
    POLICIES,
    Attempt,
    BacktestPlan,
    BacktestResult,
    Policy,
    PolicyResult,
)
from perennial.contracts.errors import InputError, Problem
from perennial.contracts.metrics import METRICS
from perennial.contracts.retraining import Result
from perennial.decisions.backtest import Seen, walk
from perennial.decisions.choosing import choose, mean_metric
from perennial.decisions.wording import counted
from perennial.spec import ModelSpec
from perennial.stores.hindsight.past import Judged, Past

Progress = Callable[[int, int, str], None]


def walk_past(
    spec: ModelSpec, plan: BacktestPlan, past: Past, progress: Progress = lambda *_: None
) -> BacktestResult:
    """Walk every policy through the plan's moments.

    The version of the first moment serves until a policy replaces it, whatever the gates say of it.
    Deterministic but for seconds. ``progress`` is called with steps done, steps in all, and a line
    of text. Raises PerennialError when no first version can be trained, InputError when the metric
    can't be measured in any step.
    """
    first = past.judged(plan.moments[0], None)
    if first.outcome == "failed":
        what = f"no version could be trained at {plan.moments[0]:%Y-%m-%d %H:%M}: {first.verdict}"
        raise InputError(Problem(spec.name, what, "give a later --start"))
    ends = [*plan.moments[1:], plan.end]
    rows = tuple(past.labelled_rows(*step) for step in zip(plan.moments, ends, strict=True))
    walked = _Walked(spec, plan, past, rows, progress)
    walked.prepare()
    policies = tuple(walked.by(policy) for policy in POLICIES)
    if policies[0].metric is None:
        what = f"{plan.metric} is not defined by the labelled rows of any step of {plan.every}"
        raise InputError(Problem("--every", what, "take longer steps"))
    better = METRICS[plan.metric].greater_is_better
    return BacktestResult(
        model=spec.name,
        plan=plan.model_copy(update={"recipe": past.recipe}),
        greater_is_better=better,
        step_rows=rows,
        policies=policies,
        choice=choose(plan.metric, policies, rows, greater_is_better=better, seed=spec.split.seed),
        notes=tuple(_notes(spec, plan, past, first)),
    )


class _Walked:
    """Walks of one plan, one policy at a time."""

    def __init__(
        self,
        spec: ModelSpec,
        plan: BacktestPlan,
        past: Past,
        rows: tuple[int, ...],
        progress: Progress,
    ) -> None:
        self._spec, self._plan, self._past, self._rows = spec, plan, past, rows
        self._progress = progress
        self._due = _due(spec, plan, past)
        self._total = len(self._due) + len(POLICIES) * len(plan.moments)
        self._done = 0

    def prepare(self) -> None:
        """Train what the schedule will ask for."""

        def tell(done: int) -> None:
            self._progress(done, self._total, f"trains candidates, {done} of {len(self._due)}")

        self._past.prepare(self._due, tell)
        self._done = len(self._due)

    def by(self, policy: Policy) -> PolicyResult:
        plan, past = self._plan, self._past
        start = plan.moments[0]
        done = self._done

        def tell(at: datetime, what: str) -> None:
            self._done = done + plan.moments.index(at)
            self._progress(self._done, self._total, f"{policy}: {what} {at:%Y-%m-%d}")

        def look(at: datetime, trained_at: datetime) -> Seen:
            tell(at, "looks at")
            return past.seen(at, trained_at)

        def train(at: datetime, trained_at: datetime) -> Result:
            tell(at, "trains at")
            return past.judged(at, trained_at).outcome

        steps = walk(policy, plan.moments[1:], start, self._spec.retrain, look, train)
        serving = (start, *(step.trained_at for step in steps))
        attempts = []
        for before, at, step in zip(serving, plan.moments[1:], steps, strict=False):
            if step.outcome is not None:
                judged = past.judged(at, before)
                attempts.append(
                    Attempt(at=at, reason=step.answer.reason, beaten=before, **judged.model_dump())
                )
        values = tuple(
            past.metric(plan.metric, trained_at, *step)
            for trained_at, step in zip(serving, pairwise((*plan.moments, plan.end)), strict=True)
        )
        self._done = done + len(plan.moments)
        self._progress(self._done, self._total, f"{policy}: done")
        return PolicyResult(
            policy=policy,
            metric=mean_metric(values, self._rows),
            values=values,
            serving=serving,
            attempts=tuple(attempts),
        )


def _due(spec: ModelSpec, plan: BacktestPlan, past: Past) -> list[datetime]:
    """When the schedule trains, whatever comes of it."""
    later = plan.moments[1:]
    steps = walk("schedule", later, plan.moments[0], spec.retrain, past.seen, lambda *_: "kept")
    return [at for at, step in zip(later, steps, strict=True) if step.outcome]


def _notes(spec: ModelSpec, plan: BacktestPlan, past: Past, first: Judged) -> Iterator[str]:
    yield (
        f"Every candidate has the same parameters, {past.recipe.origin}: they were not searched "
        "anew, so seconds (of one processor) are of features and boosting only."
    )
    yield (
        "A candidate is trained on what was known at its moment: labels "
        "come label.delay after their events. Gates about serving were not asked."
    )
    yield (
        "perennial hears of drift and of late labels as the drift watch does, without estimates of "
        "performance, schedules or new data."
    )
    if first.outcome != "promoted":
        yield f"The first version serves although its gates would not have passed: {first.verdict}"
    if plan.rows < plan.dataset.rows:
        yield f"Walked through a random part of {counted(plan.dataset.rows)}: {plan.rows:,}."
    if not (spec.retrain.on and {"drift", "performance"} & set(spec.retrain.on)):
        yield "model.yaml's retrain.on has neither drift nor performance: perennial never retrains."
