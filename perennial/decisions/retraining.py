"""Whether a model is trained again: retrain, wait or no, and why.

One function for every trigger, over what is on record. It decides once for a cause; a cause that
waits is decided anew when its time has come. Nothing but a person's request goes past the cooldown,
the cap a day, a retraining that is under way and a rollout: a version that was made of this trigger
would supersede the one that earns its requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from perennial.contracts.retraining import Answer, Course, Finding, Retraining, Trigger
from perennial.contracts.rollouts import Rollout
from perennial.spec.production import Retrain
from perennial.spec.values import format_duration

LOST_AFTER = timedelta(days=1)
"""A retraining that hasn't ended by then is not waited for: nothing may lock a model for good."""
STILL_AFTER = timedelta(weeks=1)
"""A rollout that nothing has happened to for so long, no look nor a person's order, is not waited
for either."""

_DAY = timedelta(days=1)
_LEAST_BACKOFF = timedelta(hours=1)  # doubled for each in vain, where the cooldown is shorter
_LONGEST_BACKOFF = timedelta(weeks=1)  # or the cooldown, where that is longer
_SENT_BACK = {"rolled back", "aborted", "no difference"}  # ends of rollouts that promoted nothing
_UNDECIDED = {"rolling out", "superseded"}  # whether its version is better was not seen (yet)
_HARMLESS = {Finding.NONE, Finding.BENIGN, Finding.INCONCLUSIVE}
_HEADS = {"data": "data arrived", "schedule": "schedule", "hand": "by hand"}

Hold = tuple[datetime, str]


def decide(
    trigger: Trigger,
    settings: Retrain,
    history: Sequence[Retraining],
    now: datetime,
    *,
    champion: int | None = None,
    rollout: Rollout | None = None,
) -> Answer:
    """What to do about a trigger.

    ``history`` is what is on record of the model, in any order: the newest retrainings (more than
    ``max_a_day`` of them), the newest look of the drift watch that was not inconclusive, and the
    trigger's own cause if it was decided before. Its times may lie after ``now``, by another
    machine's clock. ``champion`` is the version that serves, ``rollout`` the one that has not
    ended.
    """
    known = next((r for r in history if r.trigger.cause == trigger.cause), None)
    if known is not None and not is_open(known, now):
        return known.current
    trigger = trigger if known is None else known.trigger
    others = [r for r in history if r is not known]
    went = sorted((r for r in others if r.goes), key=lambda r: (r.began_at, r.id))
    fault = _standing_fault(trigger, others)
    rolled_out = _rolled_out(rollout, now)
    under_way = _under_way(went, now)
    holds = [*_pause(trigger, settings, went, now), *_cap(settings, went, now)]
    until, hold = max(holds) if holds else (None, "")
    told = _told(trigger)

    def answer(course: Course, reason: str, wait_until: datetime | None = None) -> Answer:
        return Answer(answer=course, reason=reason, decided_at=now, wait_until=wait_until)

    if trigger.kind == "hand":
        but = "; ".join(filter(None, (fault, under_way, rolled_out, hold)))
        return answer("retrain", f"{told}, although {but}" if but else told)
    no = (
        _faulty(trigger)
        or _no_need(trigger)
        or _not_asked_for(trigger, settings)
        or _of_another(trigger, champion)
        or _learned_already(trigger, went)
        or _overtaken(trigger, others)
    )
    if no:
        return answer("no", no)
    if fault:
        return answer("wait", f"{told}, but {fault}")
    still = _is_still(rollout, now)
    if held := under_way or (not still and rolled_out) or hold:
        return answer("wait", f"{told}, but {held}", until)
    return answer("retrain", f"{told}, although {rolled_out}" if still else told)


def is_open(known: Retraining, now: datetime) -> bool:
    """Whether a cause on record waits and its time has come, so that it is decided anew."""
    until = known.current.wait_until
    return known.current.answer == "wait" and (until is None or until <= now)


def is_running(retraining: Retraining, now: datetime) -> bool:
    """Whether a retraining was decided, has not ended, and is not lost (LOST_AFTER)."""
    unfinished = retraining.goes and retraining.finished_at is None
    return unfinished and now - retraining.began_at < LOST_AFTER


def _under_way(went: Sequence[Retraining], now: datetime) -> str:
    running = next((r for r in reversed(went) if is_running(r, now)), None)
    return f"retraining {running.id} is under way" if running else ""


def _rolled_out(rollout: Rollout | None, now: datetime) -> str:
    """What is told of a version that earns its requests. While it runs each look moves the moment
    until which it is waited for, so that it isn't told: the same answer is no news."""
    if rollout is None:
        return ""
    told = f"version {rollout.version} is being rolled out"
    if _is_still(rollout, now):
        return f"{told}, where nothing has happened since {_moment(rollout.updated_at)}"
    phase = rollout.state.phase
    if phase == "running":
        return told
    until = _moment(rollout.updated_at + STILL_AFTER)
    return f"{told} ({phase}), which is waited for until {until}"


def _is_still(rollout: Rollout | None, now: datetime) -> bool:
    return rollout is not None and now - rollout.updated_at >= STILL_AFTER


