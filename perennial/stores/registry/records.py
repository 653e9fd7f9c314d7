"""What the registry tells beside routes: versions and the audit. Times are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from perennial.contracts.errors import PerennialError
from perennial.contracts.refs import Value, VersionRef

Action = Literal[
    "registered",
    "promoted",
    "kept champion",
    "refused",
    "rolled back",
    "route changed",
    "quarantined",
    "released",
]
"""What the registry itself decides of; a rollout's steps bring their own words.

``quarantined`` keeps a version from being rolled out or promoted until it is ``released``.
"""


class Version(Value):
    """A registered version: what was made, why it was let in, and where its traces are.

    ``params`` are the booster's, found and fixed, or a mean's weights, ``judgement`` the verdicts
    that let it in, ``links`` names and addresses elsewhere (Prefect run, W&B group, study, report).
    """

    ref: VersionRef
    created_at: datetime
    params: dict[str, float | int | str]
    metrics: dict[str, float | None]
    judgement: dict[str, Any]
    links: dict[str, str]


class AuditEntry(Value):
    """One decision, with who, why and on what evidence.

    ``generation`` is the route's after the decision where it changed the route; what it is then
    stands in the evidence (``replay.ROUTE``). ``cause`` tells decisions of a model apart: the same
    cause is recorded once.
    """

    id: int
    at: datetime
    model: str
    actor: str
    action: str
    version: int | None
    digest: str | None
    generation: int | None
    reason: str
    evidence: dict[str, Any]
    cause: str


class StaleRouteError(PerennialError):
    """The route has changed since it was read: read it again and decide anew."""
