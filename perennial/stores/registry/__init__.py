"""The registry: versions, one route a model, and an append-only audit of every decision."""

from perennial.contracts.routes import Arm, Route
from perennial.stores.registry.records import Action, AuditEntry, StaleRouteError, Version
from perennial.stores.registry.registry import Registry
from perennial.stores.registry.rollouts import Rollouts, StaleRolloutError
from perennial.stores.registry.standings import Standing

__all__ = [
    "Action",
    "Arm",
    "AuditEntry",
    "Registry",
    "Rollouts",
    "Route",
    "StaleRolloutError",
    "StaleRouteError",
    "Standing",
    "Version",
]
