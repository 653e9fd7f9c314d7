"""What the service is at one moment: what the status page shows. Times are UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

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
    """A model that is served. ``problem`` says why its route is not followed; "" when it is."""

    name: str
    description: str
    objective: str
    generation: int
    versions: tuple[VersionState, ...]
    problem: str


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The whole service. ``registry_problem`` is "" while the registry answers, and ``log_problem``
    while the prediction log takes records; ``decisions`` are the newest first, at most 20;
    ``rollouts`` those that have not ended; ``beside`` is what the processes beside the server
    tell."""

    started_at: datetime
    ready: bool
    models: tuple[ModelState, ...]
    registry_problem: str
    decisions: tuple[AuditEntry, ...]
    lag: SpoolLag
    rollouts: tuple[Rollout, ...] = ()
    log_problem: str = ""
    beside: Beside = field(default_factory=Beside)
