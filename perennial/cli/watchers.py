"""Runs that watch a model's rollout, as a Prefect server knows them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

Call = Callable[[str, str, Any], Any]
"""Asks a Prefect API: method, path and body."""

_ENDED = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]


def is_watched(call: Call, model: str, since: datetime | None = None) -> bool:
    """Whether there is a run of the flow ``rollout`` for the model that has not ended, be it one
    that is yet to begin. With ``since`` (``rolling_out.at_work_since``) one that has begun before
    does not count."""
    asked = {
        "flows": {"name": {"any_": ["rollout"]}},
        "flow_runs": {
            "tags": {"all_": [f"model:{model}"]},
            "state": {"type": {"not_any_": _ENDED}},
        },
    }
    found = call("POST", "/flow_runs/filter", asked)
    return any(since is None or _counts(run["state"], since) for run in found)


def _counts(state: dict[str, Any], since: datetime) -> bool:
    begun = datetime.fromisoformat(state["timestamp"])
    return state["type"] == "SCHEDULED" or begun >= since


def deployment_of(call: Call, model: str) -> str:
    """The id of the deployment whose worker watches."""
    return str(call("GET", f"/deployments/name/rollout/{model}", None)["id"])


def have_watched(call: Call, deployment: str) -> None:
    """Start a run of the deployment."""
    call("POST", f"/deployments/{deployment}/create_flow_run", {})
