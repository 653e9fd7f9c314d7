"""prefect.yaml from the models' specs: for each its training and its drift watch, scheduled as the
spec says, its rollouts, its batch scoring, and its backtest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from perennial.contracts.events import (
    ANSWER_LABEL,
    BEGUN,
    OF_KIND,
    ROLLOUT_LABEL,
    Event,
    resource_id,
)
from perennial.spec.schema import ModelSpec

WORK_POOL = "perennial"

_MARK = "# Written from models/*/model.yaml"
_HEADER = f"""\
{_MARK}; `perennial check --write` writes it anew.
#   prefect work-pool create perennial --type process
#   prefect --no-prompt deploy --all
#   prefect worker start --pool perennial
#   prefect deployment run 'continuous-training/NAME'
#   prefect deployment run 'drift-watch/NAME'
#   prefect deployment run 'rollout/NAME' --param version=V
#   prefect deployment run 'batch-scoring/NAME' --param source=FILE --param output=FOLDER
#   prefect deployment run 'backtest/NAME'
"""

_AT_ONCE = 0
"""Seconds: each event is answered. Ours are sent once a cause, and only where the answer is to
retrain. Prefect on SQLite answers such a trigger in 0.3 s, one that counts events in 2 to 3 s."""
_BURST = 30
"""Seconds: others may send an event a file. Of those that come within this time the first is
answered; if another was a cause of its own, the drift watch makes up for it (docs/events.md)."""
_OURS = {"reason": "{{ event.payload.reason }}", "trigger": "{{ event.payload.trigger }}"}
# Somebody else's event needs no payload at all. Without a name for the data each event is a cause.
_REASON = "(event.payload.reason | default('reported by an event', true) | string)[:500]"
_OWN = (
    "{'kind': 'data', 'at': event.occurred.isoformat(), "
    f"'reason': {_REASON}, "
    "'data': (event.payload.data | default(event.id, true) | string)[:200], "
    "'evidence': {'event': event.id | string}}"
)
_LONG = 900
"""Seconds that a run has watched, after which its death is the first in a row."""
_DEATHS = (
    f"{{{{ (1 if flow_run.total_run_time.total_seconds() > {_LONG} "
    "else (flow_run.parameters.deaths or 0) + 1) }}"  # the server appends a filter
)
_ANYBODYS = {
    "reason": f"{{{{ {_REASON} }}}}",
    "trigger": f"{{{{ event.payload.trigger | default({_OWN}, true) }}}}",
}


def prefect_yaml(specs: Sequence[ModelSpec]) -> str:
    """The text of prefect.yaml for these models, sorted by name.

    Flows are named by module, so that they are found wherever Perennial is installed; the working
    directory of a run is the folder that ``prefect deploy`` was called in, the project.
    """
    document = {
        "name": "perennial",
        "deployments": [
            deployment
            for spec in sorted(specs, key=lambda s: s.name)
            for deployment in _of_model(spec)
        ],
    }
    return _HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def is_ours(text: str) -> bool:
    """Whether ``prefect_yaml`` wrote this text, now or for other models."""
    return text.startswith(_MARK)


def _of_model(spec: ModelSpec) -> Iterator[dict[str, Any]]:
    yield from (_training(spec), _watching(spec), _rollout(spec), _scoring(spec))
    yield from _backtest(spec)


def _training(spec: ModelSpec) -> dict[str, Any]:
    schedule = spec.retrain.schedule
    return {
        "name": spec.name,
        "description": spec.description or f"Continuous training of {spec.name}",
        "tags": [f"model:{spec.name}"],
        "entrypoint": "flows.continuous_training.continuous_training",
        "parameters": {"model": spec.name},
        "schedules": [{"cron": schedule, "timezone": "UTC", "parameters": {"reason": "schedule"}}]
        if schedule
        else [],
        "triggers": _triggers(spec),
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "work_pool": _work_pool(),
    }


def _triggers(spec: ModelSpec) -> list[dict[str, Any]]:
    """What starts a training besides its schedule: answers to retrain, and others' data."""
    events = [OF_KIND[kind] for kind in spec.retrain.on if kind in OF_KIND]
    found = []
    if spec.retrain.on or spec.retrain.schedule:  # what waited is started by RETRAINING_DUE
        answered = [*events, Event.RETRAINING_DUE]
        retrain = {ANSWER_LABEL: "retrain"}
        found.append(_trigger(spec, "answered", answered, retrain, _OURS, _AT_ONCE))
    if "data" in spec.retrain.on:
        found.append(_trigger(spec, "data arrived", [Event.DATA_ARRIVED], {}, _ANYBODYS, _BURST))
    return found


