"""What alerts say, rendered by the server's own templates."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from prefect.server.events.actions import JinjaTemplateAction
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.utilities.user_templates import render_user_template
from prefect.settings import PREFECT_UI_URL, temporary_settings

from deployments.messages import ALERTS
from perennial.contracts.events import Event, resource_id
from perennial.contracts.retraining import Finding, Retraining, Trigger
from perennial.decisions.retraining import decide
from perennial.spec.production import Retrain
from tasks._events import announce

MORNING = datetime(2024, 5, 8, 6, tzinfo=UTC)
LOOK = Trigger(
    kind="drift",
    reason="3 of 4 columns have drifted",
    at=MORNING,
    finding=Finding.HARMFUL,
    window=(datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 8, tzinfo=UTC)),
    evidence={
        "share": 0.75,
        "worst": "shop",
        "columns": {"shop": 0.4},
        "report": "/project/.perennial/reports/demand/look.html",
    },
)


def announced(settings: Retrain) -> dict[str, Any]:
    """What the event tells of the look, as it is sent, once the policy has answered."""
    sent: list[dict[str, Any]] = []
    answer = decide(LOOK, settings, (), MORNING)
    retraining = Retraining(id=4, model="demand", trigger=LOOK, actor="tests", current=answer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks._events.emit", lambda _, __, payload, ___: sent.append(payload))
        announce(Event.DRIFT_DETECTED, retraining)
    (payload,) = sent
    return payload


PAYLOAD = announced(Retrain(on=("data",)))


def event(name: str, payload: dict[str, Any], **resource: str) -> ReceivedEvent:
    return ReceivedEvent(
        occurred=MORNING,
        event=name,
        resource={"prefect.resource.id": resource_id("demand"), **resource},
        payload=payload,
        id=UUID(int=7),
    )


def rendered(template: str, **context: Any) -> str:
    JinjaTemplateAction._register_filters_if_needed()
    with temporary_settings({PREFECT_UI_URL: "http://prefect.example"}):
        return asyncio.run(render_user_template(template, {"flow_run": None, **context}))


def test_a_drift_alert_says_what_why_and_where_to_look() -> None:
    told = event("perennial.drift.detected", PAYLOAD)
    drift = ALERTS["drift"]
    assert rendered(drift.subject, event=told) == "demand: what it is asked has drifted"
    assert rendered(drift.body, event=told) == (
        "demand: what it is asked has drifted.\n"
        "\n"
        "Reason: harmful drift: 3 of 4 columns have drifted, but model.yaml's retrain.on has no "
        "drift\n"
        "Finding: harmful drift\n"
        "Window: 2024-05-01T00:00:00Z to 2024-05-08T00:00:00Z\n"
        "Figures: share: 0.75, worst: shop\n"
        "Retrain: no\n"
        "Report: /project/.perennial/reports/demand/look.html\n"
        "Event: http://prefect.example/events/event/2024-05-08/00000000-0000-0000-0000-000000000007\n"
        "\n"
        "More on it: perennial status demand\n"
    )


def test_a_run_that_failed_is_told_with_its_page() -> None:
    told = event(
        "prefect.flow-run.Crashed",
        {},
        **{
            "prefect.resource.id": f"prefect.flow-run.{UUID(int=9)}",
            "prefect.resource.name": "score by demand",
            "prefect.state-message": "no heartbeat for 240 s: its process is gone",
            "prefect.state-name": "Crashed",
        },
    )
    context = {"event": told, "flow": {"name": "batch-scoring"}}
    run = {"name": "score by demand", "parameters": {"model": "demand"}}
    alert = ALERTS["run"]
    assert rendered(alert.subject, flow_run=run, **context) == "demand: batch-scoring crashed"
    assert rendered(alert.body, flow_run=run, **context).startswith(
        "demand: batch-scoring crashed.\n"
        "\n"
        "Reason: no heartbeat for 240 s: its process is gone\n"
        "Flow: batch-scoring\n"
        "Run: score by demand\n"
        "State: Crashed\n"
    )
    gone = rendered(alert.body, **context)  # deleted meanwhile
    assert gone.startswith("a run: batch-scoring crashed.\n\nReason: no heartbeat")


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_event_that_tells_nothing_is_told_all_the_same(name: str) -> None:
    alert = ALERTS[name]
    told = event(min(alert.events), {})
    assert rendered(alert.subject, event=told, flow=None)
    assert rendered(alert.body, event=told, flow=None)
    found = json.loads(rendered(alert.json, event=told, flow=None))
    assert found["alert"] == name
    assert found["payload"] == {}


@pytest.mark.parametrize("name", sorted(set(ALERTS) - {"run"}))
def test_a_program_gets_the_text_and_all_that_the_event_tells(name: str) -> None:
    alert = ALERTS[name]
    told = event(min(alert.events), PAYLOAD)
    found = json.loads(rendered(alert.json, event=told))
    assert found["text"] == rendered(alert.body, event=told).strip()
    assert found["subject"] == rendered(alert.subject, event=told)
    assert (found["model"], found["reason"]) == ("demand", PAYLOAD["reason"])
    assert found["link"] == PAYLOAD["report"]
    assert found["payload"] == PAYLOAD
    assert (found["event"], found["id"]) == (min(alert.events), str(UUID(int=7)))


def test_text_from_outside_stays_text() -> None:
    payload = {
        "model": "a\nBcc: everybody@example.com\n" + "x" * 500,
        "reason": 'he said "{{ 7 * 7 }}" \\ <b>&amp;</b>\n{% raw %} é',
        "evidence": ["not", "a", "mapping"],
        "window": 17.5,
        "report": 17,
    }
    told = event("perennial.drift.detected", payload)
    drift = ALERTS["drift"]
    subject = rendered(drift.subject, event=told)
    assert "\n" not in subject
    assert len(subject) <= 125
    assert payload["reason"] in rendered(drift.body, event=told)
    found = json.loads(rendered(drift.json, event=told))
    assert found["payload"] == payload
    assert found["reason"] == payload["reason"]
