"""Beginning a rollout and looking at it, over a real registry and a real log."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from perennial.contracts.errors import InputError
from perennial.contracts.rollouts import Command, Rollout
from perennial.contracts.routes import Arm
from perennial.decisions.plans import plan_of
from perennial.reports.rollout_progress import step_state
from perennial.stores.registry import Registry
from perennial.stores.rolling_out import at_work_since, begin, look, spec_of, with_settings
from perennial.stores.rollout_pages import tell
from tests.rolling import CANARY, MODEL, Rolling, rolling
from tests.watched import MODEL as PARCELS
from tests.watched import make_watched

SECOND = timedelta(seconds=1)


@pytest.fixture
def place(tmp_path: Path) -> Rolling:
    found = rolling(tmp_path, {})
    found.versions(3)
    return found


def started(place: Rolling, version: int = 2, **changed: Any) -> Rollout:
    settings: Mapping[str, Any] = changed.pop("settings", {})
    now = datetime.now(UTC)
    values = {
        "actor": "tests",
        "reason": "better",
        "cause": f"{version} {now}",
        "force": False,
        "now": now,
    }
    return begin(place.project, place.registry, MODEL, version, settings, **{**values, **changed})


def looked(place: Rolling, rollout: Rollout, seconds: float) -> Rollout:
    """A look so long after the present step began."""
    spec = place.project.load_model(MODEL)[1]
    now = rollout.state.entered_at + seconds * SECOND
    return look(place.project, place.registry, spec, rollout, actor="tests", now=now)


def served(place: Rolling, rollout: Rollout, rows: int = 20) -> None:
    at = rollout.state.entered_at + SECOND / 10
    place.answered(rows, 1, "champion", at=at)
    place.answered(rows, rollout.version, "challenger", at=at)


def test_a_version_earns_its_requests_step_by_step(place: Rolling) -> None:
    rollout = started(place)
    assert place.registry.route(MODEL).arms == (
        Arm(version=1, weight=80),
        Arm(version=2, weight=20),
    )
    assert looked(place, rollout, 2).state.last.outcome == "inconclusive"  # type: ignore[union-attr]
    served(place, rollout)
    rollout = looked(place, rollout, 4)
    assert (rollout.state.phase, rollout.state.step) == ("running", 1)
    assert place.registry.route(MODEL).champion == 1
    served(place, rollout)
    rollout = looked(place, rollout, 2)
    assert rollout.state.phase == "promoted"
    assert place.registry.route(MODEL).arms == (Arm(version=2, weight=100),)
    assert looked(place, rollout, 9) == rollout


def test_a_version_that_fails_requests_is_rolled_back_and_quarantined(place: Rolling) -> None:
    rollout = started(place)
    place.failed(40, 2, "challenger", at=rollout.state.entered_at + SECOND / 10)
    rollout = looked(place, rollout, 1)
    assert rollout.state.phase == "rolled back"
    assert place.registry.route(MODEL).arms == (Arm(version=1, weight=100),)
    assert set(place.registry.quarantined(MODEL)) == {2}
    with pytest.raises(InputError, match="quarantine"):
        started(place)
    assert started(place, force=True).state.phase == "running"


def test_a_paused_rollout_is_still_rolled_back_for_harm(place: Rolling) -> None:
    rollout, now = started(place), datetime.now(UTC)
    place.registry.rollouts.command(MODEL, "pause", actor="tests", reason="wait", now=now)
    assert looked(place, rollout, 5).state.phase == "paused"
    place.failed(40, 2, "challenger", at=rollout.state.entered_at + SECOND / 10)
    assert looked(place, rollout, 6).state.phase == "rolled back"


def test_what_cannot_be_measured_is_an_error_and_too_many_end_the_rollout(place: Rolling) -> None:
    rollout = started(place)
    place.answered(1, 2, "challenger", at=rollout.state.entered_at)
    log = place.project.folder("predictions", MODEL)
    for entry in (log / "_delta_log").iterdir():
        entry.write_text("damaged")
    for number in range(1, 5):
        rollout = looked(place, rollout, 2 * number)
        assert rollout.state.phase == "running"
        assert rollout.state.counts.errors_in_a_row == number
    rollout = looked(place, rollout, 10)
    assert rollout.state.phase == "rolled back"
    assert "could not be measured" in rollout.state.reason
    assert place.registry.quarantined(MODEL) == {}


def test_a_fault_of_the_measuring_itself_counts_as_an_error(place: Rolling) -> None:
    rollout = started(place)
    log = place.project.folder("predictions", MODEL)
    write_deltalake(str(log), pa.table({"_version": [1], "_time": ["never"]}))  # no table of ours
    rollout = looked(place, rollout, 2)
    assert rollout.state.last is not None
    assert rollout.state.last.outcome == "error"
    assert rollout.state.last.measurements[0].error


def test_two_who_watch_make_no_more_looks_than_one(place: Rolling) -> None:
    rollout = started(place)
    first = looked(place, rollout, 1)
    assert looked(place, rollout, 1.5) == first
    assert looked(place, rollout, 2).revision == first.revision + 1


def test_two_who_watch_what_is_paused_count_a_failed_check_once(place: Rolling) -> None:
    rollout = started(place, settings={"limits": {"failed": 2}})
    now = rollout.state.entered_at
    place.registry.rollouts.command(MODEL, "pause", actor="tests", reason="wait", now=now)
    place.failed(40, 2, "challenger", at=now + SECOND / 10)
    for number in (1, 2):
        for watcher in (0, 0.3):
            rollout = looked(place, rollout, number + watcher)
            assert (rollout.state.phase, rollout.state.counts.failed) == ("paused", number)
    assert looked(place, rollout, 3).state.phase == "rolled back"


def test_a_run_counts_as_watching_only_while_there_are_looks(place: Rolling) -> None:
    def since(minutes: float) -> timedelta | None:
        now = rollout.updated_at + timedelta(minutes=minutes)
        found = at_work_since(place.project, rollout, now)
        return None if found is None else now - found

    rollout = started(place)
    assert since(9) is None
    assert since(11) == timedelta(minutes=10)
    place.edit("check_every: 1s", "check_every: 5m")
    assert since(14) is None
    assert since(16) == timedelta(minutes=15)
    place.edit("check_every: 5m", "check_every: often")
    assert since(11) == timedelta(minutes=10)
    rollout = place.registry.rollouts.command(  # looks that find nothing are not written down
        MODEL, "pause", actor="tests", reason="wait", now=datetime.now(UTC)
    )
    assert since(11) is None


def test_of_looks_at_the_same_moment_one_counts(place: Rolling) -> None:
    rollout = started(place)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: looked(place, rollout, 1 + i / 1000), range(8)))
    last = place.registry.rollouts.one(rollout.id)
    assert last.state.counts.inconclusive == last.revision - rollout.revision == 1
    assert last in found


def test_settings_stand_in_for_those_of_model_yaml(place: Rolling) -> None:
    spec = place.project.load_model(MODEL)[1]
    given = with_settings(spec, {"strategy": "ab_test", "split": 30, "timeout": "3d", "guards": {
        "metric": {"name": "logloss", "max_loss": 0.1}}})  # fmt: skip
    assert (given.rollout.strategies, given.rollout.split) == (("ab_test",), 30)
    assert given.rollout.min_requests == 10
    assert with_settings(spec, {}) is spec
    with pytest.raises(InputError) as refused:
        with_settings(spec, {"steps": [50, 20], "bake": "soon"})
    assert "rollout.steps: steps rise and end at 100, not [50, 20]" in refused.value.message
    assert "rollout.bake" in refused.value.message
    assert "'soon' is not a duration" in refused.value.message


@pytest.mark.parametrize("approval", ["true", "[100]"])
@pytest.mark.parametrize(
    ("strategy", "shares", "waits"),
    [
        ("canary", (20, 100), {"true": (20, 100), "[100]": (100,)}),
        (["shadow", "canary"], (0, 20, 100), {"true": (20, 100), "[100]": (100,)}),
        ("blue_green", (100,), {"true": (100,), "[100]": (100,)}),
        (["shadow", "blue_green"], (0, 100), {"true": (100,), "[100]": (100,)}),
        ("ab_test", (50,), {"true": (50,), "[100]": (50,)}),
        ("shadow", (0,), {"true": (), "[100]": ()}),
    ],
)
def test_no_strategy_goes_past_the_person_who_approves(
    place: Rolling,
    approval: str,
    strategy: str | list[str],
    shares: tuple[int, ...],
    waits: dict[str, tuple[int, ...]],
) -> None:
    place.edit("steps: [20, 100]", f"steps: [20, 100], approval: {approval}")
    spec = place.project.load_model(MODEL)[1]
    guards = {"metric": {"name": "logloss", "max_loss": 0.1}}
    given = with_settings(spec, {"strategy": strategy, "timeout": "3d", "guards": guards})
    steps = plan_of(given.rollout).steps
    assert tuple(step.weight for step in steps) == shares
    assert tuple(step.weight for step in steps if step.approval) == waits[approval]


def test_a_split_stays_with_an_ab_test_and_goes_without(place: Rolling) -> None:
    place.edit("strategy: canary, steps: [20, 100]", "strategy: [ab_test, blue_green], split: 30")
    place.edit("guards: {", "guards: {metric: {name: logloss, max_loss: 0.1}, ")
    place.edit("timeout: 1h", "timeout: 3d")
    spec = place.project.load_model(MODEL)[1]
    assert with_settings(spec, {"strategy": ["ab_test"]}).rollout.split == 30
    canary = with_settings(spec, {"strategy": "canary"}).rollout
    assert "split" not in canary.model_fields_set
    with pytest.raises(InputError, match=r"rollout\.strategy"):
        with_settings(spec, {"strategy": 5})


@pytest.mark.parametrize("order", ["promote", "abort", "pause"])
def test_a_page_shows_nothing_of_a_step_that_nobody_approved(
    place: Rolling, order: Command
) -> None:
    place.edit("steps: [20, 100]", "steps: [20, 100], approval: true")
    rollout, now = started(place), datetime.now(UTC) + SECOND
    place.answered(20, 1, "champion")
    rollout = place.registry.rollouts.command(
        MODEL, order, actor="tests", reason="by hand", now=now
    )
    spec = place.project.load_model(MODEL)[1]
    story = tell(place.project, spec, place.registry, rollout, now + SECOND)
    assert len(story.history) == 2
    assert (story.looks, story.compared) == ((), ())


def test_a_version_promoted_by_a_look_has_done_all_of_its_steps(place: Rolling) -> None:
    place.edit("steps: [20, 100]", "steps: [100]")
    rollout = started(place)
    served(place, rollout)
    rollout = looked(place, rollout, 2)
    assert rollout.state.phase == "promoted"
    assert step_state(rollout, 0) == "done"


def test_a_plan_without_steps_promotes_at_once(place: Rolling) -> None:
    place.edit(CANARY, "")
    assert started(place).state.phase == "promoted"
    assert place.registry.route(MODEL).champion == 2


def test_beginning_twice_for_a_cause_is_beginning_once(place: Rolling) -> None:
    first = started(place, cause="this")
    assert started(place, cause="this") == first
    assert started(place, version=3).id != first.id
    assert place.registry.rollouts.one(first.id).state.phase == "superseded"


def test_a_model_yaml_that_is_being_edited_stops_nobody_from_watching(tmp_path: Path) -> None:
    watched = make_watched(tmp_path)
    version = Registry(watched.project.registry_url).version(PARCELS, 1).ref
    watched.edit("window: 7d", "window: 8d")
    assert spec_of(watched.project, version).drift.window.days == 8
    watched.edit("window: 8d", "window: 8 parsecs")
    assert spec_of(watched.project, version).drift.window.days == 7
