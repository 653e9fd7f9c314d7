"""What holds of a registry whatever is done to its rollouts, and by however many at once.

One controller looks at the rollout as it is, another at what it read some time ago; people command,
go back and promote in between; versions are begun in any order, forced and not.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from perennial.contracts.errors import InputError
from perennial.contracts.refs import BundleRef
from perennial.contracts.rollouts import (
    Check,
    CheckOutcome,
    Command,
    Guard,
    Limits,
    Measurement,
    Plan,
    Rollout,
    Step,
)
from perennial.contracts.routes import Route
from perennial.decisions.rollout import step
from perennial.stores.registry import Arm, Registry, StaleRolloutError
from perennial.stores.registry.replay import replayed

START = datetime(2026, 3, 1, tzinfo=UTC)
VERSIONS = 6
GUARD = Guard(name="error_rate", kind="error_rate", limit=0.01)
WHO: dict[str, Any] = {"actor": "a test", "reason": "as it came"}

STEPS = st.builds(
    lambda strategy, weight, approval: Step(
        strategy=strategy, weight=0 if strategy == "shadow" else weight, bake_seconds=60,
        timeout_seconds=900, min_requests=10, approval=approval, guards=(GUARD,),
    ),
    st.sampled_from(["shadow", "canary", "blue_green"]),
    st.sampled_from([5, 50, 100]),
    st.sampled_from([False, False, True]),
)  # fmt: skip
PLANS = st.builds(
    lambda steps, inconclusive: Plan(steps=tuple(steps), limits=Limits(inconclusive=inconclusive)),
    st.lists(STEPS, max_size=3),
    st.sampled_from([None, 1]),
)
VERSION = st.integers(1, VERSIONS)
BEGIN = st.tuples(st.just("begin"), VERSION, PLANS, st.booleans())
LOOK = st.tuples(st.just("look"), st.sampled_from(get_args(CheckOutcome)), st.booleans())
COMMAND = st.tuples(st.just("command"), st.sampled_from(get_args(Command)))
DEEDS = st.sampled_from([BEGIN] * 4 + [LOOK] * 8 + [COMMAND] * 3 + [
    st.tuples(st.just("read")),
    st.tuples(st.just("rollback"), st.none() | VERSION),
    st.tuples(st.just("promote"), VERSION),
    st.tuples(st.just("wait"), st.sampled_from([1, 1200])),
]).flatmap(lambda deed: deed)  # fmt: skip


@pytest.fixture(scope="module")
def made() -> Any:
    """A registry with versions, the first of which is the champion: copied for each example."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "registry.db"
        registry = Registry(f"sqlite:///{path}")
        for number in range(1, VERSIONS + 1):
            registry.register(
                "m", BundleRef(uri=f"/{number}", digest=str(number)), params={}, metrics={},
                judgement={}, links={}, now=START, **WHO,
            )  # fmt: skip
        registry.promote(
            "m", 1, expected_generation=0, evidence={}, cause="first", now=START, **WHO
        )
        registry.close()
        yield path


class World:
    """A registry, the time, and what a controller that is late has read of the running rollout."""

    def __init__(self, url: str) -> None:
        self.registry = Registry(url)
        self.now = START
        self.known: Rollout | None = None
        self.causes = 0

    def do(self, deed: tuple[Any, ...]) -> None:
        self.now += timedelta(seconds=61)
        with suppress(InputError, StaleRolloutError):  # what must hold does so all the same
            getattr(self, f"_{deed[0]}")(*deed[1:])
            event(deed[0])

    def _begin(self, version: int, plan: Plan, force: bool) -> None:
        self.causes += 1
        self.registry.rollouts.begin(
            "m", version, plan, cause=f"begin {self.causes}", force=force, now=self.now, **WHO
        )

    def _read(self) -> None:
        self.known = self.registry.rollouts.active("m")

    def _look(self, outcome: CheckOutcome, late: bool) -> None:
        rollout = self.known if late else self.registry.rollouts.active("m")
        if rollout is None:
            return
        measured = Measurement(guard=GUARD.name, n_challenger=50, value=0.0)
        check = Check(
            at=self.now, step=rollout.state.step, outcome=outcome, requests=50,
            measurements=(measured,), verdicts=(),
        )  # fmt: skip
        transition = step(rollout, check, self.now)
        if transition is not None:
            self.registry.rollouts.advance(
                rollout, transition, actor="a test", evidence={}, now=self.now
            )

    def _command(self, what: Command) -> None:
        self.registry.rollouts.command("m", what, now=self.now, **WHO)

    def _rollback(self, to: int | None) -> None:
        self.registry.rollback("m", to, now=self.now, **WHO)

    def _promote(self, version: int) -> None:
        self.causes += 1
        generation = self.registry.route("m").generation
        self.registry.promote(
            "m", version, expected_generation=generation, evidence={}, now=self.now,
            cause=f"promote {self.causes}", **WHO,
        )  # fmt: skip

    def _wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)


def holds(registry: Registry, before: Route, last: list[Rollout]) -> None:
    """What must be true after every deed. ``last`` are the rollouts before it."""
    route, rollouts = registry.route("m"), registry.rollouts.last("m", 100)
    decisions = registry.decisions("m", 1000)
    assert replayed("m", decisions) == route
    assert sum(arm.weight for arm in route.arms) == 100
    assert route.champion in {arm.version for arm in route.arms}
    running = [rollout for rollout in rollouts if not rollout.ended]
    assert running == [r for r in [registry.rollouts.active("m")] if r is not None]
    assert len(running) <= 1
    if not running:
        assert (route.arms, route.shadow) == ((Arm(version=route.champion, weight=100),), ())
    else:
        assert running[0].champion == route.champion
        seen = {arm.version for arm in route.arms} | set(route.shadow)
        assert seen <= {running[0].version, running[0].champion}
        assert running[0].version not in registry.quarantined("m")
    assert route.champion not in registry.quarantined("m")
    ended = {r.id: r for r in last if r.ended}
    assert {r.id: r for r in rollouts if r.id in ended} == ended
    revisions = {r.id: r.revision for r in last}
    assert all(r.revision >= revisions.get(r.id, 0) for r in rollouts)
    if route.champion != before.champion:
        newest = next(entry for entry in decisions if entry.generation == route.generation)
        assert newest.action in ("promoted", "rolled back")


@settings(deadline=None, max_examples=50)
@given(deeds=st.lists(DEEDS, min_size=10, max_size=40))
def test_the_audit_replays_the_route_whoever_does_what_in_any_order(
    made: Path, deeds: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(made, Path(folder) / "registry.db")
        world = World(f"sqlite:///{copy}")
        for deed in deeds:
            before = world.registry.route("m"), world.registry.rollouts.last("m", 100)
            world.do(deed)
            holds(world.registry, *before)
        for entry in world.registry.decisions("m", 1000):
            event(entry.action)
        world.registry.close()
