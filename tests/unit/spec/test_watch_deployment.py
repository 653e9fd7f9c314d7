"""The drift watch in prefect.yaml: scheduled as the spec says."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from perennial.spec import ModelSpec
from perennial.spec.deployment import prefect_yaml
from tests.workplace import MODEL_YAML


def watching(**drift: Any) -> dict[str, Any]:
    spec = ModelSpec.model_validate(yaml.safe_load(MODEL_YAML) | {"drift": drift})
    found = yaml.safe_load(prefect_yaml([spec]))["deployments"]
    (watch,) = [d for d in found if d["entrypoint"] == "flows.drift_watch.drift_watch"]
    return dict(watch)


@pytest.mark.parametrize(
    ("drift", "crons"),
    [
        ({}, ["0 5 * * *"]),
        ({"schedule": "30 * * * *"}, ["30 * * * *"]),
        ({"schedule": None}, []),
    ],
)
def test_a_model_is_watched_as_its_spec_says(drift: dict[str, Any], crons: list[str]) -> None:
    found = watching(**drift)
    assert found["name"] == "demand"
    assert found["parameters"] == {"model": "demand"}
    assert [schedule["cron"] for schedule in found["schedules"]] == crons
    assert {schedule["timezone"] for schedule in found["schedules"]} <= {"UTC"}


def test_one_look_at_a_time() -> None:
    assert watching()["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
