"""What is declared: whom it is about, and what it does."""

from __future__ import annotations

import importlib
import pkgutil
from datetime import timedelta
from uuid import uuid4

import pytest
from prefect import Flow
from prefect.events.actions import CallWebhook, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.automations import AutomationCore as AutomationOnServer
from prefect.settings import get_current_settings

import flows
from deployments.automations import DEAD_AFTER, DEPLOYED, FLOWS, TAG, declared
from deployments.destinations import Destination
from deployments.messages import ALERTS
from perennial.contracts.events import CAUSE_LABEL, Event
from perennial.spec.deployment import prefect_yaml
from perennial.stores.project import Project

MAIL = Destination("slack-webhook", "perennial-alerts-email", uuid4(), takes_json=False)
HOOK = Destination("webhook", "perennial-alerts-webhook", uuid4(), takes_json=True)


def trigger_of(name: str) -> EventTrigger:
    (found,) = [one for one in declared([MAIL, HOOK]) if one.name == name]
    assert isinstance(found.trigger, EventTrigger)
    return found.trigger


def test_every_flow_is_looked_after_by_its_name() -> None:
    modules = [
        importlib.import_module(f"flows.{module.name}")
        for module in pkgutil.iter_modules(flows.__path__)
        if module.name != "__main__"
    ]
    names = {
        value.name
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Flow)
    }
    assert {"continuous-training", "batch-scoring"} <= names
    assert names <= set(FLOWS)


def test_failures_of_all_deployed_flows_are_told(project: object) -> None:
    text = prefect_yaml(Project(project.root).specs())  # type: ignore[attr-defined]
    entrypoints = [
        line.split()[-1] for line in text.splitlines() if line.strip().startswith("entrypoint:")
    ]
    assert entrypoints
    for entrypoint in entrypoints:
        module, _, name = entrypoint.rpartition(".")
        assert getattr(importlib.import_module(module), name).name in DEPLOYED


def test_the_server_takes_all_of_it_and_names_differ() -> None:
    found = declared([MAIL, HOOK])
    assert len({one.name for one in found}) == len(found) == 1 + len(ALERTS)
    for one in found:
        taken = AutomationOnServer.model_validate(one.model_dump(mode="json"))
        assert taken.tags == [TAG]


def test_a_run_is_dead_only_after_more_than_prefects_own_heartbeats() -> None:
    own = type(get_current_settings().flows).model_fields["heartbeat_frequency"].default
    assert timedelta(seconds=own + 30) < DEAD_AFTER
    trigger = trigger_of("Perennial: runs that died")
    assert trigger.within == DEAD_AFTER
    assert trigger.after < trigger.expect  # a heartbeat starts the wait anew
    assert {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled")} < (
        trigger.expect
    )


def test_nothing_but_the_state_hangs_on_a_missing_heartbeat() -> None:
    (found,) = [one for one in declared([MAIL, HOOK]) if one.name == "Perennial: runs that died"]
    (action,) = found.actions
    assert isinstance(action, ChangeFlowRunState)
    assert (action.state, action.force) == ("CRASHED", False)


@pytest.mark.parametrize("name", ["drift", "performance", "fault", "refusal", "rollback"])
def test_what_happens_to_a_model_is_told_once_a_cause(name: str) -> None:
    trigger = trigger_of(f"Perennial alert: {name}")
    assert trigger.for_each == {"prefect.resource.id", CAUSE_LABEL}
    assert trigger.within == timedelta(days=7)
    assert trigger.expect == ALERTS[name].events


def test_events_that_only_start_something_are_not_told() -> None:
    told = {event for alert in ALERTS.values() for event in alert.events}
    quiet = {
        Event.DATA_ARRIVED,
        Event.RETRAINING_DUE,
        Event.VERSION_REGISTERED,
        Event.ROLLOUT_DUE,
        Event.ROLLOUT_PROMOTED,
    }
    assert told.isdisjoint(quiet)
    assert {event.value for event in Event} - quiet <= told


def test_an_alert_goes_everywhere_in_each_ones_way() -> None:
    for automation in declared([MAIL, HOOK])[1:]:
        mail, hook = automation.actions
        assert isinstance(mail, SendNotification)
        assert isinstance(hook, CallWebhook)
        assert (mail.block_document_id, hook.block_document_id) == (MAIL.id, HOOK.id)


def test_without_anywhere_to_go_there_are_no_alerts() -> None:
    assert [one.name for one in declared([])] == ["Perennial: runs that died"]