def _faulty(trigger: Trigger) -> str:
    if trigger.finding is not Finding.FAULT:
        return ""
    return f"{trigger.finding}: {trigger.reason}; nothing is learned from faulty data"


def _not_asked_for(trigger: Trigger, settings: Retrain) -> str:
    if trigger.kind == "schedule":
        asked, lacks = bool(settings.schedule), "model.yaml has no retrain.schedule"
    else:
        asked = trigger.kind in settings.on
        lacks = f"model.yaml's retrain.on has no {trigger.kind}"
    return "" if asked else f"{_told(trigger)}, but {lacks}"


def _no_need(trigger: Trigger) -> str:
    looked = trigger.kind in ("drift", "performance")
    return _told(trigger) if looked and trigger.finding in _HARMLESS else ""


def _of_another(trigger: Trigger, champion: int | None) -> str:
    """A look at a version says nothing of the one that has its requests by now."""
    if champion is None or trigger.version in (None, champion):
        return ""
    looked = f"that is of version {trigger.version}, and version {champion} serves now"
    return f"{_told(trigger)}, but {looked}"


def _overtaken(trigger: Trigger, others: Sequence[Retraining]) -> str:
    """What the drift watch found last counts, whatever order its events arrive in."""
    last = _last_look(others)
    if trigger.kind not in ("drift", "performance") or last is None:
        return ""
    if last.trigger.at <= trigger.at:
        return ""
    found = f"the look at {_moment(last.trigger.at)} found {last.trigger.finding}"
    return f"{_told(trigger)}, but {found}, which counts since it is later"


def _learned_already(trigger: Trigger, went: Sequence[Retraining]) -> str:
    """A retraining that came to an end with a candidate has had its say on what it could see."""
    for r in reversed(went):
        if r.finished_at is None or r.outcome in (None, "failed"):
            continue
        learned = f"retraining {r.id} has learned from it already: {r.outcome}"
        same = (r.trigger.window, r.trigger.data) == (trigger.window, trigger.data)
        if same or r.began_at >= trigger.at:
            return f"{_told(trigger)}, but {learned}"
    return ""


def _standing_fault(trigger: Trigger, others: Sequence[Retraining]) -> str:
    """A fault stands until a later look finds none: the trigger's own, or one on record."""
    if trigger.finding is Finding.FAULT:
        return f"this is a {trigger.finding}"
    last = _last_look(others)
    if last is None or last.trigger.finding is not Finding.FAULT:
        return ""
    if trigger.finding not in (None, Finding.INCONCLUSIVE) and trigger.at > last.trigger.at:
        return ""
    return f"the look at {_moment(last.trigger.at)} found a {Finding.FAULT}"


def _last_look(others: Sequence[Retraining]) -> Retraining | None:
    looks = [r for r in others if r.trigger.finding not in (None, Finding.INCONCLUSIVE)]
    return max(looks, key=lambda r: (r.trigger.at, r.id), default=None)


def _pause(
    trigger: Trigger, settings: Retrain, went: Sequence[Retraining], now: datetime
) -> list[Hold]:
    """The cooldown after the last retraining, doubled for each in a row that gave no better
    version: refused, or sent back from its rollout, from whose end it then counts. A schedule keeps
    its own time and waits for the plain cooldown only."""
    if not went:
        return []
    in_vain = 0
    for r in reversed(went):
        if r.outcome == "promoted":
            break
        in_vain += r.outcome not in _UNDECIDED and not is_running(r, now)
    last, pause = went[-1], settings.cooldown
    since = last.began_at
    why = f"the cooldown of {format_duration(pause)} after retraining {last.id}"
    if in_vain and trigger.kind != "schedule":
        base = max(settings.cooldown, _LEAST_BACKOFF)
        pause = min(base * 2 ** min(in_vain, 8), max(_LONGEST_BACKOFF, settings.cooldown))
        times = "the last one" if in_vain == 1 else f"the last {in_vain}"
        why = f"{times} gave no better version; a pause of {format_duration(pause)}"
        if last.outcome in _SENT_BACK and last.finished_at is not None:
            since = last.finished_at
    until = since + pause
    return [(until, f"{why} lasts until {_moment(until)}")] if until > now else []


def _cap(settings: Retrain, went: Sequence[Retraining], now: datetime) -> list[Hold]:
    """No more than ``max_a_day`` in any 24 hours."""
    most = settings.max_a_day
    if len(went) < most or went[-most].began_at <= now - _DAY:
        return []
    until = went[-most].began_at + _DAY
    had = "was 1 retraining" if most == 1 else f"were {most} retrainings"
    return [(until, f"there {had} within a day (retrain.max_a_day) until {_moment(until)}")]


def _told(trigger: Trigger) -> str:
    found = "no drift" if trigger.finding is Finding.NONE else str(trigger.finding)
    return f"{_HEADS.get(trigger.kind, found)}: {trigger.reason}"


def _moment(at: datetime) -> str:
    at = at.astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}".removesuffix(":00") + " UTC"
