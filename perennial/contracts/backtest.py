"""Policies of retraining compared over a model's past: what each would have served, and cost."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import AwareDatetime

from perennial.contracts.refs import DatasetRef, Value
from perennial.contracts.retraining import Result

Policy = Literal["never", "schedule", "drift", "perennial"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


class Recipe(Value):
    """What every candidate is trained with. ``rounds`` None: as many as early stopping finds at the
    backtest's start. ``origin`` says where they come from, for people."""

    params: dict[str, float | int | str]
    rounds: int | None
    origin: str


class BacktestPlan(Value):
    """What a backtest walks through. Steps are half open: from each of ``moments`` to the next, the
    last one to ``end``. The first version is trained at ``moments[0]``.

    ``rows`` of the dataset's are used: all, or a random part of a long history.
    """

    dataset: DatasetRef
    moments: tuple[AwareDatetime, ...]
    end: AwareDatetime
    every: str
    metric: str
    rows: int
    recipe: Recipe


class Attempt(Value):
    """A retraining that a policy would have begun. ``reason`` is why, ``verdict`` what the gates
    said of its candidate (or why there was none), ``beaten`` when the version then serving had been
    trained, ``rows`` those read for the candidate, ``seconds`` what it took of one processor."""

    at: AwareDatetime
    reason: str
    outcome: Result
    verdict: str
    beaten: AwareDatetime
    rows: int
    seconds: float


class PolicyResult(Value):
    """What a policy came to. ``values`` are the metric of each step, by the version that would have
    served it; None where the step's rows don't define it. ``serving`` tells each step's version by
    when it was trained. ``metric`` is the mean of the values, weighed by the steps' rows.
    """

    policy: Policy
    metric: float | None
    values: tuple[float | None, ...]
    serving: tuple[AwareDatetime, ...]
    attempts: tuple[Attempt, ...]

    @property
    def accepted(self) -> int:
        return sum(attempt.outcome == "promoted" for attempt in self.attempts)

    @property
    def rows(self) -> int:
        """Rows read for all its trainings."""
        return sum(attempt.rows for attempt in self.attempts)

    @property
    def seconds(self) -> float:
        return sum(attempt.seconds for attempt in self.attempts)


class Difference(Value):
    """One policy's metric less another's, paired step by step. ``gain`` > 0: ``policy`` is better,
    whatever the metric's direction. ``low`` and ``high`` are one-sided bounds at ``confidence``
    each; None with too few steps for any. ``steps`` are those in which the two differ. ``counts``:
    the gain is beyond noise, and not too small to matter."""

    policy: Policy
    against: Policy
    gain: float
    low: float | None
    high: float | None
    confidence: float
    steps: int
    counts: bool


class Choice(Value):
    """The policy that is recommended, and why. ``front`` are those that no other beats in metric
    without costing more, the cheapest first; ``differences`` every pair once."""

    policy: Policy
    reason: str
    front: tuple[Policy, ...]
    differences: tuple[Difference, ...]


class BacktestResult(Value):
    """A walk through the past. ``step_rows`` are the labelled rows of each step, ``notes`` what a
    reader must know to trust the figures."""

    model: str
    plan: BacktestPlan
    greater_is_better: bool
    step_rows: tuple[int, ...]
    policies: tuple[PolicyResult, ...]
    choice: Choice
    notes: tuple[str, ...]


class BacktestSummary(Value):
    """A backtest, and where it is written down."""

    result: BacktestResult
    report_uri: str
    json_uri: str
    seconds: float
