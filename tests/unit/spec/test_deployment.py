"""What prefect.yaml declares for a model: what starts its training."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from prefect.server.events.actions import RunDeployment
from prefect.server.events.schemas.automations import EventTrigger
from prefect.utilities.schema_tools.hydration import HydrationContext, hydrate

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


def rollout_deployment() -> dict[str, Any]:
    spec = ModelSpec.model_validate(yaml.safe_load(MODEL_YAML))
    found = yaml.safe_load(prefect_yaml([spec]))["deployments"]
    (rollout,) = [d for d in found if d["entrypoint"] == "flows.rollout.rollout"]
    return rollout


def test_a_rollout_that_was_begun_is_watched_and_one_that_was_promoted_at_once_is_not() -> None:
    begun, _ = rollout_deployment()["triggers"]
    assert begun["expect"] == ["perennial.version.registered", "perennial.rollout.due"]
    assert begun["match"] == {
        "prefect.resource.id": "perennial.model.demand",
        "perennial.rollout": "begun",
    }
    assert (begun["within"], begun["parameters"]) == (0, {"model": "demand"})


def test_an_order_by_prefect_does_not_wait_for_the_end_of_what_is_watched() -> None:
    assert "concurrency_limit" not in rollout_deployment()


def test_only_the_models_own_runs_of_the_rollout_are_followed_when_they_die() -> None:
    _, died = rollout_deployment()["triggers"]
    assert died["expect"] == ["prefect.flow-run.Crashed", "prefect.flow-run.Failed"]
    assert died["match_related"] == [
        {"prefect.resource.role": "flow", "prefect.resource.name": "rollout"},
        {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.model:demand"},
    ]
    taken = EventTrigger.model_validate(
        {key: value for key, value in died.items() if key not in ("name", "parameters")}
    )
    assert taken.within.total_seconds() == 0


@pytest.mark.parametrize(
    ("seconds", "before", "deaths"), [(10, None, 1), (10, 0, 1), (10, 4, 5), (1000, 4, 1)]
)
def test_the_next_run_is_told_how_many_died_in_a_row(
    seconds: float, before: int | None, deaths: int
) -> None:
    _, died = rollout_deployment()["triggers"]
    dead = {"total_run_time": timedelta(seconds=seconds), "parameters": {"deaths": before}}
    parameters = dict(died["parameters"])
    RunDeployment._upgrade_v1_templates(parameters)
    context = HydrationContext(
        raise_on_error=True,
        render_jinja=True,
        jinja_context={"flow_run": dead, "event": {"occurred": datetime(2026, 5, 1, tzinfo=UTC)}},
    )
    assert hydrate(parameters, context) == {
        "model": "demand",
        "deaths": deaths,
        "died": "2026-05-01T00:00:00+00:00",
    }
