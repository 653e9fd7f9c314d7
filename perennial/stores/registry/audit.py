"""Reading a model's audit whole: what it says last, and what was done to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from perennial.contracts.refs import Value
from perennial.stores.registry.chain import START, Head, faults
from perennial.stores.registry.records import AuditEntry
from perennial.stores.registry.replay import told_route
from perennial.stores.registry.rows import route_of
from perennial.stores.registry.schema import decisions, routes, versions

MOST_FAULTS = 20
_AT_ONCE = 500


class SealedEntry(Value):
    """An entry, its place in the chain and its seal."""

    number: int
    seal: str
    entry: AuditEntry


class Audit(Value):
    """What a model's audit is found to be.

    ``head`` is the end of its chain, to be kept elsewhere; ``last`` the newest entries that can be
    read, newest first; ``faults`` what is wrong, in words, the first twenty; ``kept`` the number of
    the entry whose seal was asked for, None when there is none or none was asked for.
    """

    model: str
    head: Head
    last: tuple[SealedEntry, ...]
    faults: tuple[str, ...]
    kept: int | None = None


def read_audit(connection: sa.Connection, model: str, kept: str, limit: int) -> Audit:
    """As ``Registry.audit``, in a transaction that sees one moment."""
    route = connection.execute(sa.select(routes).where(routes.c.model == model)).one_or_none()
    head = _head(route)
    rows = _rows(connection, model, decisions.c.id)
    wrong = [*islice(faults(rows, head), MOST_FAULTS)]
    place = None
    if kept:
        its = sa.select(decisions.c.number).where(decisions.c.seal == kept)
        place = connection.scalar(its.where(decisions.c.model == model).limit(1))
        if not isinstance(place, int):
            place = None
            wrong.insert(0, f"no entry has the seal {kept}: what led to it was rewritten")
    wrong += _unregistered(connection, model)
    if not _tells_route(connection, model, route):
        wrong.append("the route is not what the audit says: it was changed beside it")
    newest = _rows(connection, model, decisions.c.id.desc(), limit=limit)
    last = tuple(entry for entry in map(_entry, newest) if entry is not None)
    shown = tuple(wrong[:MOST_FAULTS])
    return Audit(model=model, head=head, last=last, faults=shown, kept=place)


def read_heads(connection: sa.Connection) -> dict[str, Head]:
    """Where the chain of every model ends, by its name; also of one whose route's row is gone."""
    names = sa.union(*(sa.select(table.c.model) for table in (routes, decisions, versions)))
    found = dict.fromkeys(sorted(connection.scalars(names)), START)
    for route in connection.execute(sa.select(routes.c.model, routes.c.audited, routes.c.seal)):
        found[route.model] = _head(route)
    return found


def _head(route: sa.Row[Any] | None) -> Head:
    """The start where there is none that can be read: then every entry is beyond it."""
    try:
        return START if route is None else Head(number=route.audited, seal=route.seal)
    except ValidationError:
        return START


def _rows(
    connection: sa.Connection,
    model: str,
    order: sa.ColumnElement[Any],
    *conditions: sa.ColumnElement[bool],
    limit: int | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Entries as they stand in the database, whatever was done to them, a few at a time."""
    # Without the types of columns: what is no JSON or no time must not end the reading.
    raw: dict[str, sa.ColumnElement[Any]] = {
        "at": sa.type_coerce(decisions.c.at, sa.types.NullType()),
        "evidence": sa.cast(decisions.c.evidence, sa.Text),
    }
    columns = [raw.get(c.name, c).label(c.name) for c in decisions.columns]
    query = sa.select(*columns).where(decisions.c.model == model, *conditions)
    query = query.order_by(order).limit(limit).execution_options(yield_per=_AT_ONCE)
    with connection.execute(query) as found:
        for row in found.mappings():
            yield dict(row)


def _entry(row: Mapping[str, Any]) -> SealedEntry | None:
    """None for one that can't be read."""
    values = {name: row[name] for name in AuditEntry.model_fields}
    try:
        at = datetime.fromisoformat(row["at"]) if isinstance(row["at"], str) else row["at"]
        values |= {"at": at.replace(tzinfo=UTC), "evidence": json.loads(row["evidence"])}
        entry = AuditEntry.model_validate(values)
        return SealedEntry(number=row["number"], seal=row["seal"], entry=entry)
    except (ValidationError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _tells_route(connection: sa.Connection, model: str, route: sa.Row[Any] | None) -> bool:
    """Whether the last change of the route that the audit tells of made it what it is."""
    changes = _rows(
        connection, model, decisions.c.id.desc(), decisions.c.generation.is_not(None), limit=1
    )
    found = next((_entry(row) for row in changes), None)
    change = None if found is None else found.entry
    try:
        stands = route_of(model, route)
        told = None if change is None else told_route(change)
    except ValueError:  # pydantic's among them
        return False
    if change is None or told is None:
        return stands.generation == 0
    return (told.champion, told.arms, told.shadow, change.generation) == (
        stands.champion, stands.arms, stands.shadow, stands.generation,
    )  # fmt: skip


def _unregistered(connection: sa.Connection, model: str) -> list[str]:
    """Versions that the audit doesn't know so, and registrations without their version."""
    same = sa.and_(
        versions.c.model == decisions.c.model,
        versions.c.version == decisions.c.version,
        versions.c.digest == decisions.c.digest,
    )
    told = sa.select(decisions.c.id).where(decisions.c.action == "registered", same)
    unknown = (
        sa.select(versions.c.version)
        .where(versions.c.model == model, ~told.exists())
        .order_by(versions.c.version)
    )
    gone = (
        sa.select(decisions.c.version)
        .where(decisions.c.model == model, decisions.c.action == "registered")
        .where(~sa.select(versions.c.version).where(same).exists())
        .order_by(decisions.c.version)
    )
    return [
        *(
            f"version {number} is not as the audit registered it"
            for number in connection.scalars(unknown.limit(MOST_FAULTS))
        ),
        *(
            f"version {number} was registered and is not there so"
            for number in connection.scalars(gone.limit(MOST_FAULTS))
        ),
    ]
