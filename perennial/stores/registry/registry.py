"""Versions, routes, rollouts, retrainings and the audit of every decision, in one SQL database:
what changes them. What is asked of them is in ``questions``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from perennial.contracts.refs import BundleRef, VersionRef
from perennial.contracts.rollouts import RouteChange
from perennial.contracts.routes import Arm, Route
from perennial.stores.registry.engine import connect, repeatable, writing
from perennial.stores.registry.migrate import migrate
from perennial.stores.registry.questions import Questions
from perennial.stores.registry.records import Action, AuditEntry, StaleRouteError
from perennial.stores.registry.retrainings import Retrainings
from perennial.stores.registry.rollback import roll_back
from perennial.stores.registry.rollouts import Rollouts, running_rollout, supersede_rollout
from perennial.stores.registry.rows import (
    append_decision,
    decision_of,
    find_version,
    locked_route,
    ref_of,
    refuse_quarantined,
    write_route,
)
from perennial.stores.registry.schema import versions


class Registry(Questions):
    """The registry behind an SQLAlchemy URL (``sqlite:///file`` or ``postgresql://…``).

    Opening it creates or upgrades the tables; with ``make=False`` none are created, and no file:
    UnavailableError says that there is no registry yet. Every change is one transaction together
    with its row in the audit, and is safe to repeat: the same digest is one version, the same cause
    one decision. May be shared by threads, not by forked processes. ``retrainings`` is the table of
    what is trained again and why, ``rollouts`` that of how versions get their requests.

    Methods raise UnavailableError (worth a retry) when the database doesn't answer, IntegrityError
    when it is damaged or newer than this code, InputError for an unknown model or version.
    """

    def __init__(self, url: str, *, make: bool = True) -> None:
        engine = connect(url, make)
        migrate(engine, make)
        super().__init__(engine)
        self.retrainings = Retrainings(engine)
        self.rollouts = Rollouts(engine)

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
