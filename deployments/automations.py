"""The automations of Perennial: what marks runs that died, and what sends each kind of alert."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, CallWebhook, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from deployments.destinations import Destination
from deployments.messages import ALERTS, Alert
from perennial.contracts.events import CAUSE_LABEL, resource_id

TAG = "perennial-setup"
"""Marks the automations that are declared here; others are never touched."""

DEPLOYED = ("backtest", "batch-scoring", "continuous-training", "drift-watch", "rollout")
"""The flows that work without anybody looking on: their failures are told."""
FLOWS = (*DEPLOYED, "replay", "reproduction")
"""All flows of ours; Prefect knows them by name."""

DEAD_AFTER = timedelta(minutes=4)
"""Without a heartbeat a run is dead. Longer than the 180 s that Prefect leaves between two of them
by itself, so that no living run is taken for dead, however it was started."""

_SAME_CAUSE = timedelta(days=7)
_SAME_RUN = timedelta(minutes=15)
"""A run that is killed may be reported twice: by who started it, and by itself."""

_HEARTBEAT = "prefect.flow-run.heartbeat"
_SETTLED = ("AwaitingRetry", "Cancelled", "Completed", "Crashed", "Failed", "Suspended")


def declared(
    destinations: Sequence[Destination], dead_after: timedelta = DEAD_AFTER
) -> list[AutomationCore]:
    """All automations, with names that differ. Without destinations there are none for alerts."""
    alerts = [_sending(alert, destinations) for alert in ALERTS.values()] if destinations else []
    return [_marking_the_dead(dead_after), *alerts]


def _marking_the_dead(after: timedelta) -> AutomationCore:
    """A run whose process is gone without a word shows as Crashed, and frees its place.

    Prefect lets this fire for some runs that have just completed too; the server refuses to change
    their state then. So nothing else may hang on it: that a run crashed is told by its own event.
    """
    message = f"no heartbeat for {after.total_seconds():.0f} s: its process is gone"
    return AutomationCore(
        name="Perennial: runs that died",
        description="Marks a run as crashed whose process was killed or whose machine is gone.",
        tags=[TAG],
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_runs_of(FLOWS),
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{state}" for state in _SETTLED)},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=after,
        ),
        actions=[ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message)],
    )


def _sending(alert: Alert, destinations: Sequence[Destination]) -> AutomationCore:
    """Send an alert everywhere, once a cause: events that come again, doubled on the way or sent
    anew by who doesn't know that they arrived, are left alone."""
    resource = "prefect.flow-run.*" if alert.of_runs else resource_id("*")
    return AutomationCore(
        name=f"Perennial alert: {alert.name}",
        description="Where it goes and what it says: docs/alerts.md",
        tags=[TAG],
        trigger=EventTrigger(
            match={"prefect.resource.id": resource},
            match_related=_runs_of(DEPLOYED) if alert.of_runs else {},
            expect=set(alert.events),
            for_each={"prefect.resource.id"}
            if alert.of_runs
            else {"prefect.resource.id", CAUSE_LABEL},
            posture=Posture.Reactive,
            threshold=1,
            within=_SAME_RUN if alert.of_runs else _SAME_CAUSE,
        ),
        actions=[_action(alert, destination) for destination in destinations],
    )


def _action(alert: Alert, destination: Destination) -> ActionTypes:
    if destination.takes_json:
        return CallWebhook(block_document_id=destination.id, payload=alert.json)
    return SendNotification(
        block_document_id=destination.id, subject=alert.subject, body=alert.body
    )


def _runs_of(flows: Sequence[str]) -> dict[str, str | list[str]]:
    return {"prefect.resource.role": "flow", "prefect.resource.name": list(flows)}
