"""What prefect.yaml declares beside what is deployed: ``perennial setup --check`` tells it apart.

Only compared: ``prefect --no-prompt deploy --all`` is what deploys. The comparison goes by what
that command would send, so that what it resolves (Prefect variables, ``{{ $VARIABLE }}``) is
resolved here too. Whether a deployment, a schedule or an automation is paused is the user's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events import DeploymentEventTrigger
from prefect.events.schemas.automations import AutomationCore
from prefect.utilities.templating import apply_values, resolve_variables

from deployments.automations import DEPLOYED
from deployments.steps import Step

COMPARED = frozenset(
    ("name", "entrypoint", "description", "tags", "parameters", "schedules", "work_pool")
)
"""What every deployment of prefect.yaml has."""

_DEFAULT_PULL = "prefect.deployments.steps.set_working_directory"
_PAGE = 200


def compare(client: SyncPrefectClient, prefect_yaml: Mapping[str, Any]) -> Iterator[Step]:
    """A step for each deployment that prefect.yaml declares, and for each of a model's that it
    doesn't (any more)."""
    there = _there(client)
    for entry in prefect_yaml["deployments"]:
        name = f"{_flow_of(entry)}/{entry['name']}"
        found = there.pop(name, None)
        if found is None:
            yield Step(kind="deployment", name=name, outcome="not deployed")
        elif differing := _differing(client, name, entry, found):
            detail = ", ".join(differing)
            yield Step(kind="deployment", name=name, outcome="differs", detail=detail)
        else:
            yield Step(kind="deployment", name=name, outcome="as declared")
    for name in sorted(there):
        yield Step(kind="deployment", name=name, outcome="not declared")


def _there(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """All deployments of our flows for models, by flow and name."""
    found: dict[str, DeploymentResponse] = {}
    for flow in DEPLOYED:
        offset = 0
        while True:
            page = client.read_deployments(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])), limit=_PAGE, offset=offset
            )
            found |= {f"{flow}/{one.name}": one for one in page if f"model:{one.name}" in one.tags}
            if len(page) < _PAGE:
                break
            offset += len(page)
    return found


def _differing(
    client: SyncPrefectClient, name: str, entry: Mapping[str, Any], found: DeploymentResponse
) -> list[str]:
    """The keys of prefect.yaml in which the two differ."""
    resolved = asyncio.run(resolve_variables(dict(entry["work_pool"])))
    pool: dict[str, Any]
    pool = apply_values(resolved, dict(os.environ), skip_prefixes=["ctx."])
    limit = entry.get("concurrency_limit")
    same = {
        "description": entry["description"] == found.description,
        "tags": sorted(entry["tags"]) == sorted(found.tags),
        "entrypoint": entry["entrypoint"] == found.entrypoint,
        "parameters": entry["parameters"] == found.parameters,
        "schedules": _schedules(entry) == _schedules_of(found),
        "triggers": _triggers(entry, found) == _triggers_of(client, name, found),
        "concurrency_limit": limit == _limit_of(found),
        "pull": _same_pull(entry.get("pull"), found.pull_steps),
        "work_pool.name": pool["name"] == found.work_pool_name,
        "work_pool.work_queue_name": pool.get("work_queue_name", "default")
        == found.work_queue_name,
    }
    differing = [key for key, is_same in same.items() if not is_same]
    one, other = pool.get("job_variables", {}), found.job_variables or {}
    return [
        *differing,
        *(
            f"work_pool.job_variables.{key}"
            for key in sorted(one.keys() | other.keys())
            if one.get(key) != other.get(key)
        ),
    ]


def _flow_of(entry: Mapping[str, Any]) -> str:
    name: str = entry["entrypoint"].rpartition(".")[2].replace("_", "-")
    return name


def _schedules(entry: Mapping[str, Any]) -> list[str]:
    found = [
        (one["cron"], one["timezone"], one.get("parameters", {})) for one in entry["schedules"]
    ]
    return sorted(map(str, found))


def _schedules_of(found: DeploymentResponse) -> list[str]:
    schedules = [(one.schedule, one.parameters) for one in found.schedules]
    return sorted(
        str((getattr(one, "cron", None), getattr(one, "timezone", None), parameters))
        for one, parameters in schedules
    )


def _triggers(entry: Mapping[str, Any], found: DeploymentResponse) -> dict[str, dict[str, Any]]:
    declared = {}
    for one in entry.get("triggers", []):
        trigger = DeploymentEventTrigger.model_validate(one)
        trigger.set_deployment_id(found.id)
        declared[one["name"]] = _told(trigger.as_automation())
    return declared


def _triggers_of(
    client: SyncPrefectClient, name: str, found: DeploymentResponse
) -> dict[str, dict[str, Any]]:
    """Those that are named as prefect.yaml names them; what somebody else made is left alone."""
    related = client.read_resource_related_automations(f"prefect.deployment.{found.id}")
    return {one.name: _told(one) for one in related if one.name.startswith(f"{name}: ")}


def _told(automation: AutomationCore) -> dict[str, Any]:
    return automation.model_dump(include={"trigger", "actions", "description"})


def _limit_of(found: DeploymentResponse) -> dict[str, Any] | None:
    if found.global_concurrency_limit is None:
        return None
    options = found.concurrency_options
    strategy = None if options is None else options.collision_strategy.value
    return {"limit": found.global_concurrency_limit.limit, "collision_strategy": strategy}


def _same_pull(declared: list[dict[str, Any]] | None, found: list[dict[str, Any]] | None) -> bool:
    if declared is None:  # the folder that it was deployed from, wherever that was
        return [list(step) for step in found or []] == [[_DEFAULT_PULL]]
    resolved: list[dict[str, Any]]
    resolved = [apply_values(step, dict(os.environ), remove_notset=False) for step in declared]  # type: ignore[misc]
    return resolved == (found or [])
