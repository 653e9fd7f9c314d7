"""Rollouts that are watched by real runs: killed at every step, twice at once, and left alone by
the servers they need."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from perennial.cli.prefect_server import (
    api_url,
    free_port,
    healthy,
    server_command,
    server_environment,
)
from perennial.contracts.rollouts import Rollout
from perennial.contracts.routes import Arm
from perennial.stores.registry.replay import replayed
from tasks.rollout import MOST_DEATHS, RolloutOrder
from tests.rolling import CANARY, MODEL, Rolling, rolling
from tests.waiting import until
from tests.workplace import environment_of

_DYING = """
import os, signal, sys
from importlib import import_module

place, name, when, parameters = sys.argv[1:]
module, _, owner = place.partition(":")
owner = getattr(import_module(module), owner) if owner else import_module(module)
original = getattr(owner, name)

def die(*arguments):
    # Of the looks those that change a step; of all else the first.
    if name != "advance" or arguments[2].route is not None:
        os.kill(os.getpid(), signal.SIGKILL)

def dying(*arguments, **options):
    if when == "before":
        die(*arguments)
    result = original(*arguments, **options)
    die(*arguments)
    return result

setattr(owner, name, dying)
from flows.__main__ import main
sys.exit(main("rollout", parameters))
"""
_IMPATIENT = """
import sys
from perennial.stores.registry import engine
engine._BUSY_SECONDS = 1
from flows.__main__ import main
sys.exit(main("rollout", sys.argv[1]))
"""
_ROLLOUTS = "perennial.stores.registry.rollouts:Rollouts"


@pytest.fixture
def place(tmp_path: Path, own_prefect_server: str) -> Iterator[Rolling]:
    found = rolling(tmp_path, _environment(tmp_path, own_prefect_server))
    found.versions(3)
    with temporary_settings({PREFECT_API_URL: own_prefect_server}):
        yield found


def _environment(root: Path, api: str) -> dict[str, str]:
    return {
        **environment_of(root),
        "PREFECT_API_URL": api,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }


def program(place: Rolling, text: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        cwd=place.root,
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> list[Rollout]:
    """The rollouts that a run watched to their ends."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    printed = json.loads(out.strip().splitlines()[-1])
    return [Rollout.model_validate(one) for one in printed["rollouts"]]


def active(place: Rolling, model: str = MODEL) -> Rollout:
    found = place.registry.rollouts.active(model)
    assert found is not None
    return found


def audit(place: Rolling, model: str = MODEL) -> list[tuple[str, int | None, int | None]]:
    """Action, version and generation of all decisions but registrations, oldest first."""
    entries = place.registry.decisions(model)
    told = [(e.action, e.version, e.generation) for e in entries if e.action != "registered"]
    assert replayed(model, entries) == place.registry.route(model)
    return told[::-1]


def events(place: Rolling, model: str = MODEL) -> list[dict[str, Any]]:
    """What was told of a model's rollouts, oldest first."""
    asked = {"filter": {"resource": {"id": [f"perennial.model.{model}"]}}, "limit": 50}
    found = place.ask("events/filter", asked)["events"]
    told = [e for e in found if e["event"].startswith("perennial.rollout.")]
    ours = [e for e in told if e["payload"]["rollout"] in {r.id for r in rollouts(place, model)}]
    since = min((r.started_at for r in rollouts(place, model)), default=datetime.now(UTC))
    return sorted(
        (e for e in ours if datetime.fromisoformat(e["occurred"]) >= since),
        key=lambda event: event["occurred"],
    )


def rollouts(place: Rolling, model: str = MODEL) -> list[Rollout]:
    return place.registry.rollouts.last(model)


def run_of(place: Rolling, process: subprocess.Popen[str], since: datetime) -> str:
    """The id of the flow run in a process that was started since, once the server knows it."""
    asked = {
        "flows": {"name": {"any_": ["rollout"]}},
        "flow_runs": {"start_time": {"after_": since.isoformat()}},
    }
    found: list[str] = []

    def known() -> bool:
        assert process.poll() is None
        found[:] = [run["id"] for run in place.ask("flow_runs/filter", asked)]
        return bool(found)

    until(known)
    return found[0]


PROMOTED = [
    ("promoted", 1, 1),
    ("rollout began", 2, 2),
    ("step began", 2, 3),
    ("promoted", 2, 4),
]


def test_a_rollout_goes_on_wherever_its_run_was_killed(place: Rolling) -> None:
    begin, resume = json.dumps({"model": MODEL, "version": 2}), json.dumps({"model": MODEL})
    told = "tasks.rollout", "emit"
    deaths = [
        (_ROLLOUTS, "begin", "before", begin, 0),
        (_ROLLOUTS, "begin", "after", begin, 1),
        (_ROLLOUTS, "advance", "before", resume, 1),
        (_ROLLOUTS, "advance", "after", resume, 2),
        (_ROLLOUTS, "advance", "before", resume, 2),
        (_ROLLOUTS, "advance", "after", resume, 3),
        (*told, "before", resume, 3),
        (*told, "after", resume, 3),
    ]
    with place.traffic():
        for owner, name, when, parameters, changes in deaths:
            process = program(place, _DYING, owner, name, when, parameters)
            _, err = process.communicate(timeout=300)
            assert process.returncode == -signal.SIGKILL, err
            assert audit(place) == PROMOTED[: 1 + changes]
        (last,) = ended(place.start("rollout", model=MODEL))
    assert last.state.phase == "promoted"
    assert audit(place) == PROMOTED
    assert place.registry.route(MODEL).arms == (Arm(version=2, weight=100),)
    assert len(rollouts(place)) == 1
    until(lambda: len(events(place)) == 1)
    (event,) = events(place)
    assert event["event"] == "perennial.rollout.promoted"
    assert event["payload"]["version"] == event["payload"]["champion"] == 2


