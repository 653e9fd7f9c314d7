"""What the service is at one moment: what the status page shows. Times are UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from perennial.contracts.rollouts import Rollout
from perennial.contracts.serving import SpoolLag
from perennial.serving.beside import Beside
from perennial.stores.registry import AuditEntry


@dataclass(frozen=True, slots=True)
class VersionState:
    """A version that is loaded, and its place in the route.

    ``arm`` is champion, challenger, shadow or pinned; ``weight`` its share of requests in percent,
    0 for one that answers nobody. ``metrics`` are the evaluation's, None where one could not be
    computed; ``warm_ms`` is what one row took once it was warm.
    """

    version: int
    arm: str
    weight: int
    digest: str
    created_at: datetime | None
    loaded_at: datetime
    metrics: dict[str, float | None]
    warm_ms: float


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model that is served. ``check_every`` is how often its newest version wants its rollout
    looked at; ``problem`` says why its route is not followed; "" when it is."""

    name: str
    description: str
    objective: str
    generation: int
    check_every: timedelta
    versions: tuple[VersionState, ...]
    problem: str


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The whole service. ``registry_problem`` is "" while the registry answers, and ``log_problem``
    while the prediction log takes records; ``decisions`` are the newest first, at most 20;
    ``rollouts`` those that have not ended, both as the registry had them at ``read_at`` (None: it
    was not read yet); ``beside`` is what the processes beside the server tell."""

    started_at: datetime
    ready: bool
    models: tuple[ModelState, ...]
    registry_problem: str
    decisions: tuple[AuditEntry, ...]
    lag: SpoolLag
    rollouts: tuple[Rollout, ...] = ()
    read_at: datetime | None = None
    log_problem: str = ""
    beside: Beside = field(default_factory=Beside)
