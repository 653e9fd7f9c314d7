"""A rollout goes on whatever becomes of the stack that its runs are at."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from perennial.cli.prefect_server import api_url, call
from perennial.cli.stack import state as states
from perennial.cli.stack.parts import SERVER
from perennial.cli.stack.processes import end, find, marked
from perennial.cli.stack.state import StackState
from perennial.stores.rolling_out import begin
from tests.rolling import CANARY, MODEL, Rolling, rolling
from tests.waiting import until
from tests.workplace import environment_of


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Rolling]:
    """A project whose stack is down afterwards, whatever happened."""
    environment = environment_of(tmp_path)
    del environment["PREFECT_HOME"]
    found = rolling(tmp_path, environment, CANARY.replace("bake: 1s", "bake: 30m"))
    found.versions(2)
    yield found
    down(found)


def up(place: Rolling) -> str:
    """Start the stack. Returns the address of its Prefect API."""
    done = place.cli("up", "-d", "--port", "0", "--serve-port", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    return api_url(state(place).parts[SERVER].port or 0)


def down(place: Rolling) -> None:
    done = place.cli("down")
    assert done.returncode == 0, done.stdout + done.stderr


def state(place: Rolling) -> StackState:
    found = states.read(place.project)
    assert found is not None
    return found


def runs(api: str) -> list[dict[str, Any]]:
    """Those of the flow ``rollout``, in the order they were created."""
    asked = {"flows": {"name": {"any_": ["rollout"]}}}
    found = call("POST", f"{api}/flow_runs/filter", asked, seconds=120)
    return sorted(found, key=lambda run: run["created"])


def looks_go_on(place: Rolling) -> None:
    (rollout,) = place.registry.rollouts.last(MODEL)
    until(lambda: place.registry.rollouts.one(rollout.id).revision > rollout.revision + 1)


def test_a_rollout_outlasts_down_and_a_server_that_was_killed_and_a_loss_of_power(
    place: Rolling,
) -> None:
    api = up(place)
    begin(
        place.project, place.registry, MODEL, 2, {}, actor="tests", reason="better",
        cause="judged", force=False, now=datetime.now(UTC),
    )  # fmt: skip
    deployment = call("GET", f"{api}/deployments/name/rollout/{MODEL}")
    call("POST", f"{api}/deployments/{deployment['id']}/create_flow_run", {})
    looks_go_on(place)

    down(place)
    api = up(place)
    first = runs(api)[0]["state"]
    assert (first["type"], first["message"]) == (
        "CRASHED",
        "Execution was aborted by a termination signal.",  # it said so itself
    )
    looks_go_on(place)
    assert [run["state_type"] for run in runs(api)] == ["CRASHED", "RUNNING"]
    assert runs(api)[1]["parameters"]["deaths"] == 1

    # A server that was started again holds an event back whose run it doesn't know: 15 minutes.
    server = state(place).parts[SERVER].process
    assert server is not None
    server.send(signal.SIGKILL)
    until(lambda: state(place).parts[SERVER].restarts == 1 and state(place).healthy)
    pid = int(str(runs(api)[1]["infrastructure_pid"]).rpartition(":")[2])
    os.kill(pid, signal.SIGKILL)
    until(lambda: find(pid) is None)
    looks_go_on(place)
    until(lambda: [r["state_type"] for r in runs(api)] == ["CRASHED", "CRASHED", "RUNNING"])
    assert runs(api)[2]["parameters"] == {"model": MODEL}
    log = (place.project.home / "logs" / "stack.log").read_text()
    assert f"rollout of {MODEL}@2: nobody watches it, a run is started" in log

    # As by a machine that lost its power: nobody is left to say what became of the run.
    end([one.process for one in marked(place.project.home)], signal.SIGKILL, 0.0)
    api = up(place)
    third = runs(api)[2]["state"]
    assert (third["type"], third["message"]) == (
        "CRASHED",
        "Its process is gone, and so is the worker that would have said so.",
    )
