"""What is told of a model by events, and which of them start a retraining (docs/events.md)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from perennial.contracts.retraining import Finding, Retraining

ANSWER_LABEL = "perennial.answer"
"""Label of an event's resource: what was answered (``retraining.Course``). Automations match labels
and can't look into payloads."""
CAUSE_LABEL = "perennial.cause"
"""Label of an event's resource: its idempotency key within the model."""
FINDING_LABEL = "perennial.finding"
"""Label of an event's resource: the ``retraining.Finding`` of the look, where there was one."""
ROLLOUT_LABEL = "perennial.rollout"
"""Label of an event's resource: ``BEGUN`` where a rollout was, which then is to be watched."""
BEGUN = "begun"


class Event(StrEnum):
    """The names of events."""

    DRIFT_DETECTED = "perennial.drift.detected"
    PERFORMANCE_DROPPED = "perennial.performance.dropped"
    DATA_ARRIVED = "perennial.data.arrived"
    DATA_FAULTY = "perennial.data.faulty"
    RETRAINING_DUE = "perennial.retraining.due"
    VERSION_REGISTERED = "perennial.version.registered"
    CANDIDATE_REFUSED = "perennial.candidate.refused"
    ROLLOUT_DUE = "perennial.rollout.due"
    ROLLOUT_PROMOTED = "perennial.rollout.promoted"
    ROLLOUT_ROLLED_BACK = "perennial.rollout.rolled-back"


OF_KIND = {"drift": Event.DRIFT_DETECTED, "performance": Event.PERFORMANCE_DROPPED}
"""What tells of a look, by the kind of its trigger."""


def resource_id(model: str) -> str:
    """The resource that all of a model's events are about."""
    return f"perennial.model.{model}"


def news_of(retraining: Retraining, before: Sequence[Retraining] = ()) -> Event | None:
    """The event that tells of an answer just given; None when there is nothing to tell.

    ``before`` is what was on record, the newest first. What was found is told with the first
    answer, and again only if that is to retrain or the look before found otherwise: a world that
    stays changed is no news at every look. If the answer was to wait and now is to retrain, it is
    the retraining that is told of. Data that starts nothing is not told of: the event for it is
    also what others send, and any of that name starts a run.
    """
    trigger = retraining.trigger
    if retraining.earlier:
        return Event.RETRAINING_DUE if retraining.goes else None
    if trigger.kind == "data":
        return Event.DATA_ARRIVED if retraining.goes else None
    looks = (r.trigger for r in before if r.trigger.finding not in (None, Finding.INCONCLUSIVE))
    last = next(looks, None)
    as_before = last is not None and (last.kind, last.finding) == (trigger.kind, trigger.finding)
    if as_before and not retraining.goes:
        return None
    if trigger.finding is Finding.FAULT:
        return Event.DATA_FAULTY
    if trigger.finding in (None, Finding.NONE, Finding.INCONCLUSIVE):
        return None
    return OF_KIND.get(trigger.kind)
