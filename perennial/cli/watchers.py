"""Runs that watch a model's rollout, as a Prefect server knows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Call = Callable[[str, str, Any], Any]
"""Asks a Prefect API: method, path and body."""

_ENDED = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]


def is_watched(call: Call, model: str) -> bool:
    """Whether there is a run of the flow ``rollout`` for the model that has not ended, be it one
    that is yet to begin."""
    asked = {
        "flows": {"name": {"any_": ["rollout"]}},
        "flow_runs": {
            "tags": {"all_": [f"model:{model}"]},
            "state": {"type": {"not_any_": _ENDED}},
        },
        "limit": 1,
    }
    return bool(call("POST", "/flow_runs/filter", asked))


def deployment_of(call: Call, model: str) -> str:
    """The id of the deployment whose worker watches."""
    return str(call("GET", f"/deployments/name/rollout/{model}", None)["id"])


def have_watched(call: Call, deployment: str) -> None:
    """Start a run of the deployment."""
    call("POST", f"/deployments/{deployment}/create_flow_run", {})