def _trigger(
    spec: ModelSpec,
    name: str,
    events: Sequence[Event],
    labels: dict[str, str],
    parameters: dict[str, str],
    within: int,
) -> dict[str, Any]:
    return {
        "type": "event",
        "name": f"continuous-training/{spec.name}: {name}",
        "expect": [event.value for event in events],
        "match": {"prefect.resource.id": resource_id(spec.name), **labels},
        "for_each": ["prefect.resource.id"],
        "posture": "Reactive",
        "threshold": 1,
        "within": within,
        "parameters": {"model": spec.name, **parameters},
    }


def _watching(spec: ModelSpec) -> dict[str, Any]:
    schedule = spec.drift.schedule
    return {
        "name": spec.name,
        "description": f"Watches what {spec.name} sees in production, and how well it does",
        "tags": [f"model:{spec.name}"],
        "entrypoint": "flows.drift_watch.drift_watch",
        "parameters": {"model": spec.name},
        "schedules": [{"cron": schedule, "timezone": "UTC"}] if schedule else [],
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "work_pool": _work_pool(),
    }


def _rollout(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": f"Rolls out new versions of {spec.name}, and rolls back bad ones",
        "tags": [f"model:{spec.name}"],
        "entrypoint": "flows.rollout.rollout",
        "parameters": {"model": spec.name},
        "schedules": [],
        "triggers": [_begun(spec), _died(spec)],
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "work_pool": _work_pool(),
    }


def _begun(spec: ModelSpec) -> dict[str, Any]:
    """What was begun, when its version was registered, is watched; also where nobody does."""
    return {
        "type": "event",
        "name": f"rollout/{spec.name}: begun",
        "expect": [Event.VERSION_REGISTERED.value, Event.ROLLOUT_DUE.value],
        "match": {"prefect.resource.id": resource_id(spec.name), ROLLOUT_LABEL: BEGUN},
        "for_each": ["prefect.resource.id"],
        "posture": "Reactive",
        "threshold": 1,
        "within": _AT_ONCE,
        "parameters": {"model": spec.name},
    }


def _died(spec: ModelSpec) -> dict[str, Any]:
    """A run that is gone is followed by another, which is told how many died in a row and gives up
    by itself: no automation can count."""
    return {
        "type": "event",
        "name": f"rollout/{spec.name}: died",
        "expect": ["prefect.flow-run.Crashed", "prefect.flow-run.Failed"],
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": [
            {"prefect.resource.role": "flow", "prefect.resource.name": "rollout"},
            {
                "prefect.resource.role": "tag",
                "prefect.resource.id": f"prefect.tag.model:{spec.name}",
            },
        ],
        "for_each": ["prefect.resource.id"],
        "posture": "Reactive",
        "threshold": 1,
        "within": _AT_ONCE,
        "parameters": {"model": spec.name, "deaths": _DEATHS},
    }


def _scoring(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": f"Batch scoring by {spec.name}",
        "tags": [f"model:{spec.name}"],
        "entrypoint": "flows.batch_scoring.batch_scoring",
        "parameters": {"model": spec.name},
        "schedules": [],
        "work_pool": _work_pool(),
    }


def _backtest(spec: ModelSpec) -> list[dict[str, Any]]:
    if spec.source.event_time is None:  # no past to walk through
        return []
    return [
        {
            "name": spec.name,
            "description": f"Which policy of retraining {spec.name} should have, by its past",
            "tags": [f"model:{spec.name}"],
            "entrypoint": "flows.backtest.backtest",
            "parameters": {"model": spec.name},
            "schedules": [],
            "work_pool": _work_pool(),
        }
    ]


def _work_pool() -> dict[str, Any]:
    return {
        "name": WORK_POOL,
        "job_variables": {"env": {"PREFECT_LOCAL_STORAGE_PATH": ".perennial/results"}},
    }
