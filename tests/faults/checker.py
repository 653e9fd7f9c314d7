"""What must be true after everything that went wrong, checked on what was promised and on what is
found. No I/O: ``observed`` reads it all anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perennial.contracts.rollouts import ENDS, Rollout
from perennial.contracts.routes import Route
from perennial.stores.registry.records import AuditEntry
from perennial.stores.registry.replay import replayed, told_route
from tests.faults.traffic import Answer, Label

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Order:
    """A command that a person gave. ``obeyed`` is whether the person was told that it was done;
    ``mark`` stands in its reason."""

    command: str
    mark: str
    obeyed: bool
    said: str = ""


@dataclass
class Story:
    """What was promised, and what is found after all is over.

    Rows of tables are dictionaries by column. ``served`` is each server's generation by its name,
    ``waiting`` the segments left in spools, ``damaged`` those put aside, ``watched`` whether
    somebody still looked at a rollout that had not ended.
    """

    model: str
    answers: Sequence[Answer]
    labels: Sequence[Label]
    registered: Mapping[int, str]
    """Versions and their digests, as the trainer was told."""
    begun: Collection[int]
    """Rollouts, as the trainer was told."""
    orders: Sequence[Order]
    predictions: Sequence[Mapping[str, Any]]
    labelled: Sequence[Mapping[str, Any]]
    failures: Sequence[Mapping[str, Any]]
    route: Route
    versions: Mapping[int, str]
    rollouts: Sequence[Rollout]
    decisions: Sequence[AuditEntry]
    served: Mapping[str, int | None]
    waiting: Sequence[str] = ()
    damaged: Sequence[str] = ()
    wrong: Sequence[str] = ()
    """Answers that no request may get."""
    watched: bool = True
    ingested: Collection[tuple[str, ...]] = ()
    """Rows of the model's data that a run which ended well took in, by what tells them apart."""
    table: Sequence[tuple[str, ...]] = ()
    """All rows of the model's table, likewise."""
    chain: str = ""
    """What the audit's own check says is wrong with it."""
    more: Sequence[str] = field(default_factory=tuple)
    """What a world of its own kind found wrong itself."""


def violations(story: Story) -> list[str]:
    """What is not as it must be, each with examples; empty when all is well."""
    found = [f"{rule}: {what}" for rule, check in RULES.items() for what in check(story)]
    return [*found, *story.more]


def _lost(story: Story) -> Iterator[str]:
    logged = {(row["_id"], row["_version"]): row for row in story.predictions}
    missing = [answer for answer in story.answers if (answer.id, answer.version) not in logged]
    yield from _some("acknowledged predictions are not in the table", missing)
    other = [
        (answer, row)
        for answer in story.answers
        if (row := logged.get((answer.id, answer.version))) is not None
        and (row["remark"], row["_arm"], row["_prediction"])
        != (answer.mark, answer.arm, answer.probability)
    ]
    yield from _some("predictions are logged otherwise than they were answered", other)
    kept = {
        (row["_id"], int(row["metric_mark"]), row["label"])
        for row in story.labelled
        if row["metric_mark"] is not None
    }
    gone = [one for one in story.labels if (one.id, one.mark, one.label) not in kept]
    yield from _some("acknowledged labels are not in the table", gone)
    unknown = {v: d for v, d in story.registered.items() if story.versions.get(v) != d}
    yield from _some("acknowledged versions are not in the registry", unknown.items())
    known = {rollout.id for rollout in story.rollouts}
    yield from _some("rollouts that began are not in the registry", set(story.begun) - known)
    reasons = [entry.reason for entry in story.decisions]
    undone = [
        order for order in story.orders
        if order.obeyed and not any(order.mark in reason for reason in reasons)
    ]  # fmt: skip
    yield from _some("orders that were done are not in the audit", undone)
    yield from _some("rows that were taken in are not there", {*story.ingested} - {*story.table})
    yield from _some("segments are still in a spool", story.waiting)
    yield from _some("segments were put aside as damaged", story.damaged)


def _doubled(story: Story) -> Iterator[str]:
    yield from _twice("predictions", ((r["_id"], r["_version"]) for r in story.predictions))
    live = (row["remark"] for row in story.predictions if row["_arm"] != "shadow")
    yield from _twice("rows of requests", live)
    marks = (row["metric_mark"] for row in story.labelled)
    yield from _twice("labels", (mark for mark in marks if mark is not None))
    yield from _twice("rows of the model's data", story.table)
    yield from _twice("failures", ((r["_id"], r["_version"]) for r in story.failures))
    yield from _twice("digests of versions", story.versions.values())
    yield from _twice("causes in the audit", (entry.cause for entry in story.decisions))
    both = {(r["_id"], r["_version"]) for r in story.predictions} & {
        (r["_id"], r["_version"]) for r in story.failures
    }
    yield from _some("rows are both predictions and failures", both)


