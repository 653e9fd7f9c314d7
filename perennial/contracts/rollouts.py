"""How a version earns a model's traffic, and what it did with it. Times are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime

from perennial.contracts.refs import Value
from perennial.contracts.routes import Arm
from perennial.contracts.verdicts import Verdict

Strategy = Literal["shadow", "canary", "blue_green", "ab_test"]
GuardKind = Literal["error_rate", "latency", "prediction", "metric", "business"]
DECISIVE: frozenset[GuardKind] = frozenset({"metric", "business"})
"""Those that compare the two versions' means, by which an ab_test is decided."""
OF_REQUESTS: frozenset[GuardKind] = frozenset({"error_rate", "latency"})
"""Those whose value is a share of requests, and whose ``n`` are requests. Of others it is rows."""
Phase = Literal[
    "running",
    "waiting",
    "paused",
    "promoted",
    "rolled back",
    "aborted",
    "superseded",
    "no difference",
]
"""``waiting`` is for a person's approval, ``paused`` by a person or because a limit of inconclusive
checks was reached; the last five are ends. Of those only ``promoted`` changes the champion."""
ENDS: frozenset[Phase] = frozenset(
    {"promoted", "rolled back", "aborted", "superseded", "no difference"}
)
CheckOutcome = Literal["successful", "failed", "inconclusive", "error"]
Command = Literal["promote", "abort", "pause", "resume", "approve"]
"""What a person may ask of a rollout."""


class Guard(Value):
    """What a step watches. ``name`` tells guards of a plan apart and is what people read.

    ``limit``: the most requests that may fail (``error_rate``, share) or take longer than
    ``threshold`` milliseconds (``latency``, share: 0.01 for p99_ms); how far the distribution of
    predictions may be from the champion's (``prediction``, largest distance of the two cumulative
    distributions); how much worse than the champion's the mean loss a row may be (``metric``, in
    the loss's unit), or how much smaller the mean of ``column`` (``business``, in its unit).
    """

    name: str
    kind: GuardKind
    limit: float
    threshold: float | None = None
    column: str = ""


class Step(Value):
    """One step of a plan: who sees which requests, for how long at least, and what is watched.

    ``weight`` is the challenger's share in percent: 0 in a shadow step, where it sees copies. Of
    ``blue_green`` it is 100, and the champion stays loaded at 0. A step ends well when it has
    lasted ``bake_seconds``, the challenger has answered (or, in shadow, scored) ``min_requests``
    rows and its last check was successful. After ``timeout_seconds`` it is not waited for any more:
    the rollout is rolled back, an ``ab_test`` ends without a difference.
    """

    strategy: Strategy
    weight: int
    bake_seconds: float
    timeout_seconds: float
    min_requests: int
    approval: bool = False
    guards: tuple[Guard, ...] = ()


class Limits(Value):
    """How many checks of a step may end so; one more ends (failed, error) or pauses
    (inconclusive) the rollout. Errors are counted in a row. None: no limit."""

    failed: int = 0
    inconclusive: int | None = None
    error: int = 4


class Plan(Value):
    """All steps, in order. ``alpha`` is the most a version without harm may be rolled back with, by
    chance, over the whole rollout, however often it is looked. A plan without steps is a switch at
    once."""

    steps: tuple[Step, ...]
    alpha: float = 0.05
    limits: Limits = Limits()


class Measurement(Value):
    """What one guard measured in one step so far.

    ``value`` is the challenger's, or its difference from the champion, in the guard's unit; larger
    is worse. ``low`` and ``high`` hold it at every look at once with the guard's share of
    ``alpha``. None: not measured. ``error`` says what kept it from being measured.
    """

    guard: str
    n_champion: int = 0
    n_challenger: int = 0
    value: float | None = None
    low: float | None = None
    high: float | None = None
    error: str = ""


class Check(Value):
    """One look at a step: the worst of its guards' verdicts. No measurement is inconclusive.

    ``requests`` are the rows that the challenger has answered (in shadow: scored) or failed.
    """

    at: AwareDatetime
    step: int
    outcome: CheckOutcome
    requests: int
    measurements: tuple[Measurement, ...]
    verdicts: tuple[Verdict, ...]


class Counts(Value):
    """Checks of the present step by outcome. ``errors_in_a_row`` ends with any other outcome."""

    successful: int = 0
    failed: int = 0
    inconclusive: int = 0
    error: int = 0
    errors_in_a_row: int = 0


class RolloutState(Value):
    """Where a rollout stands.

    ``step`` is the one that runs, also while the rollout is paused. ``waiting``: the step after it
    waits for a person, and this one goes on being watched; where the first step itself is not yet
    ``approved``, it is that which waits, and nothing runs. ``entered_at`` is when the step began
    (when it was approved, if it needed that); evidence is of the time since. ``resumed_at`` is when
    a person let it go on: the step's least and most time count from then. ``before_pause`` is the
    phase to resume.
    """

    phase: Phase
    step: int
    entered_at: AwareDatetime
    counts: Counts = Counts()
    approved: tuple[int, ...] = ()
    last: Check | None = None
    reason: str = ""
    resumed_at: AwareDatetime | None = None
    before_pause: Literal["running", "waiting"] | None = None


def awaits_first(plan: Plan, state: RolloutState) -> bool:
    """Whether the first step is not yet approved, so that none has begun."""
    first = plan.steps[0] if plan.steps and state.step == 0 else None
    return first is not None and first.approval and 0 not in state.approved


class RouteChange(Value):
    """The route a rollout asks for: as ``Route``, whose rules hold."""

    champion: int
    arms: tuple[Arm, ...]
    shadow: tuple[int, ...] = ()


class Transition(Value):
    """What follows from a check, a command or the time: the next state and its effects, which are
    written in one transaction. ``route`` None: it stays. ``action`` is the audit's word for it and
    "" when nothing is worth a row (a check that changed nothing but counts)."""

    state: RolloutState
    route: RouteChange | None = None
    action: str = ""
    reason: str = ""
    quarantine: bool = False


class Rollout(Value):
    """A rollout on record. ``revision`` counts its changes; it changes by compare-and-set on it."""

    id: int
    model: str
    version: int
    champion: int
    plan: Plan
    state: RolloutState
    revision: int
    actor: str
    reason: str
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        return self.state.phase in ENDS
