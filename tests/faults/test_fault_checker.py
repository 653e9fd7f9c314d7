"""The checker finds what it is there for: of each invariant, a story in which it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from perennial.contracts.refs import BundleRef
from perennial.contracts.rollouts import Guard, Plan, Rollout, Step
from perennial.contracts.routes import Arm
from perennial.stores.registry import Registry
from tests.faults.adversary import Possible, plan
from tests.faults.checker import RULES, Order, Story, violations
from tests.faults.traffic import Answer, Label

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MODEL = "parcels"
GUARD = Guard(name="error_rate", kind="error_rate", limit=0.01)
STEP = Step(
    strategy="canary", weight=40, bake_seconds=1, timeout_seconds=60, min_requests=1,
    guards=(GUARD,),
)  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A story in which all is well: two versions, of which the second was promoted by hand."""
    registry = Registry(f"sqlite:///{tmp_path_factory.mktemp('story')}/registry.db")
    who: dict[str, Any] = {"actor": "trainer", "reason": "passed", "now": NOW}
    for digest in ("d1", "d2"):
        registry.register(
            MODEL, BundleRef(uri=f"/b/{digest}", digest=digest), params={}, metrics={},
            judgement={}, links={}, **who,
        )  # fmt: skip
    registry.promote(MODEL, 1, expected_generation=0, evidence={}, cause="first", **who)
    begun = registry.rollouts.begin(MODEL, 2, Plan(steps=(STEP,)), cause="trained 2", **who)
    registry.rollouts.command(
        MODEL, "promote", actor="ada", reason="order 0001", now=NOW + timedelta(seconds=1)
    )
    answers = [
        Answer("p1", "m-1", 1, "champion", 0.25), Answer("p2", "m-2", 2, "challenger", 0.75)
    ]  # fmt: skip
    return Story(
        model=MODEL,
        answers=answers,
        labels=[Label("p1", 7, "yes")],
        registered={1: "d1", 2: "d2"},
        begun={begun.id},
        orders=[Order("rollout --promote", "order 0001", True), Order("rollback", "none", False)],
        predictions=[
            _row("p1", 1, "champion", 0.25, "m-1"),
            _row("p2", 2, "challenger", 0.75, "m-2"),
            _row("p2", 1, "shadow", 0.5, "m-2"),
            _row("p3", 1, "champion", 0.5, "m-3"),  # logged, and its client never heard of it
        ],
        labelled=[{"_id": "p1", "metric_mark": 7.0, "label": "yes"}],
        failures=[{"_id": "p9", "_version": 2}],
        route=registry.route(MODEL),
        versions={v.ref.version: v.ref.digest for v in registry.versions(MODEL)},
        rollouts=registry.rollouts.last(MODEL),
        decisions=registry.decisions(MODEL, 1000),
        ingested={("2026-03-01", "north")},
        table=[("2026-03-01", "north"), ("2026-03-02", "north")],
        served={"server-1": registry.route(MODEL).generation},
    )


def _row(id: str, version: int, arm: str, value: float, mark: str) -> dict[str, Any]:
    return {"_id": id, "_version": version, "_arm": arm, "_prediction": value, "remark": mark}


def _running(story: Story) -> Rollout:
    state = story.rollouts[0].state.model_copy(update={"phase": "running"})
    return story.rollouts[0].model_copy(update={"state": state, "ended_at": None})


def _of_route(**changes: Any) -> Callable[[Story], Story]:
    return lambda story: replace(story, route=story.route.model_copy(update=changes))


def _without(action: str) -> Callable[[Story], Story]:
    return lambda story: replace(
        story, decisions=[entry for entry in story.decisions if entry.action != action]
    )


