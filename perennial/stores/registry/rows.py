"""The statements that several of the registry's methods share, and rows as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import VersionRef
from perennial.contracts.rollouts import RouteChange
from perennial.contracts.routes import Route
from perennial.stores.registry.chain import sealed
from perennial.stores.registry.records import AuditEntry, Version
from perennial.stores.registry.replay import ROUTE
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
    action: str,
    ref: VersionRef | None,
    actor: str,
    reason: str,
    evidence: Mapping[str, Any],
    cause: str,
    now: datetime,
    generation: int | None = None,
    digest: str | None = None,
) -> AuditEntry:
    """Tell the audit of a decision, as the next of the model's chain: its row in ``routes``, which
    the transaction holds, is where the chain ends."""
    end = connection.execute(
        sa.select(routes.c.audited, routes.c.seal).where(routes.c.model == model)
    ).one()
    values: dict[str, Any] = {
        "at": now,
        "model": model,
        "actor": actor,
        "action": action,
        "version": ref.version if ref else None,
        "digest": ref.digest if ref else digest,
        "generation": generation,
        "reason": reason,
        "evidence": dict(evidence),
        "cause": cause,
        "number": end.audited + 1,
        "follows": end.seal,
    }
    seal = sealed(values)
    row = connection.execute(
        decisions.insert().values(**values, seal=seal).returning(decisions)
    ).one()
    connection.execute(
        routes.update().where(routes.c.model == model).values(audited=values["number"], seal=seal)
    )
    return entry_of(row)


def write_route(
    connection: sa.Connection,
    model: str,
    change: RouteChange,
    *,
    action: str,
    ref: VersionRef,
    actor: str,
    reason: str,
    evidence: Mapping[str, Any],
    cause: str,
    now: datetime,
) -> Route:
    """Change a route that the transaction holds, and tell the audit of it: the only way there is.

    Raises InputError for an unknown version; ValueError for weights that don't sum to 100, a
    version with two places, and a champion that is no arm.
    """
    _check(change)
    for number in (*(arm.version for arm in change.arms), *change.shadow):
        find_version(connection, model, number)
    asked = change.model_dump(mode="json")
    generation = connection.execute(
        routes.update()
        .where(routes.c.model == model)
        .values(**asked, generation=routes.c.generation + 1, updated_at=now)
        .returning(routes.c.generation)
    ).scalar_one()
    append_decision(
        connection, model=model, action=action, ref=ref, actor=actor, reason=reason,
        evidence={**evidence, ROUTE: asked}, cause=cause, now=now, generation=generation,
    )  # fmt: skip
    return Route(
        model=model, champion=change.champion, arms=change.arms, shadow=change.shadow,
        generation=generation, updated_at=now,
    )  # fmt: skip


def _check(change: RouteChange) -> None:
    places = [*(arm.version for arm in change.arms), *change.shadow]
    if len(set(places)) < len(places):
        raise ValueError(f"a version has two places in {change}")
    if any(a.weight < 0 for a in change.arms) or sum(a.weight for a in change.arms) != 100:
        raise ValueError(f"the weights of {change} don't sum to 100")
    if change.champion not in {arm.version for arm in change.arms}:
        raise ValueError(f"the champion of {change} is no arm")


def quarantined_versions(connection: sa.Connection, model: str) -> dict[int, str]:
    """Version → why it was quarantined, of those that were not released since."""
    return all_quarantined(connection, [model])[model]


def all_quarantined(connection: sa.Connection, models: Sequence[str]) -> dict[str, dict[int, str]]:
    """``quarantined_versions`` of each of these models."""
    about, told = decisions.c, ("quarantined", "released")
    query = (
        sa.select(about.model, about.version, about.action, about.reason)
        .where(about.model.in_(models), about.action.in_(told))
        .order_by(about.id)
    )
    last = {(row.model, row.version): row for row in connection.execute(query)}
    found: dict[str, dict[int, str]] = {model: {} for model in models}
    for (model, version), row in sorted(last.items()):
        if row.action == "quarantined":
            found[model][version] = row.reason
    return found


def refuse_quarantined(connection: sa.Connection, model: str, version: int) -> None:
    """Raise InputError if a version is quarantined."""
    why = quarantined_versions(connection, model).get(version)
    if why is not None:
        fix = f"perennial rollout {model}@{version} --force tries it once more"
        raise InputError(Problem(f"{model}@{version}", f"it is quarantined: {why}", fix))


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


def newest_of_each(
    connection: sa.Connection,
    table: sa.Table,
    models: Sequence[str],
    limit: int,
    *order: sa.ColumnElement[Any],
) -> Sequence[sa.Row[Any]]:
    """The first rows of each of these models in an order that has an index, which is all that is
    read. In that order."""
    first = (
        sa.select(table.c.id)
        .where(table.c.model == routes.c.model)
        .order_by(*order)
        .limit(limit)
        .correlate(routes)
        .subquery()
    )
    listed = sa.select(sa.func.aggregate_strings(sa.cast(first.c.id, sa.Text), " "))
    of_each = sa.select(listed.correlate(routes).scalar_subquery())
    lists = connection.scalars(of_each.where(routes.c.model.in_(models))).all()
    ids = [int(id) for each in lists if each for id in each.split()]
    wanted: Any = sa.bindparam(
        "ids", ids, expanding=True, literal_execute=True
    )  # databases limit others
    return connection.execute(sa.select(table).where(table.c.id.in_(wanted)).order_by(*order)).all()


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
    return Route.model_validate({name: getattr(row, name) for name in Route.model_fields})


def entry_of(row: sa.Row[Any]) -> AuditEntry:
    values = {name: getattr(row, name) for name in AuditEntry.model_fields}
    return AuditEntry.model_validate(values)
