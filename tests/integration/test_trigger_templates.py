"""The parameters of runs that events start, rendered by Prefect itself and taken by the flow.

A template that fails is silent to whoever emitted the event, so that every payload is tried.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.server.events.actions import RunDeployment
from prefect.server.events.schemas.automations import (
    Automation,
    EventTrigger,
    Firing,
    TriggeredAction,
    TriggerState,
)
from prefect.server.events.schemas.events import ReceivedEvent, Resource
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate

from flows.continuous_training import continuous_training
from perennial.contracts.retraining import Finding, Trigger
from perennial.spec import ModelSpec
from perennial.spec.deployment import prefect_yaml
from tests.workplace import MODEL_YAML

NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)
LOOK = Trigger(
    kind="drift",
    reason="5 columns: <temperature> & \"shop\" {{ x }} 'quoted'",
    at=NOW,
    finding=Finding.HARMFUL,
    window=(NOW, NOW),
    data="d1",
    evidence={"columns": [{"name": "größe", "size": 0.41, "power": None}], "rows": 2000},
)


def rendered(which: int, payload: dict[str, Any], event: str) -> dict[str, Any]:
    """The parameters for an event, checked as the server checks them before it creates a run."""
    spec = ModelSpec.model_validate(
        yaml.safe_load(MODEL_YAML) | {"retrain": {"on": ["drift", "performance", "data"]}}
    )
    training = yaml.safe_load(prefect_yaml([spec]))["deployments"][0]
    declared = training["triggers"][which]
    parameters = declared.pop("parameters")
    trigger = EventTrigger.model_validate(declared)
    action = RunDeployment(source="selected", deployment_id=uuid4(), parameters=parameters)
    automation = Automation(id=uuid4(), name="a", trigger=trigger, actions=[action])
    received = ReceivedEvent(
        id=uuid4(),
        occurred=NOW,
        event=event,
        resource=Resource({"prefect.resource.id": "perennial.model.demand"}),
        payload=payload,
        received=NOW,
    )
    firing = Firing(
        trigger=automation.trigger,
        trigger_states={TriggerState.Triggered},
        triggered=NOW,
        triggering_event=received,
    )
    triggered = TriggeredAction(
        automation=automation,
        firing=firing,
        triggered=NOW,
        triggering_labels={},
        triggering_event=received,
        action=action,
    )
    found = asyncio.run(action.render_parameters(triggered))
    schema = parameter_schema(continuous_training).model_dump()
    validate(found, schema, raise_on_error=True)
    return found


def taken(found: dict[str, Any]) -> Trigger:
    trigger = continuous_training.validate_parameters(found)["trigger"]
    assert isinstance(trigger, Trigger)
    return trigger


@pytest.mark.parametrize(
    ("which", "event"),
    [
        (0, "perennial.drift.detected"),
        (0, "perennial.retraining.due"),
        (1, "perennial.data.arrived"),
    ],
)
def test_our_own_evidence_arrives_as_it_was(which: int, event: str) -> None:
    sent = {"reason": LOOK.reason, "trigger": LOOK.model_dump(mode="json")}
    found = rendered(which, sent, event)
    assert (found["model"], found["reason"]) == ("demand", LOOK.reason)
    assert taken(found) == LOOK


@pytest.mark.parametrize(
    ("payload", "reason", "data"),
    [
        ({"data": "2024-05-01", "reason": "1 May is in"}, "1 May is in", "2024-05-01"),
        ({"data": "2024-05-01"}, "reported by an event", "2024-05-01"),
        ({"data": 17, "reason": None}, "reported by an event", "17"),
        ({"data": ["a", "b"], "reason": ["c"]}, "['c']", "['a', 'b']"),
        ({"data": "x" * 300, "reason": "y" * 900}, "y" * 500, "x" * 200),
        ({"reason": "<b> & 'c' {{ x }}", "data": '"'}, "<b> & 'c' {{ x }}", '"'),
        (
            {"data": "d", "reason": "", "trigger": None, "more": {"x": 1}},
            "reported by an event",
            "d",
        ),
    ],
)
def test_an_event_of_somebody_else_needs_no_more_than_a_name(
    payload: dict[str, Any], reason: str, data: str
) -> None:
    found = rendered(1, payload, "perennial.data.arrived")
    trigger = taken(found)
    assert found["reason"] == trigger.reason == reason
    assert (trigger.kind, trigger.data, trigger.at) == ("data", data, NOW)
    assert trigger.window is None
    assert list(trigger.evidence) == ["event"]


def test_events_without_any_payload_are_causes_of_their_own() -> None:
    one, other = (taken(rendered(1, {}, "perennial.data.arrived")) for _ in range(2))
    assert one.cause != other.cause