LOST, DOUBLED, CHAMPION, ORPHANED, AUDITED, ANSWERED = RULES
BROKEN: dict[str, tuple[str, str, Callable[[Story], Story]]] = {
    "a prediction is lost": (
        LOST, "1 acknowledged predictions are not in the table: Answer(id='p2'",
        lambda s: replace(s, predictions=[s.predictions[0], *s.predictions[2:]]),
    ),
    "a prediction is logged as another": (
        LOST, "1 predictions are logged otherwise than they were answered",
        lambda s: replace(
            s, predictions=[{**s.predictions[0], "_prediction": 0.3}, *s.predictions[1:]]
        ),
    ),
    "a label is lost": (
        LOST, "1 acknowledged labels are not in the table", lambda s: replace(s, labelled=[]),
    ),
    "a version is lost": (
        LOST, "1 acknowledged versions are not in the registry: (3, 'd3')",
        lambda s: replace(s, registered={**s.registered, 3: "d3"}),
    ),
    "a rollout is lost": (
        LOST, "1 rollouts that began are not in the registry: 9",
        lambda s: replace(s, begun={1, 9}),
    ),
    "an order is lost": (
        LOST, "1 orders that were done are not in the audit",
        lambda s: replace(s, orders=[*s.orders, Order("rollback", "order 0002", True)]),
    ),
    "data that was taken in is lost": (
        LOST,
        "1 rows that were taken in are not there: ('2026-03-01', 'north')",
        lambda s: replace(s, table=s.table[1:]),
    ),
    "data is there twice": (
        DOUBLED,
        "1 rows of the model's data are there more than once: (('2026-03-01', 'north'), 2)",
        lambda s: replace(s, table=[*s.table, s.table[0]]),
    ),
    "a segment never arrived": (
        LOST, "1 segments are still in a spool: x", lambda s: replace(s, waiting=["x"]),
    ),
    "a segment is damaged": (
        LOST, "1 segments were put aside as damaged: y", lambda s: replace(s, damaged=["y"]),
    ),
    "a prediction is there twice": (
        DOUBLED, "1 predictions are there more than once: (('p1', 1), 2)",
        lambda s: replace(s, predictions=[*s.predictions, s.predictions[0]]),
    ),
    "a row of a request has two predictions": (
        DOUBLED, "1 rows of requests are there more than once: ('m-1', 2)",
        lambda s: replace(s, predictions=[*s.predictions, {**s.predictions[0], "_id": "p8"}]),
    ),
    "a label is there twice": (
        DOUBLED, "1 labels are there more than once: (7.0, 2)",
        lambda s: replace(s, labelled=[*s.labelled, *s.labelled]),
    ),
    "a failure is there twice": (
        DOUBLED, "1 failures are there more than once",
        lambda s: replace(s, failures=[*s.failures, *s.failures]),
    ),
    "a row failed and was answered": (
        DOUBLED, "1 rows are both predictions and failures: ('p1', 1)",
        lambda s: replace(s, failures=[{"_id": "p1", "_version": 1}]),
    ),
    "a bundle is two versions": (
        DOUBLED, "1 digests of versions are there more than once: ('d1', 2)",
        lambda s: replace(s, versions={1: "d1", 2: "d1"}, registered={}),
    ),
    "a decision is there twice": (
        DOUBLED, "1 causes in the audit are there more than once",
        lambda s: replace(s, decisions=[*s.decisions, s.decisions[-1]]),
    ),
    "two versions serve and nothing is rolled out": (
        CHAMPION, "nothing is rolled out, and yet several versions serve",
        _of_route(arms=(Arm(version=2, weight=60), Arm(version=1, weight=40))),
    ),
    "the champion answers nobody": (
        CHAMPION, "the champion, 2, is not one of the arms",
        _of_route(arms=(Arm(version=1, weight=100),)),
    ),
    "the champion does not exist": (
        CHAMPION, "the champion, 5, is no version",
        _of_route(champion=5, arms=(Arm(version=5, weight=100),)),
    ),
    "the arms answer too little": (
        CHAMPION, "the arms don't share the requests", _of_route(arms=(Arm(version=2, weight=90),)),
    ),
    "a server serves an old route": (
        CHAMPION, "server-2 serves generation 1, the route is at 3",
        lambda s: replace(s, served={**s.served, "server-2": 1}),
    ),
    "a rollout goes on and nobody watches": (
        ORPHANED, "nobody watches rollout 1 of version 2",
        lambda s: replace(s, rollouts=[_running(s)], watched=False),
    ),
    "two rollouts go on": (
        ORPHANED, "2 rollouts have not ended: [1, 1]",
        lambda s: replace(s, rollouts=[_running(s), _running(s)]),
    ),
    "a rollout ended and the audit has no word of it": (
        ORPHANED, "rollout 1 was promoted, and the audit has no word of it", _without("promoted"),
    ),
    "a route changed without a word": (
        AUDITED, "the audit tells of the route", _of_route(generation=4),
    ),
    "a decision is gone": (
        AUDITED, "the audit's generations are [1, 3]…, the route is at 3",
        _without("rollout began"),
    ),
    "a version was registered without a word": (
        AUDITED, "2 versions were registered without a decision: 1, 2", _without("registered"),
    ),
    "a rollout began without a word": (
        AUDITED, "1 rollouts began unaudited: 1", _without("rollout began"),
    ),
    "nobody decided": (
        AUDITED, "1 decisions have no actor, reason or cause",
        lambda s: replace(
            s, decisions=[s.decisions[0].model_copy(update={"actor": ""}), *s.decisions[1:]]
        ),
    ),
    "a version answered that nobody routed": (
        AUDITED, "1 versions answered without ever having been routed: 3",
        lambda s: replace(
            s, predictions=[*s.predictions, _row("p4", 3, "champion", 0.5, "m-4")]
        ),
    ),
    "the audit's own check says no": (
        AUDITED, "the audit is broken: entry 3", lambda s: replace(s, chain="entry 3"),
    ),
    "a request was refused that was right": (
        ANSWERED, "1 requests got what no request may get: 422",
        lambda s: replace(s, wrong=["422"]),
    ),
}  # fmt: skip