def test_two_runs_at_once_are_as_one(place: Rolling) -> None:
    place.edit("bake: 1s", "bake: 4s")
    both = [place.start("rollout", model=MODEL, version=2)]
    until(lambda: bool(rollouts(place)))
    both.append(place.start("rollout", model=MODEL))
    with place.traffic():
        found = [ended(process) for process in both]
    assert found[0] == found[1] == rollouts(place)
    assert audit(place) == PROMOTED
    (rollout,) = found[0]
    lasted = rollout.ended_at - rollout.started_at  # type: ignore[operator]
    assert rollout.revision <= lasted.total_seconds() / 0.9 + 4  # looks of both together
    assert len(events(place)) == 1


def test_two_models_roll_out_at_the_same_moment_and_each_ends_by_its_own_requests(
    place: Rolling,
) -> None:
    good, bad = MODEL, "returns"
    place.of(bad)
    place.versions(2, bad)
    runs = [place.start("rollout", model=model, version=2) for model in (good, bad)]
    until(lambda: all(rollouts(place, model) for model in (good, bad)))
    assert {active(place, model).version for model in (good, bad)} == {2}
    place.answered(30, 1, "champion", bad)
    with place.traffic(model=good):
        place.failed(60, 2, "challenger", bad)
        ends = {one.model: one for process in runs for one in ended(process)}
    assert {model: one.state.phase for model, one in ends.items()} == {
        good: "promoted", bad: "rolled back",
    }  # fmt: skip
    assert audit(place, good) == PROMOTED
    assert audit(place, bad) == [
        *PROMOTED[:2],
        ("rolled back", 2, 3),
        ("quarantined", 2, None),
    ]
    assert place.registry.route(good).arms == (Arm(version=2, weight=100),)
    assert place.registry.route(bad).arms == (Arm(version=1, weight=100),)
    for model, name in ((good, "promoted"), (bad, "rolled-back")):
        until(lambda model=model: len(events(place, model)) == 1)
        assert events(place, model)[0]["event"] == f"perennial.rollout.{name}"


def test_all_requests_are_back_within_five_seconds_of_the_evidence(place: Rolling) -> None:
    process = place.start("rollout", model=MODEL, version=2, reason="is it good?")
    until(lambda: bool(rollouts(place)) and rollouts(place)[0].state.last is not None)
    place.failed(60, 2, "challenger")
    seen = datetime.now(UTC)
    (rollout,) = ended(process)
    assert rollout.state.phase == "rolled back"
    began, back, quarantined = place.registry.decisions(MODEL)[2::-1]
    assert [began.action, back.action, quarantined.action] == [
        "rollout began", "rolled back", "quarantined",
    ]  # fmt: skip
    assert (back.at - seen).total_seconds() < 5
    assert back.evidence["check"]["measurements"][0]["n_challenger"] == 60
    assert place.registry.route(MODEL).arms == (Arm(version=1, weight=100),)
    until(lambda: bool(events(place)))
    (event,) = events(place)
    assert event["event"] == "perennial.rollout.rolled-back"
    assert event["payload"]["reason"] == back.reason == rollout.state.reason
    assert event["payload"]["evidence"]["error_rate"] == 1.0
    assert event["resource"]["perennial.cause"] == event["payload"]["cause"]
    assert "demand@2" in Path(event["payload"]["report"]).read_text()


def test_people_give_orders_to_the_run_that_watches(place: Rolling) -> None:
    place.edit("bake: 1s", "bake: 1h")
    place.edit("timeout: 1h", "timeout: 2h, approval: true")
    since = datetime.now(UTC)
    process = place.start("rollout", model=MODEL, version=2)
    run = run_of(place, process, since)

    def order(command: str, **more: str) -> None:
        RolloutOrder(command=command, reason=f"{command} it", **more).send_to(run)  # type: ignore[arg-type]

    def entry(action: str) -> Any:
        until(lambda: place.registry.decisions(MODEL)[0].action == action)
        return place.registry.decisions(MODEL)[0]

    until(lambda: bool(rollouts(place)) and active(place).state.phase == "waiting")
    assert place.registry.route(MODEL).generation == 1
    order("resume")  # makes no sense: is left undone, and what follows is done
    order("approve", by="Ada")
    approved = entry("approved")
    assert (approved.actor, approved.reason) == ("Ada", "approve it; step 1 of 2 (canary of 20 %)")
    order("pause")
    assert entry("paused").actor == f"input of flow run {run}"
    order("resume")
    assert entry("resumed").reason == "resume it"
    order("promote", by="Ada")
    (rollout,) = ended(process)
    assert rollout.state.phase == "promoted"
    assert place.registry.decisions(MODEL)[0].reason == "promote it"
    all_of_it = {"prefix": "", "limit": 10, "exclude_keys": []}
    assert place.ask(f"flow_runs/{run}/input/filter", all_of_it) == []


