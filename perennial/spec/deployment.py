"""prefect.yaml from the models' specs: for each its training and its drift watch, scheduled as the
spec says, its rollouts, its batch scoring, and its backtest, each where deploy.yaml says."""

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
from perennial.spec.places import WORK_POOL, Deploy, Flow
from perennial.spec.schema import ModelSpec

_MARK = "# Written from models/*/model.yaml"
_HEADER = f"""\
{_MARK}; `perennial check --write` writes it anew.
%s
#   prefect --no-prompt deploy --all
%s
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
_DIED = "{{ event.occurred.isoformat() }}"
_ANYBODYS = {
    "reason": f"{{{{ {_REASON} }}}}",
    "trigger": f"{{{{ event.payload.trigger | default({_OWN}, true) }}}}",
}


class _Dumper(yaml.SafeDumper):
    """Writes a value that is used twice twice, as a person would."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def prefect_yaml(specs: Sequence[ModelSpec], deploy: Deploy | None = None) -> str:
    """The text of prefect.yaml for these models, sorted by name.

    Flows are named by module, so that they are found wherever Perennial is installed. Without pull
    steps the working directory of a run is the folder that ``prefect deploy`` was called in, the
    project. Raises InputError when ``deploy`` names a model that there is not.
    """
    deploy = deploy or Deploy()
    deploy.check([spec.name for spec in specs])
    deployments = [
        deployment
        for spec in sorted(specs, key=lambda s: s.name)
        for deployment in _of_model(spec, deploy)
    ]
    document = {"name": "perennial", "deployments": deployments}
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return _header({entry["work_pool"]["name"] for entry in deployments}) + text


def is_ours(text: str) -> bool:
    """Whether ``prefect_yaml`` wrote this text, now or for other models."""
    return text.startswith(_MARK)


def _header(pools: set[str]) -> str:
    if pools <= {WORK_POOL}:
        made = [f"#   prefect work-pool create {WORK_POOL} --type process"]
    else:
        made = ["#   perennial setup --pool process|docker|kubernetes|ecs"]
    started = [f"#   prefect worker start --pool {pool}" for pool in sorted(pools or {WORK_POOL})]
    return _HEADER % ("\n".join(made), "\n".join(started))


def _of_model(spec: ModelSpec, deploy: Deploy) -> Iterator[dict[str, Any]]:
    one_at_a_time = {"concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"}}

    def deployment(flow: Flow, description: str, **more: Any) -> dict[str, Any]:
        function = flow.replace("-", "_")
        return {
            "name": spec.name,
            "description": description,
            "tags": [f"model:{spec.name}"],
            "entrypoint": f"flows.{function}.{function}",
            "parameters": {"model": spec.name},
            "schedules": [],
            **more,
            **deploy.of(spec.name, flow),
        }

    yield deployment(
        "continuous-training",
        spec.description or f"Continuous training of {spec.name}",
        schedules=_schedules(spec.retrain.schedule, parameters={"reason": "schedule"}),
        triggers=_training_triggers(spec),
        **one_at_a_time,
    )
    yield deployment(
        "drift-watch",
        f"Watches what {spec.name} sees in production, and how well it does",
        schedules=_schedules(spec.drift.schedule),
        **one_at_a_time,
    )
    yield deployment(
        "rollout",
        f"Rolls out new versions of {spec.name}, and rolls back bad ones",
        triggers=_rollout_triggers(spec),
    )  # any number at once: an order that waited for who watches would come when that is over
    yield deployment("batch-scoring", f"Batch scoring by {spec.name}")
    if spec.source.event_time is not None:  # else there is no past to walk through
        what = f"Which policy of retraining {spec.name} should have, by its past"
        yield deployment("backtest", what)


def _schedules(cron: str | None, **more: Any) -> list[dict[str, Any]]:
    return [{"cron": cron, "timezone": "UTC", **more}] if cron else []


def _training_triggers(spec: ModelSpec) -> list[dict[str, Any]]:
    """What starts a training besides its schedule: answers to retrain, and others' data."""
    name, ours = f"continuous-training/{spec.name}", resource_id(spec.name)
    events = [OF_KIND[kind] for kind in spec.retrain.on if kind in OF_KIND]
    found = []
    if spec.retrain.on or spec.retrain.schedule:  # what waited is started by RETRAINING_DUE
        found.append(
            _reactive(
                f"{name}: answered",
                [*events, Event.RETRAINING_DUE],
                {"prefect.resource.id": ours, ANSWER_LABEL: "retrain"},
                {"model": spec.name, **_OURS},
            )
        )
    if "data" in spec.retrain.on:
        found.append(
            _reactive(
                f"{name}: data arrived",
                [Event.DATA_ARRIVED],
                {"prefect.resource.id": ours},
                {"model": spec.name, **_ANYBODYS},
                within=_BURST,
            )
        )
    return found


def _rollout_triggers(spec: ModelSpec) -> list[dict[str, Any]]:
    """What was begun, when its version was registered, is watched; also where nobody does. A run
    that is gone is followed by another, which is told how many died in a row and gives up by
    itself: no automation can count."""
    name, tag = f"rollout/{spec.name}", f"prefect.tag.model:{spec.name}"
    return [
        _reactive(
            f"{name}: begun",
            [Event.VERSION_REGISTERED, Event.ROLLOUT_DUE],
            {"prefect.resource.id": resource_id(spec.name), ROLLOUT_LABEL: BEGUN},
            {"model": spec.name},
        ),
        _reactive(
            f"{name}: died",
            ["prefect.flow-run.Crashed", "prefect.flow-run.Failed"],
            {"prefect.resource.id": "prefect.flow-run.*"},
            {"model": spec.name, "deaths": _DEATHS, "died": _DIED},
            match_related=[
                {"prefect.resource.role": "flow", "prefect.resource.name": "rollout"},
                {"prefect.resource.role": "tag", "prefect.resource.id": tag},
            ],
        ),
    ]


def _reactive(
    name: str,
    events: Sequence[str],
    match: dict[str, str],
    parameters: dict[str, Any],
    within: int = _AT_ONCE,
    **more: Any,
) -> dict[str, Any]:
    """A run for each event that matches, or for the first of those that come ``within`` seconds."""
    return {
        "type": "event",
        "name": name,
        "expect": [str(event) for event in events],
        "match": match,
        **more,
        "for_each": ["prefect.resource.id"],
        "posture": "Reactive",
        "threshold": 1,
        "within": within,
        "parameters": parameters,
    }
