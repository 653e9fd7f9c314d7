"""What a run of continuous training did: a record a stage, and the summary."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from perennial.contracts.refs import (
    DatasetRef,
    MemberRef,
    ModelRef,
    ReportRef,
    StudyRef,
    Value,
    VersionRef,
)
from perennial.contracts.rollouts import Rollout
from perennial.contracts.verdicts import Outcome


class StageRecord(Value):
    """What one stage took. ``rows_in``/``rows_out`` None: the stage doesn't handle rows.

    ``cached`` stages did no work in this run; their figures are None.
    """

    stage: str
    cached: bool
    seconds: float | None = None
    peak_memory_mib: float | None = None
    rows_in: int | None = None
    rows_out: int | None = None


class RouteRef(Value):
    """Who serves a model now, and the generation of the route it was read at."""

    champion: VersionRef | None
    generation: int


class EvaluationRef(Value):
    """A written evaluation and what it came to."""

    report: ReportRef
    outcome: Outcome
    reason: str


class Decision(Value):
    """What became of a candidate. ``version`` is None when it was not registered; ``rolling out``
    it has yet to earn its requests."""

    action: Literal["promoted", "rolling out", "kept", "unchanged"]
    version: VersionRef | None
    reason: str


class Claim(Value):
    """Whether a run may go on, and as which retraining on record.

    ``retraining`` None: a replay of the past, which is on no record. ``refused`` says why a run may
    not go on; it then ends at once, and this is what it returns.
    """

    model: str
    retraining: int | None = None
    refused: str = ""


class RunSummary(Value):
    """The end of a run of continuous training. ``report_uri`` is the HTML page, if one was made;
    ``warnings`` are of the audit of the rows that came."""

    model: str
    as_of: datetime | None
    trigger: str
    decision: Decision
    champion: VersionRef | None
    bundle_digest: str
    bundle_uri: str
    report_uri: str | None
    study: str
    tracking_group: str
    rows: int
    stages: tuple[StageRecord, ...]
    warnings: tuple[str, ...] = ()


class ReplayPeriod(Value):
    """A stretch of time between two trainings of a replay, half open, UTC.

    ``stale`` and ``current`` are the metric that the first version and the version serving at the
    time reach on the period's labelled rows; ``decision`` is the training's at its start.
    """

    start: datetime
    end: datetime
    rows: int
    metric: str
    stale: float
    current: float
    current_version: int
    decision: Decision
    report_uri: str | None


class ReplaySummary(Value):
    model: str
    periods: tuple[ReplayPeriod, ...]
    seconds: float


class Recalled(Value):
    """A registered version's beginnings, as its bundle recorded them, ready to be run again."""

    version: VersionRef
    definition: ModelRef
    dataset: DatasetRef
    study: StudyRef
    members: tuple[MemberRef, ...] = ()


class ReproductionSummary(Value):
    """Whether training again gave the same bundle, and if not, which files differ and why."""

    version: VersionRef
    digest: str
    identical: bool
    reason: str
    differences: tuple[str, ...]


class Watch(Value):
    """What a run of the flow ``rollout`` saw: the rollouts of the model it watched to their ends,
    in order. Of more than one the earlier were superseded. Empty: there was none, or a younger run
    went on with it."""

    model: str
    rollouts: tuple[Rollout, ...]
