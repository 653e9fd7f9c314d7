"""What holds of rollouts, whatever the plan, the checks, the people and the order of things.

A small book of record stands for the registry: it holds the rollout and what was written of it, and
takes a transition only if it was decided on the present revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.contracts.rollouts import (
    Check,
    CheckOutcome,
    Guard,
    Limits,
    Measurement,
    Plan,
    Rollout,
    RouteChange,
    Step,
    Transition,
)
from perennial.contracts.routes import Arm
from perennial.decisions.rollout import awaited, command, route_at, start, step, supersede

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CHAMPION, VERSION = 1, 2
SETTINGS = settings(deadline=None, max_examples=150)
OUTCOMES = get_args(CheckOutcome)
GUARDS = (
    Guard(name="error_rate", kind="error_rate", limit=0.01),
    Guard(name="p99_ms", kind="latency", limit=0.01, threshold=50),
    Guard(name="logloss", kind="metric", limit=0.02),
)

Look = tuple[str, int, frozenset[str], tuple[float, float, float], int]
"""Outcome, requests, guards that were measured, their value and interval, rows in both arms."""
Act = tuple[str, Any]
"""What is done and with what: ("look", Look), ("time", None), ("person", Command) or
("supersede", None)."""


@dataclass
class Book:
    """A rollout on record, and every transition with what it was written for."""

    plan: Plan
    now: datetime = START
    written: list[tuple[Act, datetime, Transition]] = field(default_factory=list)

    def __post_init__(self) -> None:
        began = start(self.plan, CHAMPION, VERSION, self.now)
        self.rollout = Rollout(
            id=1, model="m", version=VERSION, champion=CHAMPION, plan=self.plan,
            state=began.state, revision=1, actor="a", reason="r", started_at=self.now,
            updated_at=self.now, ended_at=None,
        )  # fmt: skip
        self.written.append((("start", None), self.now, began))

    def write(self, act: Act, now: datetime, on: Rollout, transition: Transition) -> bool:
        """Whether it was written; not if the rollout has changed since ``on``."""
        if on.revision != self.rollout.revision:
            return False
        self.written.append((act, now, transition))
        self.rollout = on.model_copy(
            update={"state": transition.state, "revision": on.revision + 1}
        )
        return True

    def do(self, act: Act, now: datetime) -> None:
        """All of it in one go, as one controller does it that is alone."""
        transition = decide(self.rollout, act, now)
        if transition is not None:
            assert self.write(act, now, self.rollout, transition)

    @property
    def routes(self) -> list[RouteChange]:
        return [t.route for _, _, t in self.written if t.route is not None]

    @property
    def replayed(self) -> RouteChange:
        """The route as the record tells it, from the one that every rollout finds."""
        return [everything_to(CHAMPION), *self.routes][-1]


def decide(rollout: Rollout, act: Act, now: datetime) -> Transition | None:
    what, value = act
    try:
        match what:
            case "person":
                return command(rollout, value, now, "")
            case "supersede":
                return supersede(rollout, 9, now)
            case "time":
                return step(rollout, None, now)
            case _:
                return step(rollout, value, now)
    except ValueError:  # it makes no sense as the rollout stands
        return None


def measured(rollout: Rollout, act: Act, now: datetime) -> Act:
    """A look becomes the check that it makes of the rollout's present step."""
    if act[0] != "look":
        return act
    outcome, requests, guards, (low, value, high), rows = act[1]
    measurements = tuple(
        Measurement(guard=name, value=value, low=low, high=high, n_champion=rows, n_challenger=rows)
        for name in sorted(guards)
    )
    return "look", Check(
        at=now, step=rollout.state.step, outcome=outcome, requests=requests,
        measurements=measurements, verdicts=(),
    )  # fmt: skip


def everything_to(version: int) -> RouteChange:
    return RouteChange(champion=version, arms=(Arm(version=version, weight=100),))


def implied(rollout: Rollout) -> RouteChange:
    """The route that the state alone says."""
    if rollout.ended:
        promoted = rollout.state.phase == "promoted"
        return everything_to(VERSION if promoted else CHAMPION)
    if awaited(rollout.plan, rollout.state) == 0:
        return everything_to(CHAMPION)
    return route_at(rollout.plan, rollout.state.step, CHAMPION, VERSION)


def played(plan: Plan, script: Iterable[tuple[int, Act]]) -> Book:
    book = Book(plan)
    for minutes, act in script:
        book.now += minutes * MINUTE
        book.do(measured(book.rollout, act, book.now), book.now)
    return book


