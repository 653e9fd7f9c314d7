"""The registry's tables. Migrations create them; this is what the code reads and writes.

A model's row in ``routes`` comes first and is locked by whoever writes about the model, so that
version numbers, routes, the audit and the retrainings of one model change one after another.
``versions`` and ``decisions`` are append-only: triggers refuse to change or delete a row, and a
model's decisions are a chain of digests (``chain.py``) whose end stands in its route's row. Of
``retrainings`` no row goes and what was asked stays; the answer of one that waits, and what became
of it, change. Of ``rollouts`` no row goes, what was begun stays, and so does one that has ended; at
most one of a model has not.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""All revisions of the schema, oldest first; the last is the one this code works with."""
REVISION_TABLE = "registry_revision"
"""Not Alembic's usual name: Optuna keeps its own revision under that in the same database."""


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware datetime, stored as UTC without a zone so that every database agrees."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


metadata = sa.MetaData()

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("model", sa.String(63), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("params", sa.JSON, nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("judgement", sa.JSON, nullable=False),
    sa.Column("links", sa.JSON, nullable=False),
    sa.UniqueConstraint("model", "digest", name="one_version_a_digest"),
)

routes = sa.Table(
    "routes",
    metadata,
    sa.Column("model", sa.String(63), primary_key=True),
    sa.Column("champion", sa.Integer),
    sa.Column("arms", sa.JSON, nullable=False),
    sa.Column("shadow", sa.JSON, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("audited", sa.Integer, nullable=False, server_default="0"),
    sa.Column("seal", sa.String(64), nullable=False, server_default=""),
    sa.ForeignKeyConstraint(
        ["model", "champion"], ["versions.model", "versions.version"], name="champion_exists"
    ),
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("model", sa.String(63), nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.String(40), nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("digest", sa.String(64)),
    sa.Column("generation", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("follows", sa.String(64), nullable=False),
    sa.Column("seal", sa.String(64), nullable=False),
    sa.UniqueConstraint("model", "cause", name="one_decision_a_cause"),
    sa.UniqueConstraint("model", "number", name="one_decision_a_number"),
    sa.Index("decisions_by_action", "model", "action", "version"),
    sa.ForeignKeyConstraint(
        ["model", "version"], ["versions.model", "versions.version"], name="version_exists"
    ),
)

retrainings = sa.Table(
    "retrainings",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(63), nullable=False),
    sa.Column("cause", sa.String(400), nullable=False),
    sa.Column("trigger", sa.String(20), nullable=False),
    sa.Column("finding", sa.String(40)),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    sa.Column("asked", sa.JSON, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("answer", sa.String(10), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("decided_at", UtcDateTime, nullable=False),
    sa.Column("wait_until", UtcDateTime),
    sa.Column("earlier", sa.JSON, nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("started_run", sa.Text),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("outcome", sa.String(20)),
    sa.UniqueConstraint("model", "cause", name="one_retraining_a_cause"),
    sa.Index("retrainings_by_answer", "model", "answer", "decided_at"),
    sa.Index("retrainings_by_look", "model", "seen_at"),
    sa.Index("retrainings_by_time", "model", "decided_at", "id"),
    sa.Index("retrainings_by_state", "answer", "state", "model"),
)

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(63), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("champion", sa.Integer, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("plan", sa.JSON, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("phase", sa.String(20), nullable=False),
    sa.Column("state", sa.JSON, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.UniqueConstraint("model", "cause", name="one_rollout_a_cause"),
    sa.ForeignKeyConstraint(
        ["model", "version"],
        ["versions.model", "versions.version"],
        name="rolled_out_version_exists",
    ),
    sa.ForeignKeyConstraint(
        ["model", "champion"],
        ["versions.model", "versions.version"],
        name="rollout_champion_exists",
    ),
    sa.CheckConstraint(
        "(ended_at IS NULL) = (phase IN ('running', 'waiting', 'paused'))",
        name="a_rollout_has_ended_or_not",
    ),
    sa.Index("rollouts_by_model", "model", "id"),
    sa.Index(
        "one_running_rollout_a_model",
        "model",
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
)
