"""How a run makes a retraining its own: one run each, and every other one is told why not."""

from __future__ import annotations

from datetime import UTC, datetime

from perennial.contracts.retraining import Retraining, Trigger
from perennial.contracts.runs import Claim
from perennial.spec.production import Retrain
from perennial.stores.registry.retrainings import Retrainings


def own_trigger(run: str, reason: str, due: datetime | None, now: datetime) -> Trigger:
    """The trigger of a run that nothing asked for: its schedule's if it was ``due`` by one, else
    somebody's by hand. The same run, resumed, has the same one."""
    if due is None:
        why = "somebody started a run" if reason in ("", "by hand") else reason
        return Trigger(kind="hand", reason=why, at=now, data=run)
    due = due.astimezone(UTC)
    why = f"due at {due:%Y-%m-%d %H:%M} UTC"
    return Trigger(kind="schedule", reason=why, at=due, data=due.isoformat())


def claim(
    table: Retrainings,
    model: str,
    trigger: Trigger,
    settings: Retrain,
    *,
    run: str,
    actor: str,
    now: datetime,
) -> Claim:
    """Decide about a trigger, once for its cause, and start its retraining as this run.

    Refused when the answer is to wait or no, and when another run has it. Raises as the registry.
    """
    found, _ = table.decide(model, trigger, settings, actor=actor, now=now)
    if not found.goes:
        refused = f"{found.current.answer}: {found.current.reason}"
    elif table.start(found.id, run, now):
        refused = ""
    else:
        refused = _taken(table.one(found.id))
    return Claim(model=model, retraining=found.id, refused=refused)


def _taken(r: Retraining) -> str:
    """Why a retraining that goes is not another run's."""
    what = f"retraining {r.id} ({r.trigger.reason})"
    if r.state == "finished":
        return f"{what} has ended: {r.outcome}, by flow run {r.started_run}"
    if r.state == "died":
        return f"{what} died with flow run {r.started_run}; the next look or a person asks anew"
    return f"{what} is under way in flow run {r.started_run}"
