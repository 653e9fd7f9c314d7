"""Watch a version earn its requests, step by step, and take them back when it does harm."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import flow

from perennial.contracts.rollouts import Rollout
from perennial.contracts.runs import Watch
from tasks._storage import connect_storage, result_storage
from tasks.notification import tag_run
from tasks.publishing import publish_meanwhile, publish_versions
from tasks.rollout import conclude, report, successor, take_up, watch


@flow(
    name="rollout",
    flow_run_name="roll out {model}",
    persist_result=False,
    result_storage=result_storage(),
    result_serializer="json",
    on_running=[tag_run],
)
def rollout(
    model: str,
    version: int | None = None,
    settings: dict[str, Any] | None = None,
    reason: str = "by hand",
    force: bool = False,
    deaths: int = 0,
    died: datetime | None = None,
) -> Watch:
    """See the model's rollout through to its end, from wherever it stands. Any number of runs may
    do so at once. While it goes on it takes a ``RolloutOrder`` as input.

    Args:
        model: Name of a model below ``models/``.
        version: Begin to roll out this version first.
        settings: Other values for keys of ``rollout`` in model.yaml, for this rollout.
        reason: Why the version is rolled out; kept in the registry's audit.
        force: Also a version that is in quarantine, or older than the champion or the one that is
            being rolled out.
        deaths: How many runs in a row died while they watched; set by the automation that starts
            the next. After too many the rollout is aborted.
        died: When the last of them did. Deaths before another run looked are over.
    """
    connect_storage()
    seen: list[Rollout] = []
    current = take_up(model, version, settings, reason, force, deaths, died)
    begun = publish_meanwhile(model)
    while current is not None:
        if not current.ended:
            current = watch(current)
        if current.ended:
            seen.append(conclude(current))
        current = successor(current)
    for ended in seen:  # not before: while a page is drawn nothing is watched
        report(ended)
    if begun is not None:
        begun.wait()
    publish_versions(model)
    return Watch(model=model, rollouts=tuple(seen))