def test_a_story_in_which_all_is_well_has_no_violations(kept: Story) -> None:
    assert violations(kept) == []


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_found_and_said(kept: Story, what: str) -> None:
    rule, words, broken = BROKEN[what]
    found = violations(broken(kept))
    assert any(one.startswith(f"{rule}: ") and words in one for one in found), found


def test_every_rule_is_broken_in_some_story() -> None:
    assert {rule for rule, _, _ in BROKEN.values()} == set(RULES)


def test_examples_are_bounded(kept: Story) -> None:
    (found,) = violations(replace(kept, waiting=[str(i) for i in range(5000)]))
    assert found.endswith("5,000 segments are still in a spool: 0, 1, 2, 3, 4, …")


POSSIBLE = [
    Possible("kill", ["server-1", "trainer"], 3.0), Possible("pause", ["server-1"]),
    Possible("clock", ["server-1"]), Possible("starve", ["server-1"]), Possible("busy", []),
]  # fmt: skip


def test_a_seed_draws_the_same_faults_again_and_another_seed_others() -> None:
    assert plan(1, 60, POSSIBLE) == plan(1, 60, POSSIBLE)
    assert plan(1, 60, POSSIBLE) != plan(2, 60, POSSIBLE)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_to_someone_it_can_come_to_and_all_is_over_in_the_end(seed: int) -> None:
    faults = plan(seed, 60, POSSIBLE)
    assert {fault.kind for fault in faults} == {"kill", "pause", "clock", "starve"}
    assert all(fault.at >= 0 and fault.at + fault.seconds <= 60.02 for fault in faults)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert all(fault.amount for fault in faults if fault.kind == "clock")
    for kind in ("pause", "clock", "starve"):
        same = [fault for fault in faults if fault.kind == kind]
        pairs = pairwise(same)
        assert all(one.at + one.seconds <= other.at + 0.02 for one, other in pairs)
