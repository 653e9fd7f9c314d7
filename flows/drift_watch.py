"""Watch a model in production: has what it sees drifted, and what does that do to it?"""

from __future__ import annotations

from datetime import datetime

from prefect import flow

from perennial.contracts.watching import Look
from tasks.definition import read_model
from tasks.drift import look_at_window
from tasks.notification import tag_run


@flow(
    name="drift-watch",
    flow_run_name="{model} watched",
    persist_result=False,
    on_running=[tag_run],
)
def drift_watch(model: str, end: datetime | None = None) -> Look:
    """Compare a window of predictions with what the champion was trained on and promised.

    Args:
        model: Name of a model below ``models/``.
        end: Where the window of ``drift.window`` ends (UTC); now by default.
    """
    definition = read_model(model)
    return look_at_window(definition, end)
