"""Retrainings: what was asked, answered, and what became of it.

No row is deleted, and what was asked is not rewritten; answer and state are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ASKED = "id, model, cause, trigger, finding, seen_at, asked, actor"


def upgrade() -> None:
    op.create_table(
        "retrainings",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("cause", sa.String(400), nullable=False),
        sa.Column("trigger", sa.String(20), nullable=False),
        sa.Column("finding", sa.String(40)),
        sa.Column("seen_at", sa.DateTime, nullable=False),
        sa.Column("asked", sa.JSON, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("answer", sa.String(10), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("decided_at", sa.DateTime, nullable=False),
        sa.Column("wait_until", sa.DateTime),
        sa.Column("earlier", sa.JSON, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("started_run", sa.Text),
        sa.Column("started_at", sa.DateTime),
        sa.Column("finished_at", sa.DateTime),
        sa.Column("outcome", sa.String(20)),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("model", "cause", name="one_retraining_a_cause"),
    )
    op.create_index("retrainings_by_answer", "retrainings", ["model", "answer", "decided_at"])
    op.create_index("retrainings_by_look", "retrainings", ["model", "seen_at"])
    {"sqlite": _sqlite_triggers, "postgresql": _postgresql_triggers}[op.get_bind().dialect.name]()


def _sqlite_triggers() -> None:
    for name, verb in (("update", f"UPDATE OF {_ASKED}"), ("delete", "DELETE")):
        op.execute(
            f"CREATE TRIGGER retrainings_refuse_{name} BEFORE {verb} ON retrainings "
            "BEGIN SELECT RAISE(ABORT, 'what was asked in retrainings stays'); END"
        )


def _postgresql_triggers() -> None:
    op.execute(
        "CREATE FUNCTION refuse_forgetting() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'what was asked in % stays', TG_TABLE_NAME; END $$"
    )
    for name, verb in (("update", f"UPDATE OF {_ASKED}"), ("delete", "DELETE OR TRUNCATE")):
        op.execute(
            f"CREATE TRIGGER retrainings_refuse_{name} BEFORE {verb} ON retrainings "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_forgetting()"
        )
