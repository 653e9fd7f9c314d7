"""Retrainings whose rollout had ended before rollouts told of their ends: what became of them.

A run began its version's rollout and then ended, so that it is the last one begun by then. One that
has not ended yet tells of it by itself.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute(
        "UPDATE retrainings SET outcome = rollouts.phase, finished_at = rollouts.ended_at "
        "FROM rollouts WHERE retrainings.outcome = 'rolling out' "
        "AND rollouts.ended_at IS NOT NULL AND rollouts.id = ("
        "SELECT begun.id FROM rollouts AS begun WHERE begun.model = retrainings.model "
        "AND begun.started_at <= retrainings.finished_at "
        "ORDER BY begun.started_at DESC, begun.id DESC LIMIT 1)"
    )