def test_a_registry_that_does_not_answer_is_waited_for(place: Rolling) -> None:
    with place.traffic():
        process = program(place, _IMPATIENT, json.dumps({"model": MODEL, "version": 2}))
        until(lambda: bool(rollouts(place)))
        lock = sqlite3.connect(place.root / ".perennial" / "registry.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        time.sleep(6)
        assert process.poll() is None
        lock.rollback()
        (rollout,) = ended(process)
    assert rollout.state.phase == "promoted"
    assert audit(place) == PROMOTED


def test_after_too_many_deaths_the_rollout_is_aborted_and_then_left_to_people(
    place: Rolling,
) -> None:
    assert ended(place.start("rollout", model=MODEL)) == []
    place.edit("bake: 1s", "bake: 30m")
    place.of("undeployed")  # the model itself may be, by another test
    place.versions(2, "undeployed")
    begun = place.command("rollout", "undeployed@2", "--steps", "50,100", "--detach")
    assert begun.returncode == 2  # no worker to watch it, and so nothing was begun
    assert "has no such deployment" in begun.stderr
    assert rollouts(place, "undeployed") == []
    process = place.start("rollout", model=MODEL, version=2)
    until(lambda: bool(rollouts(place)))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert ended(place.start("rollout", model=MODEL, deaths=MOST_DEATHS + 2)) == []
    assert active(place).state.phase == "running"
    # A death that is told of late, when another run has looked since, does not count.
    late = {"deaths": MOST_DEATHS + 1, "died": str(datetime.now(UTC) - timedelta(minutes=15))}
    since = datetime.now(UTC)
    process = place.start("rollout", model=MODEL, **late)
    run = run_of(place, process, since)
    looked = active(place).revision
    until(lambda: active(place).revision > looked)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # The next death is the first in a row again: the automation adds one to these.
    parameters = place.ask(f"flow_runs/{run}")["parameters"]
    assert (parameters["model"], parameters["deaths"], parameters["died"]) == (MODEL, 0, None)
    just_now = {"deaths": MOST_DEATHS + 1, "died": str(datetime.now(UTC))}
    (rollout,) = ended(place.start("rollout", model=MODEL, **just_now))
    assert rollout.state.phase == "aborted"
    assert rollout.state.reason == "6 runs in a row died while they watched it"
    assert place.registry.route(MODEL).arms == (Arm(version=1, weight=100),)
    until(lambda: bool(events(place)))
    assert [e["event"] for e in events(place)] == ["perennial.rollout.rolled-back"]


def test_a_newer_version_takes_the_place_of_one_being_rolled_out_under_the_same_run(
    place: Rolling,
) -> None:
    place.edit("bake: 1s", "bake: 5s")
    process = place.start("rollout", model=MODEL, version=2)
    until(lambda: bool(rollouts(place)))
    newer = place.start("rollout", model=MODEL, version=3, reason="it is newer")
    until(lambda: len(rollouts(place)) == 2)
    newer.send_signal(signal.SIGKILL)
    newer.communicate()
    with place.traffic(versions=(1, 3)):
        first, second = ended(process)
    assert (first.version, first.state.phase) == (2, "superseded")
    assert (second.version, second.state.phase) == (3, "promoted")
    assert place.registry.route(MODEL).champion == 3


@contextmanager
def server_at(port: int, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Prefect server that can be killed, and started again with what it knew."""
    home.mkdir(exist_ok=True)
    with (home / "server.log").open("ab") as log:
        server = subprocess.Popen(
            server_command(port),
            env=server_environment(os.environ, home, port),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: healthy(api_url(port)))
        yield server
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_rollout_is_watched_while_prefect_is_away_and_told_of_afterwards(tmp_path: Path) -> None:
    port = free_port()
    place = rolling(tmp_path, _environment(tmp_path, api_url(port)), CANARY)
    place.versions(2)
    with server_at(port, tmp_path / "server"):
        process = place.start("rollout", model=MODEL, version=2)
        until(lambda: bool(rollouts(place)) and active(place).state.last is not None)
    with place.traffic():
        until(lambda: active(place).state.step == 1)
    place.failed(60, 2, "challenger")
    until(lambda: rollouts(place)[0].ended)
    assert rollouts(place)[0].state.phase == "rolled back"
    assert place.registry.route(MODEL).arms == (Arm(version=1, weight=100),)
    with server_at(port, tmp_path / "server"):
        process.communicate(timeout=300)  # whether it could tell its server how it ended, or not
        (again,) = ended(place.start("rollout", model=MODEL))
        assert again == rollouts(place)[0]
        until(lambda: bool(events(place)))
        assert [e["event"] for e in events(place)] == ["perennial.rollout.rolled-back"]
