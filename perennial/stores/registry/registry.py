"""Versions, routes, rollouts, retrainings and the audit of every decision, in one SQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from perennial.contracts.refs import BundleRef, VersionRef
from perennial.contracts.rollouts import RouteChange
from perennial.contracts.routes import Arm, Route
from perennial.stores.registry.audit import Audit, read_audit, read_heads
from perennial.stores.registry.chain import Head
from perennial.stores.registry.engine import connect, reading, repeatable, writing
from perennial.stores.registry.migrate import migrate
from perennial.stores.registry.records import Action, AuditEntry, StaleRouteError, Version
from perennial.stores.registry.retrainings import Retrainings
from perennial.stores.registry.rollback import roll_back
from perennial.stores.registry.rollouts import Rollouts, running_rollout, supersede_rollout
from perennial.stores.registry.rows import (
    append_decision,
    decision_of,
    entry_of,
    find_version,
    locked_route,
    quarantined_versions,
    ref_of,
    refuse_quarantined,
    route_of,
    version_of,
    write_route,
)
from perennial.stores.registry.schema import decisions, routes, versions


class Registry:
    """The registry behind an SQLAlchemy URL (``sqlite:///file`` or ``postgresql://…``).

    Opening it creates or upgrades the tables. Every change is one transaction together with its row
    in the audit, and is safe to repeat: the same digest is one version, the same cause one
    decision. May be shared by threads, not by forked processes. ``retrainings`` is the table of
    what is trained again and why, ``rollouts`` that of how versions get their requests.

    Methods raise UnavailableError (worth a retry) when the database doesn't answer, IntegrityError
    when it is damaged or newer than this code, InputError for an unknown model or version.
    """

    def __init__(self, url: str) -> None:
        self._engine = connect(url)
        migrate(self._engine)
        self.retrainings = Retrainings(self._engine)
        self.rollouts = Rollouts(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @repeatable
    def register(
        self,
        model: str,
        bundle: BundleRef,
        *,
        params: Mapping[str, float | int | str],
        metrics: Mapping[str, float | None],
        judgement: Mapping[str, Any],
        links: Mapping[str, str],
        actor: str,
        reason: str,
        now: datetime,
    ) -> VersionRef:
        """Give a bundle the model's next version number. A digest that has one keeps it, and then
        nothing is written."""
        with writing(self._engine) as connection:
            locked_route(connection, model, now)
            known = connection.execute(
                sa.select(versions).where(
                    versions.c.model == model, versions.c.digest == bundle.digest
                )
            ).one_or_none()
            if known is not None:
                return ref_of(known)
            number = (
                1
                + connection.execute(
                    sa.select(sa.func.coalesce(sa.func.max(versions.c.version), 0)).where(
                        versions.c.model == model
                    )
                ).scalar_one()
            )
            connection.execute(
                versions.insert().values(
                    model=model,
                    version=number,
                    digest=bundle.digest,
                    uri=bundle.uri,
                    created_at=now,
                    params=dict(params),
                    metrics=dict(metrics),
                    judgement=dict(judgement),
                    links=dict(links),
                )
            )
            ref = VersionRef(model=model, version=number, digest=bundle.digest, uri=bundle.uri)
            append_decision(
                connection,
                model=model,
                action="registered",
                ref=ref,
                actor=actor,
                reason=reason,
                evidence=judgement,
                cause=f"registered {bundle.digest}",
                now=now,
            )
            return ref

    def promote(
        self,
        model: str,
        version: int,
        *,
        expected_generation: int,
        actor: str,
        reason: str,
        evidence: Mapping[str, Any],
        cause: str,
        now: datetime,
    ) -> Route:
        """Give all of the model's requests to a version, its champion from now on.

        Done and raises as ``change_route``.
        """
        return self.change_route(
            model, champion=version, arms=(Arm(version=version, weight=100),), shadow=(),
            action="promoted", version=version, expected_generation=expected_generation,
            actor=actor, reason=reason, evidence=evidence, cause=cause, now=now,
        )  # fmt: skip

    @repeatable
    def change_route(
        self,
        model: str,
        *,
        champion: int,
        arms: Sequence[Arm],
        shadow: Sequence[int],
        action: Action,
        version: int,
        expected_generation: int,
        actor: str,
        reason: str,
        evidence: Mapping[str, Any],
        cause: str,
        now: datetime,
    ) -> Route:
        """Say who answers the model's requests. ``version`` is the one that the decision is about.

        Done once for a cause; repeating it returns the route as it is. A rollout that has not ended
        is superseded. Raises StaleRouteError when the route's generation is not the expected one
        any more, and then nothing is written; InputError for an unknown or quarantined version;
        ValueError for weights that don't sum to 100, a version with two places, and a champion that
        is no arm.
        """
        change = RouteChange(champion=champion, arms=tuple(arms), shadow=tuple(shadow))
        with writing(self._engine) as connection:
            route = locked_route(connection, model, now)
            if decision_of(connection, model, cause) is not None:
                return route
            ref = find_version(connection, model, version).ref
            if route.generation != expected_generation:
                raise StaleRouteError(
                    f"the route of {model!r} was at generation {expected_generation} when this was "
                    f"decided and is at {route.generation} now (champion: {route.champion}); "
                    "decide anew on the present route"
                )
            refuse_quarantined(connection, model, version)
            running = running_rollout(connection, model)
            if running is not None:
                supersede_rollout(connection, running, version, actor=actor, now=now)
            return write_route(
                connection, model, change, action=action, ref=ref, actor=actor, reason=reason,
                evidence=evidence, cause=cause, now=now,
            )  # fmt: skip

    def rollback(
        self, model: str, to: int | None, *, actor: str, reason: str, now: datetime
    ) -> Route:
        """Give all requests back, at once: to the champion if a version is being rolled out, whose
        rollout is aborted, else to the champion before the present one; or to ``to``, if that was
        the champion once. Once more rolls the rollback back.

        Raises InputError when there is nothing to go back to, and for a version that never was the
        champion, is it already, or is quarantined.
        """
        with writing(self._engine) as connection:
            return roll_back(connection, model, to, actor=actor, reason=reason, now=now)

    @repeatable
    def record(
        self,
        model: str,
        action: Action,
        *,
        version: VersionRef | None,
        actor: str,
        reason: str,
        evidence: Mapping[str, Any],
        cause: str,
        now: datetime,
        digest: str | None = None,
    ) -> AuditEntry:
        """Append a decision to the audit, once for a cause: a repeat returns the first one.

        ``digest`` names the candidate when it has no version.
        """
        with writing(self._engine) as connection:
            locked_route(connection, model, now)
            known = decision_of(connection, model, cause)
            return known or append_decision(
                connection,
                model=model,
                action=action,
                ref=version,
                digest=digest,
                actor=actor,
                reason=reason,
                evidence=evidence,
                cause=cause,
                now=now,
            )

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
