"""Why a model might be trained again, and what was answered. Times are UTC, windows half open."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from perennial.contracts.refs import Value

Kind = Literal["drift", "performance", "data", "schedule", "hand"]
Course = Literal["retrain", "wait", "no"]
State = Literal["decided", "started", "finished", "died"]
Result = Literal["promoted", "rolling out", "kept", "unchanged", "failed"]
"""What became of a retraining's candidate (as ``runs.Decision``), or ``failed`` without one."""
Outcome = Result | Literal["rolled back", "aborted", "superseded", "no difference"]
"""What became of a retraining: of one whose version is ``rolling out``, in the end what became of
that rollout (as ``rollouts.Phase``)."""


class Finding(StrEnum):
    """What the drift watch makes of a window, drift and performance taken together."""

    NONE = "none"
    BENIGN = "benign drift"
    HARMFUL = "harmful drift"
    CONCEPT = "concept drift"
    FAULT = "data quality fault"
    INCONCLUSIVE = "inconclusive"


class Trigger(Value):
    """Somebody or something asks for a retraining.

    ``reason`` is a sentence for people, ``at`` when the evidence was seen. ``window`` and ``data``
    say what it rests on: the event times looked at, and a fingerprint of the data (labels too), the
    time a schedule came due, or the id of a request by hand. One of them is needed, since together
    with ``kind`` they tell causes apart. ``finding`` is the whole verdict of the drift watch on
    that window, and ``version`` the one whose answers it looked at; triggers by drift and
    performance have a finding.
    """

    kind: Kind
    reason: str = Field(min_length=1)
    at: AwareDatetime
    finding: Finding | None = None
    version: int | None = None
    window: tuple[AwareDatetime, AwareDatetime] | None = None
    data: str = Field(default="", max_length=200)
    evidence: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _tells_its_cause(self) -> Self:
        if self.window is None and not self.data:
            raise ValueError("a trigger needs a window or data, to be told from others of its kind")
        if self.finding is None and self.kind in ("drift", "performance"):
            raise ValueError(f"a trigger by {self.kind} needs the finding of the drift watch")
        return self

    @property
    def cause(self) -> str:
        """The idempotency key: within a model, triggers of the same cause are answered once."""
        window = [f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}" for moment in self.window or ()]
        return " ".join(filter(None, (self.kind, "/".join(window), self.data)))


class Answer(Value):
    """Retrain, wait or don't, and why.

    ``wait_until`` None with ``wait``: until what is named in the reason is over; ask again then.
    """

    answer: Course
    reason: str
    decided_at: datetime
    wait_until: datetime | None = None


class Retraining(Value):
    """A cause on record, its present answer, and what became of it.

    ``state`` and what follows it are about answers ``retrain``; others stay ``decided``. ``died``:
    its run was cancelled, or ended without saying so. While its version is rolled out the
    ``outcome`` says so; outcome and ``finished_at`` are then those of the rollout's end.
    ``earlier`` are former answers, all ``wait``, oldest first.
    """

    id: int
    model: str
    trigger: Trigger
    actor: str
    current: Answer
    earlier: tuple[Answer, ...] = ()
    state: State = "decided"
    started_run: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcome: Outcome | None = None

    @property
    def goes(self) -> bool:
        """Whether the answer is to retrain."""
        return self.current.answer == "retrain"

    @property
    def began_at(self) -> datetime:
        """When it was started; until then, when it was decided."""
        return self.started_at or self.current.decided_at
