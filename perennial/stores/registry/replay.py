"""What the audit tells of a model's route: each decision that changed it holds the whole of it."""

from __future__ import annotations

from collections.abc import Iterable

from perennial.contracts.rollouts import RouteChange
from perennial.contracts.routes import Arm, Route
from perennial.stores.registry.records import AuditEntry

ROUTE = "route"
"""The key of a decision's evidence under which champion, arms and shadow stand if it changed them.
"""


def told_route(entry: AuditEntry) -> RouteChange | None:
    """The route from this decision on; None when it left the route as it was."""
    if entry.generation is None or entry.version is None:
        return None
    if ROUTE in entry.evidence:
        return RouteChange.model_validate(entry.evidence[ROUTE])
    # Before there were rollouts nothing but promotions changed a route, and didn't say how.
    return RouteChange(champion=entry.version, arms=(Arm(version=entry.version, weight=100),))


def replayed(model: str, decisions: Iterable[AuditEntry]) -> Route:
    """The route that a model has after all its decisions, given in any order."""
    route = Route(model=model, champion=None, arms=(), shadow=(), generation=0, updated_at=None)
    for entry in sorted(decisions, key=lambda entry: entry.id):
        told = told_route(entry)
        if told is not None:
            route = Route(
                model=model, champion=told.champion, arms=told.arms, shadow=told.shadow,
                generation=route.generation + 1, updated_at=entry.at,
            )  # fmt: skip
    return route
