"""What prefect.yaml declares for a model: what starts its training."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from perennial.spec import ModelSpec
from perennial.spec.deployment import prefect_yaml
from tests.workplace import MODEL_YAML


def triggers(**retrain: Any) -> dict[str, dict[str, Any]]:
    """By what follows the deployment's name in the automation's."""
    spec = ModelSpec.model_validate(yaml.safe_load(MODEL_YAML) | {"retrain": retrain})
    found = yaml.safe_load(prefect_yaml([spec]))["deployments"]
    (training,) = [d for d in found if "continuous_training" in d["entrypoint"]]
    return {t["name"].removeprefix("continuous-training/demand: "): t for t in training["triggers"]}


@pytest.mark.parametrize(
    ("retrain", "expected"),
    [
        ({}, {}),
        ({"schedule": "0 6 * * 1"}, {"answered": ["retraining.due"]}),
        ({"on": ["drift"]}, {"answered": ["drift.detected", "retraining.due"]}),
        (
            {"on": ["performance", "drift", "data"]},
            {
                "answered": ["performance.dropped", "drift.detected", "retraining.due"],
                "data arrived": ["data.arrived"],
            },
        ),
    ],
)
def test_a_training_is_started_by_what_retrain_names(
    retrain: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    found = {name: trigger["expect"] for name, trigger in triggers(**retrain).items()}
    assert found == {
        name: [f"perennial.{event}" for event in events] for name, events in expected.items()
    }


def test_only_what_was_answered_with_retrain_or_what_others_say_of_data_starts_one() -> None:
    found = triggers(on=["drift", "data"])
    assert found["answered"]["match"] == {
        "prefect.resource.id": "perennial.model.demand",
        "perennial.answer": "retrain",
    }
    assert found["data arrived"]["match"] == {"prefect.resource.id": "perennial.model.demand"}


def test_our_answers_start_a_run_at_once_and_a_burst_of_others_data_one() -> None:
    found = triggers(on=["drift", "data"])
    for trigger in found.values():
        assert (trigger["posture"], trigger["threshold"]) == ("Reactive", 1)
        assert trigger["parameters"]["model"] == "demand"
    assert {name: trigger["within"] for name, trigger in found.items()} == {
        "answered": 0,
        "data arrived": 30,
    }
