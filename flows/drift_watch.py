"""Watch a model in production: has what it sees drifted, and what does that do to it?"""

from __future__ import annotations

from datetime import datetime

from prefect import flow

from perennial.contracts.watching import Look
from tasks._storage import connect_storage, result_storage
from tasks.definition import read_model
from tasks.drift import look_at_window
from tasks.notification import tag_run
from tasks.publishing import publish_versions
from tasks.retraining import ask, look_for_data, reconcile
from tasks.rollout import remind


@flow(
    name="drift-watch",
    flow_run_name="{model} watched",
    persist_result=False,
    result_storage=result_storage(),
    result_serializer="json",
    on_running=[tag_run],
)
def drift_watch(model: str, end: datetime | None = None) -> Look:
    """Have a rollout watched that nobody watches. Compare a window of predictions with what the
    champion was trained on and promised, look for new data, and ask for what follows from either;
    have published what was not yet. A look at the past asks for nothing.

    Args:
        model: Name of a model below ``models/``.
        end: Where the window of ``drift.window`` ends (UTC); now by default.
    """
    connect_storage()
    if end is None:
        # First: whatever fails below, versions in production are looked after. Nor does it keep the
        # look from being taken when it fails itself.
        reminded = remind(model, return_state=True)
    definition = read_model(model)
    look = look_at_window(definition, end)
    if end is None:
        ask(definition, look.trigger)
        data = look_for_data(definition)
        if data is not None:
            ask(definition, data)
        reconcile(definition)
        publish_versions(model)
        reminded.result()
    return look
