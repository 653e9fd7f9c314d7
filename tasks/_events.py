"""Events about a model, for automations and people.

Prefect's ``emit_event`` hands an event to a thread, and a process that ends by ``os._exit`` takes
it along. Here the server has the event when ``emit`` returns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

import httpx
from prefect.client.orchestration import get_client
from prefect.events.schemas.events import Event as PrefectEvent
from prefect.events.schemas.events import RelatedResource, Resource
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from perennial.contracts.events import (
    ANSWER_LABEL,
    CAUSE_LABEL,
    FINDING_LABEL,
    Event,
    resource_id,
)
from perennial.contracts.retraining import Retraining

_MOST_EVIDENCE = 16_000  # characters of JSON; it travels twice in an event of at most 1.5 MB
_MOST_NAMES = 20
_JSON = {"Content-Type": "application/json"}


def announce(event: Event, retraining: Retraining) -> bool:
    """Tell of an answer, with the trigger as a run takes it for its parameter. Done as ``emit``."""
    asked = retraining.trigger
    evidence = bounded(asked.evidence)
    trigger = asked.model_copy(update={"evidence": evidence}).model_dump(mode="json")
    labels: dict[str, str] = {ANSWER_LABEL: retraining.current.answer}
    if asked.finding is not None:
        labels[FINDING_LABEL] = asked.finding.value
    payload = payload_of(
        retraining.model, retraining.current.reason, asked.cause, evidence=asked.evidence,
        report=str(asked.evidence.get("report", "")), window=trigger["window"],
        finding=trigger["finding"], retraining=retraining.id, answer=retraining.current.answer,
        trigger=trigger,
    )  # fmt: skip
    return emit(event, retraining.model, payload, labels)


def payload_of(
    model: str,
    reason: str,
    cause: str,
    *,
    evidence: Mapping[str, Any],
    report: str,
    window: Sequence[str] | None = None,
    finding: str | None = None,
    **others: Any,
) -> dict[str, Any]:
    """What every event says (docs/events.md), with the evidence ``bounded``, and what only some
    do."""
    return {
        "model": model,
        "reason": reason,
        "window": window,
        "finding": finding,
        "evidence": bounded(evidence),
        "report": report,
        "cause": cause,
        **others,
    }


def emit(
    event: Event,
    model: str,
    payload: Mapping[str, Any],
    labels: Mapping[str, str] | None = None,
    *,
    once: bool = False,
) -> bool:
    """Send an event about a model; whether the server took it. The payload names its ``cause``.

    What a flow run tells of a cause is one event, however often it is sent: the server leaves out
    an event whose id it knows. With ``once`` all runs together tell of it once. A refusal is logged
    and no more: what must not be lost is in the registry, and the next ``reconcile`` makes up for
    it.
    """
    run = flow_run.get_id()
    role = {"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}
    one = f"{'any' if once else run}/{event.value}/{model}/{payload['cause']}"
    told = PrefectEvent(
        id=uuid5(NAMESPACE_URL, one) if run or once else uuid4(),
        event=event.value,
        resource=Resource(
            {
                "prefect.resource.id": resource_id(model),
                "prefect.resource.name": model,
                CAUSE_LABEL: payload["cause"],
                **(labels or {}),
            }
        ),
        related=[RelatedResource(role)] if run else [],
        payload=dict(payload),
    )
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", content=f"[{told.model_dump_json()}]", headers=_JSON)
    except (httpx.HTTPError, RuntimeError) as error:  # the latter is Prefect's for no answer
        get_run_logger().warning("%s was not sent: %s", event.value, error)
        return False
    return True


def bounded(evidence: Mapping[str, Any], most: int = _MOST_EVIDENCE) -> dict[str, Any]:
    """The evidence as far as it fits into ``most`` characters of JSON, entry by entry in order;
    the names of the first others are under ``left_out``."""
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    for name, value in evidence.items():
        size = len(json.dumps({name: value}))
        if size > most:
            left_out.append(name)
        else:
            kept[name] = value
            most -= size
    return {**kept, "left_out": left_out[:_MOST_NAMES]} if left_out else kept
