"""The registry: versions, one route a model, and an append-only audit of every decision."""

from perennial.contracts.routes import Arm, Route
from perennial.stores.registry.records import Action, AuditEntry, StaleRouteError, Version
from perennial.stores.registry.registry import Registry

__all__ = ["Action", "Arm", "AuditEntry", "Registry", "Route", "StaleRouteError", "Version"]