def _champion(story: Story) -> Iterator[str]:
    route = story.route
    places = [*(arm.version for arm in route.arms), *route.shadow]
    if route.champion not in story.versions:
        yield f"the champion, {route.champion}, is no version"
    if [arm.version for arm in route.arms].count(route.champion or 0) != 1:
        yield f"the champion, {route.champion}, is not one of the arms: {route.arms}"
    if sum(arm.weight for arm in route.arms) != 100 or len(set(places)) < len(places):
        yield f"the arms don't share the requests: {route}"
    running = [rollout for rollout in story.rollouts if not rollout.ended]
    if not running and (len(route.arms) > 1 or route.shadow):
        yield f"nothing is rolled out, and yet several versions serve: {route}"
    for server, generation in story.served.items():
        if generation != route.generation:
            yield f"{server} serves generation {generation}, the route is at {route.generation}"


def _orphaned(story: Story) -> Iterator[str]:
    running = [rollout for rollout in story.rollouts if not rollout.ended]
    if len(running) > 1:
        yield f"{len(running)} rollouts have not ended: {[r.id for r in running]}"
    if running and not story.watched:
        yield f"nobody watches rollout {running[0].id} of version {running[0].version}"
    told = {
        (entry.evidence.get("rollout"), entry.evidence.get("phase")) for entry in story.decisions
    }
    for rollout in story.rollouts:
        if rollout.ended != (rollout.ended_at is not None):
            yield f"rollout {rollout.id} is {rollout.state.phase} and ended at {rollout.ended_at}"
        if rollout.state.phase in ENDS and (rollout.id, rollout.state.phase) not in told:
            yield f"rollout {rollout.id} was {rollout.state.phase}, and the audit has no word of it"


def _audited(story: Story) -> Iterator[str]:
    retold = replayed(story.model, story.decisions)
    shown = ("champion", "arms", "shadow", "generation")
    if any(getattr(retold, name) != getattr(story.route, name) for name in shown):
        yield f"the audit tells of the route {retold}, the registry has {story.route}"
    numbers = [entry.generation for entry in sorted(story.decisions, key=lambda entry: entry.id)]
    changes = [number for number in numbers if number is not None]
    if changes != list(range(1, story.route.generation + 1)):
        at = story.route.generation
        yield f"the audit's generations are {changes[:20]}…, the route is at {at}"
    told = {entry.version for entry in story.decisions if entry.action == "registered"}
    yield from _some("versions were registered without a decision", set(story.versions) - told)
    began = {
        entry.evidence.get("rollout") for entry in story.decisions
        if entry.action == "rollout began"
    }  # fmt: skip
    yield from _some("rollouts began unaudited", {r.id for r in story.rollouts} - began)
    unsaid = [e.id for e in story.decisions if not (e.actor and e.reason and e.cause)]
    yield from _some("decisions have no actor, reason or cause", unsaid)
    serving: set[int] = set()
    for entry in sorted(story.decisions, key=lambda entry: entry.id):
        change = told_route(entry)
        if change is not None:
            serving |= {*(arm.version for arm in change.arms), *change.shadow}
    answered = {row["_version"] for row in story.predictions}
    yield from _some("versions answered without ever having been routed", answered - serving)
    if story.chain:
        yield f"the audit is broken: {story.chain}"


def _answered(story: Story) -> Iterator[str]:
    yield from _some("requests got what no request may get", story.wrong)


RULES: dict[str, Callable[[Story], Iterator[str]]] = {
    "nothing acknowledged is lost": _lost,
    "no row is doubled": _doubled,
    "there is one champion": _champion,
    "no rollout is orphaned": _orphaned,
    "every decision is audited": _audited,
    "errors are those that were told": _answered,
}


def _some(what: str, found: Iterable[Any]) -> Iterator[str]:
    listed = list(found)
    if listed:
        shown = ", ".join(map(str, listed[:_EXAMPLES]))
        yield f"{len(listed):,} {what}: {shown}{', …' if len(listed) > _EXAMPLES else ''}"


def _twice(what: str, keys: Iterable[Any]) -> Iterator[str]:
    counts = Counter(keys)
    more = {key: count for key, count in counts.items() if count > 1}
    yield from _some(f"{what} are there more than once", more.items())
