"""How every model stands, in as many statements as for one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from perennial.contracts.retraining import Retraining
from perennial.contracts.rollouts import Rollout
from perennial.contracts.routes import Route
from perennial.stores.registry.records import AuditEntry, Version
from perennial.stores.registry.retrainings import last_retrainings
from perennial.stores.registry.rollouts import running_rollouts
from perennial.stores.registry.rows import (
    all_quarantined,
    entry_of,
    newest_of_each,
    route_of,
    version_of,
)
from perennial.stores.registry.schema import decisions, routes, versions


@dataclass(frozen=True)
class Standing:
    """Who serves a model, what is being rolled out, which versions are held back and why, how many
    there are, and what was decided last, the newest first: all of it of one moment."""

    route: Route
    champion: Version | None
    rollout: Rollout | None
    quarantined: dict[int, str]
    versions: int
    decisions: tuple[AuditEntry, ...]
    retrainings: tuple[Retraining, ...]


def read_standings(
    connection: sa.Connection, models: Sequence[str], limit: int
) -> dict[str, Standing]:
    """The standings of these models, in their order, with up to ``limit`` retrainings and twice as
    many decisions each."""
    its_versions = sa.select(sa.func.max(versions.c.version)).where(
        versions.c.model == routes.c.model
    )
    known = sa.select(routes, its_versions.scalar_subquery().label("versions"))
    serving = sa.and_(versions.c.model == routes.c.model, versions.c.version == routes.c.champion)

    def of(query: sa.Select[Any]) -> Iterator[sa.Row[Any]]:
        return iter(connection.execute(query.where(routes.c.model.in_(models))))

    found = {row.model: row for row in of(known)}
    champions = {
        row.model: version_of(row) for row in of(sa.select(versions).join(routes, serving))
    }
    rollouts = {rollout.model: rollout for rollout in running_rollouts(connection, models)}
    quarantined = all_quarantined(connection, models)
    entries: dict[str, list[AuditEntry]] = defaultdict(list)
    newest_first = decisions.c.number.desc()
    for row in newest_of_each(connection, decisions, models, 2 * limit, newest_first):
        entries[row.model].append(entry_of(row))
    retrainings = last_retrainings(connection, models, limit)
    return {
        model: Standing(
            route=route_of(model, found.get(model)),
            champion=champions.get(model),
            rollout=rollouts.get(model),
            quarantined=quarantined[model],
            versions=(model in found and found[model].versions) or 0,
            decisions=tuple(entries[model]),
            retrainings=tuple(retrainings[model]),
        )
        for model in models
    }
