"""What holds of retraining decisions, whatever is asked and however runs end.

A small book of record stands for the registry: triggers come at any time, doubled, late and out of
order; runs start late or never, end in any way, or are lost; what waits is asked again when due.
Rollouts begin by themselves or by hand, wait, are paused, seen to or forgotten, and end in any way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.contracts.retraining import Answer, Finding, Retraining, Trigger
from perennial.contracts.rollouts import ENDS, Phase, Rollout
from perennial.decisions.retraining import LOST_AFTER, STILL_AFTER, decide, is_open, is_running
from perennial.spec.production import Retrain
from tests.rollout_examples import ROLLOUT

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MOMENT = timedelta(microseconds=1)
BY_EVENT = ("drift", "performance", "data", "schedule")


@dataclass
class Book:
    """Rows as the registry keeps them, and every answer with what was on record when it fell."""

    rules: Retrain
    now: datetime = START
    rows: list[Retraining] = field(default_factory=list)
    rollout: Rollout | None = None
    champion: int = 1
    asked: list[tuple[Trigger, tuple[Retraining, ...], datetime, Answer]] = field(
        default_factory=list
    )
    beside: list[dict[str, Any]] = field(default_factory=list)
    """Champion and rollout at each answer."""

    def ask(self, trigger: Trigger) -> Answer:
        self.now += MOMENT
        known = next((r for r in self.rows if r.trigger.cause == trigger.cause), None)
        trigger = known.trigger if known else trigger  # a cause is what it was when first told
        self.beside.append({"champion": self.champion, "rollout": self.rollout})
        answer = decide(trigger, self.rules, self.rows, self.now, **self.beside[-1])
        self.asked.append((trigger, tuple(self.rows), self.now, answer))
        if known is None:
            values = {"id": len(self.rows) + 1, "model": "m", "actor": "a", "trigger": trigger}
            self.rows.append(Retraining(current=answer, **values))
        else:
            self.change(known, current=answer)
        return answer

    def change(self, row: Retraining, **values: Any) -> None:
        self.rows[self.rows.index(row)] = row.model_copy(update=values)

    def ask_again(self) -> None:
        for row in [r for r in self.rows if is_open(r, self.now)]:
            self.ask(row.trigger)

    def start(self) -> None:
        for row in [r for r in self.rows if r.goes and r.state == "decided"]:
            self.change(row, state="started", started_run="run", started_at=self.now)

    def end(self, outcome: str | None) -> None:
        state = "died" if outcome is None else "finished"
        for row in [r for r in self.rows if r.state == "started"]:
            self.change(row, state=state, finished_at=self.now, outcome=outcome)
        if outcome == "rolling out":
            self.roll("running")

    def roll(self, phase: Phase) -> None:
        """Begin a rollout, change the one there is, or end it."""
        if phase not in ENDS:
            state = ROLLOUT.state.model_copy(update={"phase": phase})
            changed = {"state": state, "updated_at": self.now, "ended_at": None}
            self.rollout = ROLLOUT.model_copy(update=changed)
        elif self.rollout is not None:
            self.rollout = None
            self.champion += phase == "promoted"
            for row in [r for r in self.rows if r.outcome == "rolling out"]:
                self.change(row, outcome=phase, finished_at=self.now)


def play(rules: Retrain, steps: Sequence[tuple[float, str, Any]]) -> Book:
    book = Book(rules)
    for hours, action, value in steps:
        book.now += hours * HOUR
        match action:
            case "ask":
                kind, data, finding, late = value
                at = book.now - late * HOUR
                looked = {"version": book.champion} if kind in ("drift", "performance") else {}
                asked = {"kind": kind, "data": str(data), "reason": "r", "finding": finding}
                book.ask(Trigger(at=at, **asked, **looked))
            case "again":
                book.ask_again()
            case "start":
                book.start()
            case "end":
                book.end(value)
            case "roll":
                book.roll(value)
    return book


rules = st.builds(
    Retrain,
    schedule=st.sampled_from([None, "0 6 * * 1"]),
    on=st.lists(st.sampled_from(["drift", "performance", "data"]), unique=True).map(tuple),
    cooldown=st.sampled_from([timedelta(0), HOUR / 2, 6 * HOUR, 40 * HOUR]),
    max_a_day=st.integers(1, 4),
)
kinds = st.sampled_from([*BY_EVENT, "drift", "drift", "hand"])
findings = st.sampled_from([*Finding, Finding.HARMFUL, Finding.HARMFUL])
asks = st.tuples(kinds, st.integers(1, 12), findings, st.sampled_from([0.0, 0.0, 0.0, 5.0]))
outcomes = st.sampled_from(["promoted", "rolling out", "kept", "unchanged", "failed", None])
phases = st.sampled_from(["running", "running", "waiting", "paused", *sorted(ENDS)])
hours = st.sampled_from([0.0, 0.1, 1.0, 3.0, 6.0, 13.0, 30.0])
steps = st.lists(
    st.tuples(hours, st.just("ask"), asks)
    | st.tuples(hours, st.just("ask"), asks)
    | st.tuples(hours, st.sampled_from(["again", "start"]), st.none())
    | st.tuples(hours, st.just("end"), outcomes)
    | st.tuples(hours, st.just("roll"), phases),
    min_size=5,
    max_size=40,
)
thorough = settings(deadline=None, max_examples=200)


def begun(book: Book) -> list[tuple[datetime, Trigger]]:
    """Each decision to retrain, when it fell, once."""
    going = {a.decided_at: t for t, _, _, a in book.asked if a.answer == "retrain"}
    return sorted(going.items(), key=lambda pair: pair[0])


@thorough
@given(rules, steps)
def test_never_two_within_the_cooldown_except_by_hand(
    rules: Retrain, steps: list[tuple[float, str, Any]]
) -> None:
    decided = begun(play(rules, steps))
    for (before, _), (after, trigger) in pairwise(decided):
        assert trigger.kind == "hand" or after - before >= rules.cooldown


@thorough
@given(rules, steps)
def test_never_more_than_the_cap_in_any_day_except_by_hand(
    rules: Retrain, steps: list[tuple[float, str, Any]]
) -> None:
    decided = begun(play(rules, steps))
    for at, trigger in decided:
        within = [t for t, _ in decided if at - DAY < t <= at]
        assert trigger.kind == "hand" or len(within) <= rules.max_a_day


@thorough
@given(rules, steps)
def test_one_at_a_time_except_by_hand(rules: Retrain, steps: list[tuple[float, str, Any]]) -> None:
    for trigger, record, now, answer in play(rules, steps).asked:
        if answer.answer == "retrain" and answer.decided_at == now and trigger.kind != "hand":
            assert not [r for r in record if is_running(r, now)]


@thorough
@given(rules, steps)
def test_nothing_is_learned_from_a_fault_nor_without_need_nor_unasked(
    rules: Retrain, steps: list[tuple[float, str, Any]]
) -> None:
    for _, trigger in begun(play(rules, steps)):
        if trigger.kind == "hand":
            continue
        assert trigger.finding is not Finding.FAULT
        assert rules.schedule if trigger.kind == "schedule" else trigger.kind in rules.on
        if trigger.kind in ("drift", "performance"):
            assert trigger.finding in (Finding.HARMFUL, Finding.CONCEPT)


@thorough
@given(rules, steps)
def test_a_person_is_never_refused(rules: Retrain, steps: list[tuple[float, str, Any]]) -> None:
    for trigger, _, _, answer in play(rules, steps).asked:
        assert trigger.kind != "hand" or answer.answer == "retrain"


@thorough
@given(rules, steps)
def test_asking_again_changes_nothing(rules: Retrain, steps: list[tuple[float, str, Any]]) -> None:
    """Neither at once, nor at any time later unless the cause waits."""
    book = play(rules, steps)
    for row in book.rows:
        again = decide(row.trigger, rules, book.rows, row.current.decided_at)
        assert again == row.current or is_open(row, row.current.decided_at)
        if row.current.answer != "wait":
            assert decide(row.trigger, rules, book.rows, book.now + 99 * DAY) == row.current


@thorough
@given(rules, steps, st.randoms(use_true_random=False))
def test_replaying_the_record_gives_the_same_answers(
    rules: Retrain, steps: list[tuple[float, str, Any]], random: Any
) -> None:
    """Whatever the order in which the database hands the rows over."""
    book = play(rules, steps)
    for (trigger, record, now, answer), beside in zip(book.asked, book.beside, strict=True):
        shuffled = random.sample(record, len(record))
        assert decide(trigger, rules, shuffled, now, **beside) == answer


@thorough
@given(rules, steps)
def test_nothing_begins_beside_a_rollout_that_somebody_sees_to_except_by_hand(
    rules: Retrain, steps: list[tuple[float, str, Any]]
) -> None:
    book = play(rules, steps)
    for (trigger, _, now, answer), beside in zip(book.asked, book.beside, strict=True):
        if answer.answer == "retrain" and answer.decided_at == now and trigger.kind != "hand":
            rollout = beside["rollout"]
            assert rollout is None or now - rollout.updated_at >= STILL_AFTER
            assert trigger.version in (None, beside["champion"])


@thorough
@given(rules, steps)
def test_nothing_waits_for_good(rules: Retrain, steps: list[tuple[float, str, Any]]) -> None:
    """Once the watch finds no fault, asking at each due time decides everything that waits, though
    nobody sees to the rollout that may be there."""
    book = play(rules, steps)
    look = {"kind": "drift", "reason": "r", "finding": Finding.NONE, "data": "the end"}
    book.ask(Trigger(at=book.now + MOMENT, **look))
    for _ in range(len(book.rows) + 1):
        book.now += max(rules.cooldown, timedelta(weeks=1)) + LOST_AFTER
        book.ask_again()
        book.start()
        book.now += HOUR
        book.end("kept")
    assert not [r for r in book.rows if r.current.answer == "wait"]


@settings(deadline=None, max_examples=30)
@given(rules, steps, st.sampled_from(["kept", "rolled back", "no difference"]))
def test_drift_that_stays_and_gates_or_guards_that_refuse_do_not_loop(
    rules: Retrain, steps: list[tuple[float, str, Any]], refused: Any
) -> None:
    """A look every six hours for four weeks after any history, of new data and harmful each."""
    book = play(rules.model_copy(update={"on": ("drift",)}), steps)
    book.now += LOST_AFTER
    book.roll("aborted")
    before = len(begun(book))
    for number in range(4 * 28):
        book.now += 6 * HOUR
        look = {"kind": "drift", "reason": "r", "finding": Finding.HARMFUL}
        book.ask(Trigger(at=book.now + MOMENT, data=f"look {number}", **look))
        book.start()
        book.end("kept" if refused == "kept" else "rolling out")
        book.now += HOUR / 6
        book.roll(refused if refused != "kept" else "aborted")
    assert 1 <= len(begun(book)) - before <= 11
