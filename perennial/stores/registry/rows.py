"""The statements that several of the registry's methods share, and rows as records."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import VersionRef
from perennial.contracts.routes import Route
from perennial.stores.registry.records import Action, AuditEntry, Version
from perennial.stores.registry.schema import decisions, routes, versions


def locked_route(connection: sa.Connection, model: str, now: datetime) -> Route:
    """The model's route, made if it is new, and held until the transaction ends."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    empty = {"arms": [], "shadow": [], "generation": 0, "updated_at": now}
    connection.execute(dialect.insert(routes).values(model=model, **empty).on_conflict_do_nothing())
    query = sa.select(routes).where(routes.c.model == model).with_for_update()
    return route_of(model, connection.execute(query).one())


def decision_of(connection: sa.Connection, model: str, cause: str) -> AuditEntry | None:
    query = sa.select(decisions).where(decisions.c.model == model, decisions.c.cause == cause)
    row = connection.execute(query).one_or_none()
    return None if row is None else entry_of(row)


def append_decision(
    connection: sa.Connection,
    *,
    model: str,
    action: Action,
    ref: VersionRef | None,
    actor: str,
    reason: str,
    evidence: Mapping[str, Any],
    cause: str,
    now: datetime,
    generation: int | None = None,
    digest: str | None = None,
) -> AuditEntry:
    row = connection.execute(
        decisions.insert()
        .values(
            at=now,
            model=model,
            actor=actor,
            action=action,
            version=ref.version if ref else None,
            digest=ref.digest if ref else digest,
            generation=generation,
            reason=reason,
            evidence=dict(evidence),
            cause=cause,
        )
        .returning(decisions)
    ).one()
    return entry_of(row)


def find_version(connection: sa.Connection, model: str, version: int) -> Version:
    query = sa.select(versions).where(versions.c.model == model, versions.c.version == version)
    row = connection.execute(query).one_or_none()
    if row is not None:
        return version_of(row)
    last = connection.execute(
        sa.select(sa.func.max(versions.c.version)).where(versions.c.model == model)
    ).scalar_one()
    known = f"its versions are 1 to {last}" if last else "it has no version yet"
    raise InputError(Problem("registry", f"{model!r} has no version {version}", known))


def ref_of(row: sa.Row[Any]) -> VersionRef:
    return VersionRef(model=row.model, version=row.version, digest=row.digest, uri=row.uri)


def version_of(row: sa.Row[Any]) -> Version:
    return Version(
        ref=ref_of(row),
        created_at=row.created_at,
        params=row.params,
        metrics=row.metrics,
        judgement=row.judgement,
        links=row.links,
    )


def route_of(model: str, row: sa.Row[Any] | None) -> Route:
    if row is None or row.generation == 0:
        return Route(model=model, champion=None, arms=(), shadow=(), generation=0, updated_at=None)
    return Route.model_validate(row._asdict())


def entry_of(row: sa.Row[Any]) -> AuditEntry:
    return AuditEntry.model_validate(row._asdict())