GUARDED = st.one_of(*[st.lists(st.sampled_from(GUARDS), unique=True, min_size=1)] * 8, st.just([]))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    def one() -> Step:
        strategy = draw(st.sampled_from(["shadow", "canary", "canary", "blue_green", "ab_test"]))
        weight = {"shadow": 0, "blue_green": 100}.get(strategy) or draw(st.integers(1, 100))
        return Step(
            strategy=strategy,
            weight=0 if strategy == "shadow" else weight,
            bake_seconds=60.0 * draw(st.integers(0, 3)),
            timeout_seconds=60.0 * draw(st.integers(4, 30)),
            min_requests=draw(st.sampled_from([1, 100])),
            approval=draw(st.sampled_from([False, False, False, True])),
            guards=tuple(draw(GUARDED)),
        )

    limits = Limits(
        failed=draw(st.integers(0, 2)),
        inconclusive=draw(st.none() | st.integers(0, 3)),
        error=draw(st.integers(0, 3)),
    )
    return Plan(steps=tuple(one() for _ in range(draw(STEPS))), limits=limits)


STEPS = st.sampled_from([0, 1, 1, 2, 2, 3])
NAMES = frozenset(guard.name for guard in GUARDS)
# Most rollouts get far only if most looks are good and few people interfere.
looks: st.SearchStrategy[Look] = st.tuples(
    st.sampled_from([*["successful"] * 12, *OUTCOMES]),
    st.sampled_from([1000, 1000, 1000, 100, 99, 0]),
    st.one_of(*[st.just(NAMES)] * 3, st.frozensets(st.sampled_from(sorted(NAMES)))),
    st.sampled_from(
        [(-0.3, -0.2, -0.1), (-0.1, 0.0, 0.1), (-0.3, -0.2, -0.1), (0.001, 0.01, 0.02)]
    ),
    st.sampled_from([100, 100, 10]),
)
acts: st.SearchStrategy[Act] = st.one_of(
    *[st.tuples(st.just("look"), looks)] * 8,
    *[st.tuples(st.just("person"), st.sampled_from(["approve", "approve", "resume", "pause"]))] * 2,
    st.tuples(st.just("time"), st.none()),
)
ends: st.SearchStrategy[Act] = st.sampled_from(
    [("supersede", None), ("person", "promote"), ("person", "abort")]
)


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[int, Act]]:
    """What happens, each some minutes after the one before; somebody may make an end of it."""
    script = draw(st.lists(st.tuples(st.integers(1, 4), acts), min_size=15, max_size=40))
    if draw(st.sampled_from([True, False, False])):
        script.insert(draw(st.integers(0, len(script))), (1, draw(ends)))
    return script


@SETTINGS
@given(plans(), scripts())
def test_every_route_that_is_asked_for_shares_out_all_requests_once(
    plan: Plan, script: Sequence[tuple[int, Act]]
) -> None:
    for route in played(plan, script).routes:
        assert sum(arm.weight for arm in route.arms) == 100
        assert all(0 <= arm.weight <= 100 for arm in route.arms)
        places = [*(arm.version for arm in route.arms), *route.shadow]
        assert len(places) == len(set(places))
        assert set(places) <= {CHAMPION, VERSION}
        assert route.champion in {arm.version for arm in route.arms}


@SETTINGS
@given(plans(), scripts())
def test_nothing_is_promoted_without_every_guard_of_every_step_but_by_a_person(
    plan: Plan, script: Sequence[tuple[int, Act]]
) -> None:
    book = played(plan, script)
    act, _, last = book.written[-1]
    if last.state.phase != "promoted" or act == ("person", "promote") or not plan.steps:
        return
    shown = []
    for (what, check), _, transition in book.written:
        if what == "look" and transition.action in ("step began", "waiting", "promoted"):
            values = {m.guard for m in check.measurements if m.value is not None}
            wanted = {guard.name for guard in plan.steps[check.step].guards}
            assert wanted
            assert wanted <= values
            assert check.outcome == "successful"
            assert check.requests >= plan.steps[check.step].min_requests
            shown.append(check.step)
    assert shown == list(range(len(plan.steps)))


@SETTINGS
@given(plans(), scripts())
def test_a_step_that_needs_a_person_never_gets_requests_without_one(
    plan: Plan, script: Sequence[tuple[int, Act]]
) -> None:
    book = played(plan, script)
    approvals = [t.state.step for act, _, t in book.written if act == ("person", "approve")]
    entered = {t.state.step for _, _, t in book.written if t.state.phase == "running"}
    assert {n for n in entered if plan.steps[n].approval} == set(approvals)
    assert book.rollout.state.approved == tuple(approvals)
    assert approvals == sorted(set(approvals))


@SETTINGS
@given(plans(), scripts())
def test_what_has_ended_has_one_champion_and_one_arm_and_stays_so(
    plan: Plan, script: Sequence[tuple[int, Act]]
) -> None:
    book = played(plan, script)
    if not book.rollout.ended:
        return
    promoted = book.rollout.state.phase == "promoted"
    assert book.replayed == everything_to(VERSION if promoted else CHAMPION)
    assert sum(t.state.phase == book.rollout.state.phase for _, _, t in book.written) == 1


@SETTINGS
@given(plans(), scripts())
def test_what_was_measured_bad_is_quarantined_and_nothing_else(
    plan: Plan, script: Sequence[tuple[int, Act]]
) -> None:
    for (what, check), _, transition in played(plan, script).written:
        if not transition.quarantine:
            failed = what == "look" and check.outcome == "failed"
            assert not (failed and transition.state.counts.failed > plan.limits.failed)
            continue
        assert (what, transition.state.phase) == ("look", "rolled back")
        worse = any(m.low > 0 for m in check.measurements)
        compared = plan.steps[check.step].strategy == "ab_test"
        assert check.outcome == "failed" or (compared and worse)


