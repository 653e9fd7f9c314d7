"""What is asked of the registry: each question a transaction of its own that changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from perennial.contracts.refs import VersionRef
from perennial.contracts.routes import Route
from perennial.stores.registry.audit import Audit, read_audit, read_heads
from perennial.stores.registry.chain import Head
from perennial.stores.registry.engine import reading, repeatable
from perennial.stores.registry.records import AuditEntry, Version
from perennial.stores.registry.replay import told_route
from perennial.stores.registry.rows import (
    entry_of,
    find_version,
    quarantined_versions,
    ref_of,
    route_of,
    version_of,
)
from perennial.stores.registry.schema import decisions, routes, versions
from perennial.stores.registry.standings import Standing, read_standings


class Questions:
    """The registry's questions; raises as the registry does."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @repeatable
    def models(self) -> list[str]:
        """Every model that anything was decided about, sorted."""
        with self._engine.begin() as connection:
            return list(connection.scalars(sa.select(routes.c.model).order_by(routes.c.model)))

    @repeatable
    def route(self, model: str) -> Route:
        """Who serves the model; generation 0 when nothing was ever promoted."""
        with self._engine.begin() as connection:
            row = connection.execute(sa.select(routes).where(routes.c.model == model)).one_or_none()
        return route_of(model, row)

    @repeatable
    def routes(self) -> list[Route]:
        """All models' routes, sorted by name: one small query, made to be repeated."""
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(routes).order_by(routes.c.model)).all()
        return [route_of(row.model, row) for row in rows]

    @repeatable
    def standings(self, models: Sequence[str], limit: int) -> dict[str, Standing]:
        """How these models stand, in a number of statements that doesn't grow with theirs; with up
        to ``limit`` retrainings and twice as many decisions each."""
        with reading(self._engine) as connection:
            return read_standings(connection, models, limit)

    @repeatable
    def champion(self, model: str) -> VersionRef | None:
        """The version that challengers are compared with; None when nothing was ever promoted."""
        query = sa.select(versions).join(
            routes,
            sa.and_(routes.c.model == versions.c.model, routes.c.champion == versions.c.version),
        )
        with self._engine.begin() as connection:
            row = connection.execute(query.where(routes.c.model == model)).one_or_none()
        return None if row is None else ref_of(row)

    @repeatable
    def count(self, model: str) -> int:
        """How many versions there are; the newest has this number."""
        query = sa.select(sa.func.max(versions.c.version)).where(versions.c.model == model)
        with self._engine.begin() as connection:
            return connection.scalar(query) or 0

    @repeatable
    def version(self, model: str, version: int) -> Version:
        """One version. Raises InputError when there is none."""
        with self._engine.begin() as connection:
            return find_version(connection, model, version)

    @repeatable
    def versions(self, model: str, limit: int | None = None) -> list[Version]:
        """All versions, or that many, the newest first."""
        query = sa.select(versions).where(versions.c.model == model)
        query = query.order_by(versions.c.version.desc()).limit(limit)
        with self._engine.begin() as connection:
            return [version_of(row) for row in connection.execute(query)]

    @repeatable
    def decisions(self, model: str, limit: int = 100) -> list[AuditEntry]:
        """The last decisions, the newest first."""
        query = (
            sa.select(decisions)
            .where(decisions.c.model == model)
            .order_by(decisions.c.number.desc())
            .limit(limit)
        )
        with self._engine.begin() as connection:
            return [entry_of(row) for row in connection.execute(query)]

    @repeatable
    def newest_decisions(self, models: Sequence[str], limit: int) -> list[AuditEntry]:
        """The last decisions about any of these models, the newest first: one small query, made to
        be repeated, however long their history is."""
        recent = (
            sa.select(decisions.c.id)
            .join(routes, routes.c.model == decisions.c.model)
            .where(routes.c.model.in_(models), decisions.c.number > routes.c.audited - limit)
            .order_by(decisions.c.id.desc())
            .limit(limit)
        )
        query = sa.select(decisions).where(decisions.c.id.in_(recent))
        with self._engine.begin() as connection:
            rows = connection.execute(query.order_by(decisions.c.id.desc()))
            return [entry_of(row) for row in rows]

    @repeatable
    def audit(self, model: str, *, kept: str = "", limit: int = 20) -> Audit:
        """Read a model's audit whole and say what was done to it, if anything was; with the newest
        entries. ``kept`` is the seal of a head that was kept elsewhere: an audit that doesn't
        contain it was rewritten."""
        with reading(self._engine) as connection:
            return read_audit(connection, model, kept, limit)

    @repeatable
    def heads(self) -> dict[str, Head]:
        """Where every model's audit ends: what to keep elsewhere."""
        with self._engine.begin() as connection:
            return read_heads(connection)

    @repeatable
    def quarantined(self, model: str) -> dict[int, str]:
        """The versions that may not be rolled out or promoted: version → why."""
        with self._engine.begin() as connection:
            return quarantined_versions(connection, model)

    @repeatable
    def replaced(self, model: str, version: int) -> AuditEntry | None:
        """The decision by which a champion last gave way to another; None of the present one, and
        of a version that never was."""
        query = (
            sa.select(decisions)
            .where(decisions.c.model == model, decisions.c.generation.is_not(None))
            .order_by(decisions.c.number.desc())
            .execution_options(yield_per=20)
        )
        after: AuditEntry | None = None
        with self._engine.begin() as connection, connection.execute(query) as rows:
            for entry in map(entry_of, rows):
                told = told_route(entry)
                if told is not None and told.champion == version:
                    return after
                after = entry
        return None

    @repeatable
    def best_params(self, model: str, limit: int) -> list[dict[str, float | int | str]]:
        """The parameters of the newest versions, for a warm start: the newest first, each once."""
        query = (
            sa.select(versions.c.params)
            .where(versions.c.model == model)
            .order_by(versions.c.version.desc())
            .execution_options(yield_per=max(limit, 1))
        )
        found: list[dict[str, float | int | str]] = []
        with self._engine.begin() as connection, connection.execute(query) as rows:
            for params in rows.scalars():
                if len(found) == limit:
                    break
                if params not in found:
                    found.append(params)
        return found
