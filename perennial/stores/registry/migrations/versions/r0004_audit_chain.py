"""The audit as a chain: its rows are numbered and sealed, a route's row holds where its chain ends.

Also indexes for what is asked again and again of a long history.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_AT_ONCE = 500
_SEALED = (
    "at", "model", "actor", "action", "version", "digest", "generation", "reason", "evidence",
    "cause",
)  # fmt: skip

_decisions = sa.table(
    "decisions",
    sa.column("id", sa.Integer),
    sa.column("at", sa.DateTime),
    *(sa.column(name) for name in _SEALED if name not in ("at", "evidence")),
    sa.column("evidence", sa.JSON),
    *(sa.column(name) for name in ("number", "follows", "seal")),
)
_routes = sa.table("routes", *(sa.column(name) for name in ("model", "audited", "seal")))


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    number = sa.Column("audited", sa.Integer, nullable=False, server_default="0")
    op.add_column("routes", number)
    op.add_column("routes", sa.Column("seal", sa.String(64), nullable=False, server_default=""))
    op.add_column("decisions", sa.Column("number", sa.Integer))
    op.add_column("decisions", sa.Column("follows", sa.String(64)))
    op.add_column("decisions", sa.Column("seal", sa.String(64)))

    if sqlite:  # the other trigger goes with the table that is made anew below
        op.execute("DROP TRIGGER decisions_refuse_update")
    else:
        op.execute("ALTER TABLE decisions DISABLE TRIGGER decisions_refuse_change")
    _seal_all(op.get_bind())
    with op.batch_alter_table("decisions") as table:
        for name in ("number", "follows", "seal"):
            table.alter_column(name, nullable=False)
        table.create_unique_constraint("one_decision_a_number", ["model", "number"])
    if sqlite:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER decisions_refuse_{verb.lower()} BEFORE {verb} ON decisions "
                "BEGIN SELECT RAISE(ABORT, 'decisions is append-only'); END"
            )
    else:
        op.execute("ALTER TABLE decisions ENABLE TRIGGER decisions_refuse_change")

    op.create_index("decisions_by_action", "decisions", ["model", "action", "version"])
    op.create_index("retrainings_by_time", "retrainings", ["model", "decided_at", "id"])
    op.create_index("retrainings_by_state", "retrainings", ["answer", "state", "model"])
    op.create_index("rollouts_by_model", "rollouts", ["model", "id"])


def _seal_all(connection: sa.Connection) -> None:
    setting = (
        _decisions.update()
        .where(_decisions.c.id == sa.bindparam("its_id"))
        .values(
            number=sa.bindparam("its_number"),
            follows=sa.bindparam("its_follows"),
            seal=sa.bindparam("its_seal"),
        )
    )
    for model in connection.scalars(sa.select(_decisions.c.model).distinct()).all():
        number, seal = 0, ""
        for rows in _pages(connection, model):
            values = []
            for row in rows:
                number, follows = number + 1, seal
                seal = _seal(row, number, follows)
                values.append(
                    {
                        "its_id": row.id,
                        "its_number": number,
                        "its_follows": follows,
                        "its_seal": seal,
                    }
                )
            connection.execute(setting, values)
        end = _routes.update().where(_routes.c.model == model).values(audited=number, seal=seal)
        connection.execute(end)


def _pages(connection: sa.Connection, model: str) -> Iterator[Sequence[sa.Row[Any]]]:
    query = sa.select(_decisions.c.id, *(_decisions.c[name] for name in _SEALED))
    query = query.where(_decisions.c.model == model).order_by(_decisions.c.id).limit(_AT_ONCE)
    last = 0
    while rows := connection.execute(query.where(_decisions.c.id > last)).all():
        yield rows
        last = rows[-1].id


def _seal(row: sa.Row[Any], number: int, follows: str) -> str:
    content: dict[str, Any] = {name: getattr(row, name) for name in _SEALED}
    content["at"] = row.at.replace(tzinfo=UTC).isoformat(timespec="microseconds")
    content |= {"number": number, "follows": follows}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(b"perennial audit 1\n" + text.encode()).hexdigest()