@SETTINGS
@given(plans(), scripts())
def test_replaying_what_was_written_gives_the_route_that_the_state_says(
    plan: Plan, script: Sequence[tuple[int, Act]]
) -> None:
    book = Book(plan)
    assert book.replayed == implied(book.rollout)
    for minutes, act in script:
        book.now += minutes * MINUTE
        book.do(measured(book.rollout, act, book.now), book.now)
        assert book.replayed == implied(book.rollout)


@SETTINGS
@given(plans(), scripts())
def test_what_changes_the_phase_the_step_or_the_route_has_a_word_and_a_reason(
    plan: Plan, script: Sequence[tuple[int, Act]]
) -> None:
    before: tuple[Any, ...] = ()
    for _, _, transition in played(plan, script).written:
        state = transition.state
        place = (state.phase, state.step, state.approved)
        told = transition.action != ""
        assert told == (place != before or transition.route is not None)
        assert told == (transition.reason != "")
        assert not told or transition.reason == state.reason
        before = place


@SETTINGS
@given(plans(), scripts())
def test_a_state_survives_being_written_down(plan: Plan, script: Sequence[tuple[int, Act]]) -> None:
    rollout = played(plan, script).rollout
    assert Rollout.model_validate_json(rollout.model_dump_json()) == rollout


@SETTINGS
@given(plans(), scripts())
def test_the_same_check_once_more_changes_nothing(
    plan: Plan, script: Sequence[tuple[int, Act]]
) -> None:
    once, twice = Book(plan), Book(plan)
    for minutes, act in script:
        for book in (once, twice):
            book.now += minutes * MINUTE
        done = measured(once.rollout, act, once.now)
        once.do(done, once.now)
        for _ in range(2 if act[0] == "look" else 1):
            twice.do(done, twice.now)
        assert once.rollout == twice.rollout


# Two controllers


@dataclass
class Controller:
    """Reads, decides, writes; others may write between. What is stale it decides anew."""

    book: Book
    read: Rollout | None = None
    act: Act = ("time", None)
    now: datetime = START

    def take(self, act: Act, now: datetime) -> None:
        self.read, self.act, self.now = self.book.rollout, act, now

    def finish(self) -> None:
        while self.read is not None:
            transition = decide(self.read, self.act, self.now)
            if transition is None or self.book.write(self.act, self.now, self.read, transition):
                self.read = None
            else:
                self.read = self.book.rollout


@SETTINGS
@given(plans(), scripts(), st.lists(st.tuples(st.booleans(), st.booleans())))
def test_two_controllers_end_as_one_that_is_given_the_same_checks(
    plan: Plan, script: Sequence[tuple[int, Act]], order: Sequence[tuple[bool, bool]]
) -> None:
    """Each works through all checks by itself, the other at any place before or after it."""
    alone, checks, now = Book(plan), [], START
    for minutes, act in script:
        now += minutes * MINUTE
        if act[0] in ("look", "time"):
            done = measured(alone.rollout, act, now)
            checks.append((done, now))
            alone.do(done, now)
    shared = Book(plan)
    pair = [(Controller(shared), iter(checks)) for _ in range(2)]
    for which, begins in order:
        controller, own = pair[which]
        if not begins or controller.read is not None:
            controller.finish()
        elif (item := next(own, None)) is not None:
            controller.take(*item)
    for controller, own in pair:  # whatever is left
        controller.finish()
        for item in own:
            controller.take(*item)
            controller.finish()
    assert shared.rollout == alone.rollout
    assert shared.routes == alone.routes


@SETTINGS
@given(plans(), scripts(), st.lists(st.integers(0, 2), min_size=10, max_size=60))
def test_whatever_two_controllers_and_a_person_wrote_one_would_have_written(
    plan: Plan, script: Sequence[tuple[int, Act]], order: Sequence[int]
) -> None:
    """Each look is one controller's; people and other rollouts come between reading and writing."""
    book, left = Book(plan), iter(script)
    pair = [Controller(book), Controller(book)]
    for which in order:
        if which < 2 and pair[which].read is not None:
            pair[which].finish()
            continue
        minutes, act = next(left, (0, None))
        if act is None:
            continue
        book.now += minutes * MINUTE
        if act[0] in ("look", "time"):
            pair[which % 2].finish()
            pair[which % 2].take(measured(book.rollout, act, book.now), book.now)
        else:
            book.do(act, book.now)
    for controller in pair:
        controller.finish()
    alone = Book(plan)
    for act, now, transition in book.written[1:]:
        assert decide(alone.rollout, act, now) == transition
        alone.do(act, now)
    assert alone.rollout == book.rollout
    assert (alone.routes, alone.replayed) == (book.routes, implied(book.rollout))
