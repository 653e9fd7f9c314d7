"""prefect.yaml from the models' specs: for each its training and its drift watch, scheduled as the
spec says, and its batch scoring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

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
#   prefect deployment run 'batch-scoring/NAME' --param source=FILE --param output=FOLDER
"""


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
            for deployment in (_training(spec), _watching(spec), _scoring(spec))
        ],
    }
    return _HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def is_ours(text: str) -> bool:
    """Whether ``prefect_yaml`` wrote this text, now or for other models."""
    return text.startswith(_MARK)


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
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "work_pool": _work_pool(),
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


def _work_pool() -> dict[str, Any]:
    return {
        "name": WORK_POOL,
        "job_variables": {"env": {"PREFECT_LOCAL_STORAGE_PATH": ".perennial/results"}},
    }
