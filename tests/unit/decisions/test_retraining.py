"""Retrain, wait or no, by a table: what is on record, what is asked, the sentence people read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from perennial.contracts.retraining import Answer, Finding, Retraining, Trigger
from perennial.contracts.rollouts import Phase, Rollout
from perennial.decisions.retraining import decide
from perennial.spec.production import Retrain
from tests.rollout_examples import ROLLOUT

NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALL = Retrain(schedule="0 6 * * 1", on=("drift", "performance", "data"))
HARMFUL = Finding.HARMFUL


def ago(hours: float) -> datetime:
    return NOW - hours * HOUR


def trigger(kind: str = "drift", data: str = "window 9", **changed: Any) -> Trigger:
    values: dict[str, Any] = {"at": NOW, "reason": "logloss 0.51 expected, 0.45 before"} | changed
    if kind in ("drift", "performance"):
        values.setdefault("finding", HARMFUL)
    return Trigger(kind=kind, data=data, **values)


def record(number: int, at: datetime, answer: str = "retrain", **changed: Any) -> Retraining:
    """A former cause, seen when it was decided, unless it says otherwise."""
    asked = changed.pop("asked", None) or trigger(data=f"window {number}", at=at)
    until = changed.pop("wait_until", None)
    current = Answer(answer=answer, reason="as told then", decided_at=at, wait_until=until)
    values = {"id": number, "model": "delay", "trigger": asked, "actor": "drift watch"} | changed
    return Retraining(current=current, **values)


def ended(
    number: int, at: datetime, outcome: str | None = "promoted", **changed: Any
) -> Retraining:
    """A retraining that took a quarter of an hour."""
    values = {
        "state": "finished", "started_at": at, "started_run": f"run {number}",
        "finished_at": at + HOUR / 4, "outcome": outcome,
    }  # fmt: skip
    return record(number, at, **{**values, **changed})


def look(number: int, at: datetime, finding: Finding) -> Retraining:
    asked = trigger(data=f"window {number}", at=at, finding=finding)
    return record(number, at, "no", asked=asked)


def rolled_out(phase: Phase, changed: datetime) -> Rollout:
    """A rollout of version 5 that was changed last at a moment."""
    return ROLLOUT.model_copy(
        update={
            "version": 5, "state": ROLLOUT.state.model_copy(update={"phase": phase}),
            "updated_at": changed, "ended_at": None,
        }
    )  # fmt: skip


def answered(asked: Trigger, *history: Retraining, settings: Retrain = ALL) -> tuple[str, str]:
    answer = decide(asked, settings, history, NOW)
    assert answer.decided_at == NOW
    assert answer.wait_until is None or answer.wait_until > NOW
    return answer.answer, answer.reason


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (trigger(), "harmful drift: logloss 0.51 expected, 0.45 before"),
        (
            trigger("performance", finding=Finding.CONCEPT, reason="roc_auc fell to 0.61"),
            "concept drift: roc_auc fell to 0.61",
        ),
        (trigger("data", reason="41,220 new rows"), "data arrived: 41,220 new rows"),
        (trigger("schedule", reason="0 6 * * 1"), "schedule: 0 6 * * 1"),
        (trigger("hand", reason="new feature"), "by hand: new feature"),
        (
            trigger("data", reason="41,220 new rows", finding=Finding.BENIGN),
            "data arrived: 41,220 new rows",
        ),
    ],
)
def test_what_is_asked_for_with_nothing_in_its_way_is_done(asked: Trigger, reason: str) -> None:
    assert answered(asked) == ("retrain", reason)


@pytest.mark.parametrize(
    ("asked", "settings", "reason"),
    [
        (
            trigger(),
            Retrain(on=("data",)),
            "harmful drift: logloss 0.51 expected, 0.45 before, but model.yaml's retrain.on has no "
            "drift",
        ),
        (
            trigger("performance", reason="roc_auc fell to 0.61"),
            Retrain(on=("drift", "data")),
            "harmful drift: roc_auc fell to 0.61, but model.yaml's retrain.on has no performance",
        ),
        (
            trigger("data", reason="41,220 new rows"),
            Retrain(),
            "data arrived: 41,220 new rows, but model.yaml's retrain.on has no data",
        ),
        (
            trigger("schedule", reason="0 6 * * 1"),
            Retrain(on=("data",)),
            "schedule: 0 6 * * 1, but model.yaml has no retrain.schedule",
        ),
        (
            trigger(finding=Finding.NONE, reason="0 of 12 columns moved"),
            ALL,
            "no drift: 0 of 12 columns moved",
        ),
        (
            trigger(finding=Finding.BENIGN, reason="distance moved, logloss did not"),
            ALL,
            "benign drift: distance moved, logloss did not",
        ),
        (
            trigger("performance", finding=Finding.INCONCLUSIVE, reason="31 labels"),
            ALL,
            "inconclusive: 31 labels",
        ),
        (
            trigger("performance", finding=Finding.INCONCLUSIVE, reason="2 labels"),
            Retrain(on=("drift",)),
            "inconclusive: 2 labels",
        ),
        (
            trigger(finding=Finding.BENIGN, reason="distance moved"),
            Retrain(),
            "benign drift: distance moved",
        ),
    ],
)  # fmt: skip
def test_what_the_settings_or_the_finding_do_not_call_for_is_not_done(
    asked: Trigger, settings: Retrain, reason: str
) -> None:
    assert answered(asked, settings=settings) == ("no", reason)


@pytest.mark.parametrize("kind", ["drift", "performance", "data", "schedule"])
def test_a_data_quality_fault_is_never_retrained_on(kind: str) -> None:
    faulty = trigger(kind, finding=Finding.FAULT, reason="distance is null in 9,214 of 9,214 rows")
    assert answered(faulty) == (
        "no",
        "data quality fault: distance is null in 9,214 of 9,214 rows; "
        "nothing is learned from faulty data",
    )


@pytest.mark.parametrize("kind", ["schedule", "data"])
def test_while_a_fault_stands_nothing_else_starts(kind: str) -> None:
    asked = trigger(kind, reason="due")
    head = {"schedule": "schedule", "data": "data arrived"}[kind]
    fault = look(4, ago(3), Finding.FAULT)
    standing = "due, but the look at 2026-03-09 09:00 UTC found a data quality fault"
    assert answered(asked, fault) == ("wait", f"{head}: {standing}")
    assert decide(asked, ALL, [fault], NOW).wait_until is None
    too_few_rows = look(5, ago(2), Finding.INCONCLUSIVE)
    assert answered(asked, fault, too_few_rows)[0] == "wait"
    mended = look(6, ago(1), Finding.NONE)
    assert answered(asked, fault, too_few_rows, mended)[0] == "retrain"


def test_drift_found_after_a_fault_shows_that_the_fault_is_over() -> None:
    assert answered(trigger(), look(4, ago(3), Finding.FAULT))[0] == "retrain"


@pytest.mark.parametrize("kind", ["drift", "performance", "data", "schedule"])
def test_a_running_retraining_is_waited_for(kind: str) -> None:
    asked = trigger(kind, reason="due")
    for running in (
        record(7, ago(8)),
        record(7, ago(9), state="started", started_at=ago(8), started_run="a"),
    ):
        answer = decide(asked, ALL, [running], NOW)
        assert (answer.answer, answer.wait_until) == ("wait", None)
        assert answer.reason.endswith("due, but retraining 7 is under way")
    recent = decide(asked, ALL, [record(7, ago(2))], NOW)
    assert recent.wait_until == ago(2) + 6 * HOUR  # no sooner than the cooldown lets it


def test_a_retraining_that_is_lost_does_not_lock_the_model_for_good() -> None:
    assert answered(trigger(), record(7, ago(23.9)))[0] == "wait"
    lost = record(7, ago(24))
    assert answered(trigger(), lost)[0] == "retrain"
    slow = Retrain(on=("drift",), cooldown=20 * HOUR)  # and it was one in vain
    assert decide(trigger(), slow, [lost], NOW).wait_until == ago(24) + 40 * HOUR


@pytest.mark.parametrize("kind", ["drift", "performance", "data", "schedule"])
def test_the_cooldown_is_waited_for_from_when_the_last_one_began(kind: str) -> None:
    asked = trigger(kind, reason="due")
    answer = decide(asked, ALL, [ended(7, ago(2))], NOW)
    assert (answer.answer, answer.wait_until) == ("wait", ago(2) + 6 * HOUR)
    assert answer.reason.endswith(
        "due, but the cooldown of 6h after retraining 7 lasts until 2026-03-09 16:00 UTC"
    )
    late = ended(7, ago(7), started_at=ago(5))
    assert decide(asked, ALL, [late], NOW).wait_until == ago(5) + 6 * HOUR
    assert answered(asked, ended(7, ago(6)))[0] == "retrain"
    none = ALL.model_copy(update={"cooldown": 0 * HOUR})
    assert answered(asked, ended(7, ago(2)), settings=none)[0] == "retrain"


def test_another_machines_clock_that_is_ahead_hides_no_retraining() -> None:
    ahead = ended(7, NOW + HOUR / 60)
    answer = decide(trigger(at=NOW + HOUR), ALL, [ahead], NOW)
    assert (answer.answer, answer.wait_until) == ("wait", NOW + HOUR / 60 + 6 * HOUR)


def test_no_more_than_the_cap_within_a_day() -> None:
    settings = Retrain(on=("drift",), cooldown=HOUR, max_a_day=2)
    two = [ended(7, ago(20)), ended(8, ago(3))]
    answer = decide(trigger(), settings, two, NOW)
    assert (answer.answer, answer.wait_until) == ("wait", ago(20) + 24 * HOUR)
    assert answer.reason == (
        "harmful drift: logloss 0.51 expected, 0.45 before, but there were 2 retrainings within "
        "a day (retrain.max_a_day) until 2026-03-09 16:00 UTC"
    )
    assert answered(trigger(), ended(7, ago(24)), ended(8, ago(3)), settings=settings) == (
        "retrain",
        "harmful drift: logloss 0.51 expected, 0.45 before",
    )
    one = settings.model_copy(update={"max_a_day": 1})
    assert "there were 1 retraining within" not in answered(trigger(), *two, settings=one)[1]
    assert "there was 1 retraining within" in answered(trigger(), *two, settings=one)[1]


@pytest.mark.parametrize("outcome", ["kept", "unchanged", "failed", None])
def test_retrainings_in_vain_are_spaced_out(outcome: str | None) -> None:
    """None: its run died."""
    state = "died" if outcome is None else "finished"

    def pause(count: int, settings: Retrain = ALL, kind: str = "drift") -> timedelta:
        first = [ended(1, ago(900))]
        history = [ended(n, ago(400 / 2**n), outcome, state=state) for n in range(2, count + 2)]
        last = max(r.began_at for r in first + history)
        answer = decide(trigger(kind, data="new"), settings, first + history, last + HOUR / 2)
        assert answer.answer == "wait"
        assert answer.wait_until is not None
        return answer.wait_until - last

    assert [pause(n) / HOUR for n in range(6)] == [6, 12, 24, 48, 96, 168]
    assert pause(2, Retrain(on=("drift",), cooldown=timedelta(seconds=5), max_a_day=99)) == 4 * HOUR
    month = Retrain(on=("drift",), cooldown=timedelta(days=30))
    assert pause(3, month) == timedelta(days=30)
    assert pause(3, kind="schedule") == 6 * HOUR  # a schedule keeps its own time


def test_a_version_that_was_promoted_ends_a_row_in_vain() -> None:
    reason = answered(trigger(), ended(7, ago(30), "kept"), ended(8, ago(5)))[1]
    assert "the cooldown of 6h after retraining 8 lasts until" in reason


@pytest.mark.parametrize("outcome", ["rolling out", "superseded"])
def test_a_version_whose_worth_was_not_seen_neither_lengthens_a_row_in_vain_nor_ends_it(
    outcome: str,
) -> None:
    in_vain, unseen = ended(7, ago(30), "kept"), ended(8, ago(5), outcome)
    assert (
        "a pause of 12h lasts until 2026-03-09 19:00 UTC" in answered(trigger(), in_vain, unseen)[1]
    )
    assert "the cooldown of 6h after retraining 8" in answered(trigger(), unseen)[1]


@pytest.mark.parametrize("outcome", ["rolled back", "aborted", "no difference"])
def test_a_version_that_was_sent_back_was_in_vain_and_the_pause_counts_from_its_rollouts_end(
    outcome: str,
) -> None:
    """Else a rollout that lasts longer than the pause would leave none."""
    two = [ended(n, ago(90 * (9 - n)), outcome, finished_at=ago(90 * (9 - n) - 80)) for n in (7, 8)]
    answer = decide(trigger(), ALL, two, NOW)
    assert (answer.answer, answer.wait_until) == ("wait", ago(10) + 24 * HOUR)
    assert "the last 2 gave no better version; a pause of 1d lasts until" in answer.reason
    assert answered(trigger("schedule", data="due"), *two)[0] == "retrain"


def test_the_pause_after_one_in_vain_says_so() -> None:
    reason = answered(trigger(), ended(7, ago(7), "kept"))[1]
    assert reason == (
        "harmful drift: logloss 0.51 expected, 0.45 before, but the last one gave no better "
        "version; a pause of 12h lasts until 2026-03-09 17:00 UTC"
    )
    two = answered(trigger(), ended(7, ago(20), "kept"), ended(8, ago(7), "unchanged"))[1]
    assert "but the last 2 gave no better version; a pause of 1d lasts until" in two
    assert answered(trigger(), ended(7, ago(30), "kept"), ended(8, ago(7)))[0] == "retrain"


@pytest.mark.parametrize("outcome", ["promoted", "kept", "unchanged"])
def test_what_a_retraining_could_see_does_not_start_another(outcome: str) -> None:
    seen_before = trigger(at=ago(40))
    assert answered(seen_before, ended(7, ago(39), outcome)) == (
        "no",
        "harmful drift: logloss 0.51 expected, 0.45 before, but retraining 7 has learned from it "
        f"already: {outcome}",
    )
    same_data = ended(7, ago(900), outcome, asked=trigger("performance", at=ago(900)))
    assert answered(trigger(), same_data)[0] == "no"
    assert answered(trigger(data="other"), same_data)[0] == "retrain"
    at_once = ended(7, ago(200), outcome, asked=trigger("data", "other", at=ago(200)))
    assert answered(trigger(at=ago(200)), at_once)[0] == "no"
    assert answered(trigger(at=ago(199)), at_once)[0] == "retrain"


def test_one_that_failed_or_died_has_learned_from_nothing() -> None:
    seen_before = trigger("data", at=ago(40))
    assert answered(seen_before, ended(7, ago(39), "failed"))[0] == "retrain"
    assert answered(seen_before, ended(7, ago(39), outcome=None, state="died"))[0] == "retrain"


def test_the_last_look_counts_in_whatever_order_looks_arrive() -> None:
    early = trigger(at=ago(2))
    assert answered(early, look(8, ago(1), Finding.NONE)) == (
        "no",
        "harmful drift: logloss 0.51 expected, 0.45 before, but the look at 2026-03-09 11:00 UTC "
        "found none, which counts since it is later",
    )
    assert answered(early, look(8, ago(1), Finding.FAULT))[0] == "no"
    assert answered(early, look(8, ago(1), Finding.INCONCLUSIVE))[0] == "retrain"
    assert answered(early, look(8, ago(3), Finding.NONE))[0] == "retrain"
    assert answered(early, look(8, ago(2), Finding.BENIGN))[0] == "retrain"  # neither is later
    assert answered(early, look(8, ago(2), Finding.FAULT))[0] == "wait"


@pytest.mark.parametrize("kind", ["drift", "performance", "data", "schedule"])
@pytest.mark.parametrize(
    ("phase", "told"),
    [
        ("running", "version 5 is being rolled out"),
        (
            "waiting",
            "version 5 is being rolled out (waiting), which is waited for until "
            "2026-03-14 12:00 UTC",
        ),
        (
            "paused",
            "version 5 is being rolled out (paused), which is waited for until "
            "2026-03-14 12:00 UTC",
        ),
    ],
)
def test_a_rollout_is_waited_for(kind: str, phase: Phase, told: str) -> None:
    """A version made meanwhile would supersede it, and so would the next one that."""
    asked = trigger(kind, reason="due")
    answer = decide(asked, ALL, [], NOW, rollout=rolled_out(phase, ago(48)))
    assert (answer.answer, answer.wait_until) == ("wait", None)
    assert answer.reason.endswith(f": due, but {told}")
    by_cooldown = decide(asked, ALL, [ended(7, ago(2))], NOW, rollout=rolled_out(phase, ago(2)))
    assert by_cooldown.wait_until == ago(2) + 6 * HOUR
    assert "is being rolled out" in by_cooldown.reason


@pytest.mark.parametrize("phase", ["running", "waiting", "paused"])
def test_a_rollout_to_which_nothing_happens_does_not_lock_the_model_for_good(phase: Phase) -> None:
    almost = rolled_out(phase, ago(7 * 24) + HOUR / 60)
    assert decide(trigger(), ALL, [], NOW, rollout=almost).answer == "wait"
    answer = decide(trigger(), ALL, [], NOW, rollout=rolled_out(phase, ago(7 * 24)))
    assert (answer.answer, answer.reason) == (
        "retrain",
        "harmful drift: logloss 0.51 expected, 0.45 before, although version 5 is being rolled "
        "out, where nothing has happened since 2026-03-02 12:00 UTC",
    )


def test_a_look_at_a_version_that_serves_no_more_starts_nothing() -> None:
    asked = trigger(at=ago(8), version=1)
    assert decide(asked, ALL, [], NOW, champion=1).answer == "retrain"
    waits = record(7, ago(8), "wait", asked=asked)
    for history in ([], [waits]):
        answer = decide(asked, ALL, history, NOW, champion=5)
        assert (answer.answer, answer.reason) == (
            "no",
            "harmful drift: logloss 0.51 expected, 0.45 before, but that is of version 1, and "
            "version 5 serves now",
        )
    assert decide(trigger("data"), ALL, [], NOW, champion=5).answer == "retrain"


def test_by_hand_always_goes_and_says_past_what() -> None:
    asked = trigger("hand", reason="anna wants it", finding=Finding.FAULT)
    assert answered(asked, record(7, ago(2)), settings=Retrain(max_a_day=1)) == (
        "retrain",
        "by hand: anna wants it, although this is a data quality fault; retraining 7 is under way; "
        "there was 1 retraining within a day (retrain.max_a_day) until 2026-03-10 10:00 UTC",
    )
    past_a_rollout = decide(asked, ALL, [], NOW, champion=5, rollout=rolled_out("running", NOW))
    assert past_a_rollout.answer == "retrain"
    assert past_a_rollout.reason.endswith("; version 5 is being rolled out")
    standing = look(4, ago(3), Finding.FAULT)
    assert answered(trigger("hand", reason="anna wants it"), standing) == (
        "retrain",
        "by hand: anna wants it, although the look at 2026-03-09 09:00 UTC found a data quality "
        "fault",
    )


@pytest.mark.parametrize("kind", ["drift", "performance", "data", "schedule", "hand"])
@pytest.mark.parametrize("answer", ["retrain", "no"])
def test_a_cause_is_decided_once(kind: str, answer: str) -> None:
    asked = trigger(kind)
    known = record(7, ago(90), answer, asked=asked)
    assert decide(asked, Retrain(), [known], NOW) == known.current
    assert decide(trigger(kind, reason="told again"), ALL, [known], NOW) == known.current


def test_a_cause_that_waits_is_decided_anew_when_its_time_has_come_and_no_sooner() -> None:
    asked = trigger(at=ago(8))
    waits = record(7, ago(8), "wait", asked=asked, wait_until=NOW + HOUR)
    assert decide(asked, ALL, [waits], NOW) == waits.current
    due = record(7, ago(8), "wait", asked=asked, wait_until=NOW)
    assert answered(asked, due)[0] == "retrain"
    until_then = record(7, ago(8), "wait", asked=asked)
    assert answered(asked, until_then)[0] == "retrain"
    by_data = trigger("data", at=ago(7))
    assert answered(asked, until_then, record(6, ago(7), asked=by_data))[0] == "wait"
    # It is judged by when it was first seen: a retraining since then has had its say.
    again = trigger(at=NOW)
    assert answered(again, until_then, ended(6, ago(7)))[0] == "no"
    assert answered(again, until_then, look(9, ago(7), Finding.NONE))[0] == "no"


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"kind": "data"}, "needs a window or data"),
        ({"kind": "drift", "data": "d"}, "a trigger by drift needs the finding"),
        ({"kind": "data", "data": "d", "at": datetime(2026, 3, 9)}, "timezone"),
    ],
)
def test_a_trigger_that_tells_no_cause_is_refused(values: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        Trigger(**{"reason": "r", "at": NOW, **values})


def test_causes_differ_by_kind_window_and_data_and_by_nothing_else() -> None:
    window = (ago(168), NOW)
    elsewhere = tuple(t.astimezone(None) for t in window)
    causes = [
        trigger(window=window).cause,
        trigger(window=(ago(167), NOW)).cause,
        trigger(window=window, data="other").cause,
        trigger("performance", window=window).cause,
    ]
    assert len(set(causes)) == 4
    assert causes[0] == (
        "drift 2026-03-02T12:00:00.000000Z/2026-03-09T12:00:00.000000Z window 9"
    )  # fmt: skip
    same = trigger(window=elsewhere, at=ago(1), reason="other", finding=Finding.NONE)
    assert same.cause == causes[0]
