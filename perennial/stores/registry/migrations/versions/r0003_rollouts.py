"""Rollouts: how a version earned its requests, and how that ended.

At most one runs a model. No row is deleted, what was begun is not rewritten, and a rollout that has
ended stays as it is.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_BEGUN = "id, model, version, champion, cause, plan, actor, reason, started_at"


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("champion", sa.Integer, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("plan", sa.JSON, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.Column("phase", sa.String(20), nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
        sa.Column("ended_at", sa.DateTime),
        sa.PrimaryKeyConstraint("id"),
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
    )
    unended = sa.text("ended_at IS NULL")
    op.create_index(
        "one_running_rollout_a_model",
        "rollouts",
        ["model"],
        unique=True,
        sqlite_where=unended,
        postgresql_where=unended,
    )
    {"sqlite": _sqlite_triggers, "postgresql": _postgresql_triggers}[op.get_bind().dialect.name]()


_BEGUN_STAYS = "what was begun in rollouts stays"
_ENDED_STAYS = "a rollout that has ended stays as it is"


def _sqlite_triggers() -> None:
    for name, event, why in (
        ("update", f"UPDATE OF {_BEGUN} ON rollouts", _BEGUN_STAYS),
        ("delete", "DELETE ON rollouts", _BEGUN_STAYS),
        ("change", "UPDATE ON rollouts WHEN OLD.ended_at IS NOT NULL", _ENDED_STAYS),
    ):
        op.execute(
            f"CREATE TRIGGER rollouts_refuse_{name} BEFORE {event} "
            f"BEGIN SELECT RAISE(ABORT, '{why}'); END"
        )


def _postgresql_triggers() -> None:
    op.execute(
        "CREATE FUNCTION refuse_because() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$"
    )
    for name, event, each, why in (
        ("update", f"UPDATE OF {_BEGUN}", "STATEMENT", _BEGUN_STAYS),
        ("delete", "DELETE OR TRUNCATE", "STATEMENT", _BEGUN_STAYS),
        ("change", "UPDATE", "ROW WHEN (OLD.ended_at IS NOT NULL)", _ENDED_STAYS),
    ):
        op.execute(
            f"CREATE TRIGGER rollouts_refuse_{name} BEFORE {event} ON rollouts "
            f"FOR EACH {each} EXECUTE FUNCTION refuse_because('{why}')"
        )
