"""The embedded stack as its users meet it: started, used, killed here and there, ended."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from perennial.cli.prefect_server import call, is_free
from perennial.cli.stack import state as states
from perennial.cli.stack.parts import SERVER, SERVING, WORKER
from perennial.cli.stack.processes import Process, marked
from perennial.cli.stack.state import StackState
from perennial.stores.project import Project
from tests.waiting import until
from tests.workplace import Workplace

ROW = {
    "at": "2024-05-01T06:00:00Z", "shop": "north", "temperature": 21.5, "weekday": 2,
    "promotion": True,
}  # fmt: skip
MISSING_FLOW = """\
name: own
deployments:
- name: mine
  entrypoint: somewhere.py:nothing
  work_pool: {name: perennial}
"""


@pytest.fixture
def stacked(project: Workplace) -> Iterator[Workplace]:
    """A project whose stack is down afterwards, whatever happened. The usual ports are taken."""
    del project.environment["PREFECT_HOME"]
    with ExitStack() as sockets:
        for port in (4200, 8080):
            other = sockets.enter_context(socket.socket())
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):  # then somebody else has it, which does as well
                other.bind(("127.0.0.1", port))
                other.listen()
        yield project
        down = project.cli("down")
        assert down.returncode == 0, down.stdout + down.stderr


def state_of(project: Workplace) -> StackState:
    found = states.read(Project(project.root))
    assert found is not None
    return found


def processes(project: Workplace) -> dict[str, Process]:
    found = {name: part.process for name, part in state_of(project).parts.items()}
    return {name: process for name, process in found.items() if process is not None}


def up(project: Workplace) -> str:
    done = project.cli("up", "-d")
    assert done.returncode == 0, done.stdout + done.stderr
    assert state_of(project).healthy
    return done.stdout


def train(project: Workplace, printed: str, meanwhile: Callable[[], None]) -> None:
    """As the last lines of ``up`` say; ``meanwhile`` is called when the flow runs."""
    found = re.search(r"PREFECT_API_URL=(\S+) prefect (deployment run) (\S+)", printed)
    assert found is not None, printed
    run = subprocess.Popen(
        [sys.executable, "-m", "prefect", *found[2].split(), found[3], "--watch"],
        env={**project.environment, "PREFECT_API_URL": found[1]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until(lambda: [r["state_type"] for r in runs(found[1])] == ["RUNNING"])
    meanwhile()
    said, _ = run.communicate(timeout=240)
    assert run.returncode == 0, said
    assert [r["state_type"] for r in runs(found[1])] == ["COMPLETED"]


def databases_open(server: Process) -> list[str]:
    """What a Prefect server has open of its SQLite file just now."""
    found = []
    for descriptor in Path(f"/proc/{server.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return [path for path in found if Path(path).name.startswith("prefect.db")]


def runs(api: str) -> list[dict[str, Any]]:
    """Runs that have begun; those of the schedule are yet to come."""
    begun = {"flow_runs": {"start_time": {"is_null_": False}}}
    found: list[dict[str, Any]] = call("POST", f"{api}/flow_runs/filter", begun, seconds=120)
    return found


def answers(url: str) -> bool:
    """Whether a prediction is made; it takes a moment to load a version."""
    found = httpx.post(url, json=ROW, timeout=120)
    return found.status_code == 200 and found.json()["version"] == 1


def kill(project: Workplace, name: str) -> None:
    """Kill a part, and see that it alone is another one after ``up``."""
    before = processes(project)
    before[name].send(signal.SIGKILL)
    until(lambda: processes(project).get(name) != before[name])
    up(project)
    after = processes(project)
    assert {n for n in after if after[n] != before[n]} == {name}


def nothing_left(project: Workplace, before: StackState) -> None:
    place = Project(project.root)
    assert marked(place.home) == []
    assert not any(p.process.alive for p in before.parts.values() if p.process is not None)
    assert not before.supervisor.alive
    assert all(is_free(part.port) for part in before.parts.values() if part.port is not None)
    assert states.read(place) is None


def test_the_stack_trains_serves_survives_and_ends(stacked: Workplace) -> None:
    printed = up(stacked)
    begun = state_of(stacked)
    prefect_url, serving_url = begun.url(SERVER), begun.url(SERVING)
    assert prefect_url is not None
    assert serving_url is not None
    assert prefect_url in printed
    assert serving_url in printed
    assert {begun.parts[SERVER].port, begun.parts[SERVING].port}.isdisjoint({4200, 8080})
    assert "Prefect server: port 4200 is taken, so another" in printed
    assert "automations: as declared; alerts go nowhere yet" in printed
    page = httpx.get(f"{prefect_url}/ui-settings", timeout=120).json()
    assert page["api_url"] == f"{prefect_url}/api"  # or the page would ask at the usual port

    again = up(stacked)
    assert "it runs already" in again
    assert processes(stacked) == {n: p.process for n, p in begun.parts.items()}

    # A run goes on to its end without the worker that started it.
    train(stacked, printed, lambda: kill(stacked, WORKER))
    predict = f"{serving_url}/models/demand/predict"
    until(lambda: answers(predict))
    # A connection that is kept stops the server for a minute: perennial/cli/prefect_database.py.
    until(lambda: not databases_open(processes(stacked)[SERVER]))

    kill(stacked, SERVER)
    kill(stacked, SERVING)
    until(lambda: answers(predict))

    before, supervisor = processes(stacked), state_of(stacked).supervisor
    supervisor.send(signal.SIGKILL)
    before[SERVING].send(signal.SIGKILL)
    until(lambda: not supervisor.alive and not before[SERVING].alive)
    up(stacked)
    after = processes(stacked)
    assert {n for n in after if after[n] != before[n]} == {SERVING}
    assert state_of(stacked).supervisor != supervisor
    assert [p.port for p in state_of(stacked).parts.values()] == [
        p.port for p in begun.parts.values()
    ]

    ending = state_of(stacked)
    down = stacked.cli("down")
    assert (down.returncode, down.stdout) == (0, "stopping\nstopped\n")
    nothing_left(stacked, ending)


def test_what_cannot_be_deployed_is_told_and_ctrl_c_ends_a_stack(stacked: Workplace) -> None:
    place = Project(stacked.root)
    declared = stacked.root / "prefect.yaml"
    declared.write_text(MISSING_FLOW)
    failed = stacked.cli("up")
    assert failed.returncode == 1, failed.stdout
    log = place.home / "logs" / "deploy.log"
    assert f"prefect deploy --all failed; see {log}\n" in failed.stderr
    assert "somewhere.py" in failed.stderr
    assert marked(place.home) == []
    assert states.read(place) is None

    declared.unlink()
    foreground = subprocess.Popen(
        [sys.executable, "-m", "perennial", "up"],
        cwd=stacked.root,
        env=stacked.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    printed = ""
    assert foreground.stdout is not None
    for line in foreground.stdout:
        printed += line
        if "Ctrl-C ends it" in line:
            break
    running = states.read(place)
    assert running is not None, printed
    assert running.healthy
    os.killpg(foreground.pid, signal.SIGINT)
    rest, _ = foreground.communicate(timeout=240)
    assert foreground.returncode == 0, printed + rest
    assert rest.splitlines()[-2:] == ["stopping", "stopped"]
    nothing_left(stacked, running)
