"""Going back to a former champion, which the audit tells of."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.rollouts import RouteChange
from perennial.contracts.routes import Arm, Route
from perennial.stores.registry.replay import told_route
from perennial.stores.registry.rollouts import command_rollout, running_rollout
from perennial.stores.registry.rows import (
    entry_of,
    find_version,
    locked_route,
    quarantined_versions,
    refuse_quarantined,
    write_route,
)
from perennial.stores.registry.schema import decisions


def roll_back(
    connection: sa.Connection,
    model: str,
    to: int | None,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> Route:
    """As ``Registry.rollback``, in a transaction that writes."""
    route = locked_route(connection, model, now)
    running = running_rollout(connection, model)
    if running is not None:
        command_rollout(connection, running, "abort", actor=actor, reason=reason, now=now)
        if to in (None, route.champion):
            return locked_route(connection, model, now)
    if route.champion is None:
        raise InputError(Problem(model, "no version of it was ever promoted"))
    target = _former_champion(connection, route, to)
    return write_route(
        connection, model,
        RouteChange(champion=target, arms=(Arm(version=target, weight=100),)),
        action="rolled back", ref=find_version(connection, model, route.champion).ref,
        reason=f"back to version {target}" + (f": {reason}" if reason else ""),
        evidence={"to": target}, cause=f"rolled back at generation {route.generation}",
        actor=actor, now=now,
    )  # fmt: skip


def _former_champion(connection: sa.Connection, route: Route, to: int | None) -> int:
    """``to``, or the last champion that is not the present one nor quarantined."""
    query = (
        sa.select(decisions)
        .where(decisions.c.model == route.model, decisions.c.generation.is_not(None))
        .order_by(decisions.c.number.desc())
        .execution_options(yield_per=20)
    )
    told = (told_route(entry_of(row)) for row in connection.execute(query))
    former = (r.champion for r in told if r is not None and r.champion != route.champion)
    if to is None:
        held_back = quarantined_versions(connection, route.model)
        found = next((version for version in former if version not in held_back), None)
        if found is None:
            what = f"there is no champion before version {route.champion} to go back to"
            raise InputError(Problem(route.model, what))
        return found
    find_version(connection, route.model, to)
    name = f"{route.model}@{to}"
    if to == route.champion:
        raise InputError(Problem(name, "it is the champion already"))
    if to not in former:
        what = "it never was the champion, so nothing goes back to it"
        older = " --force" if route.champion and to < route.champion else ""
        fix = f"perennial rollout {name}{older} gives it requests step by step"
        raise InputError(Problem(name, what, fix))
    refuse_quarantined(connection, route.model, to)
    return to
