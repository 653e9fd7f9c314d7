"""The state file and its lock."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perennial.cli.stack import state as states
from perennial.cli.stack.processes import Process, current
from perennial.cli.stack.state import PartState, StackState
from perennial.stores.project import Project

HOLDER = """
import sys, time
from pathlib import Path
from perennial.cli.stack.state import lock
from perennial.stores.project import Project
with lock(Project(Path(sys.argv[1]))) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def a_state(**changes: object) -> StackState:
    part = PartState(
        process=Process(pid=4, started="boot/7"),
        port=4200,
        at=datetime(2026, 3, 1, 6, tzinfo=UTC),
        status="running",
    )
    parts = {"server": part, "worker": part.model_copy(update={"port": None, **changes})}
    return StackState(supervisor=current(), settled=True, parts=parts)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_what_is_written_is_read_again_and_can_be_removed_twice(project: Project) -> None:
    assert states.read(project) is None
    states.write(project, a_state())
    assert states.read(project) == a_state()
    states.remove(project)
    states.remove(project)
    assert states.read(project) is None


@pytest.mark.parametrize("text", ["", "{", "null", '{"parts": {}}', "\udcff"])
def test_a_damaged_state_is_as_good_as_none(project: Project, text: str) -> None:
    states.write(project, a_state())
    path = project.home / "stack.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert states.read(project) is None


@pytest.mark.parametrize("status", ["starting", "waiting"])
def test_a_stack_is_healthy_when_every_part_runs(status: str) -> None:
    assert a_state().healthy
    assert not a_state(status=status).healthy
    assert not a_state().model_copy(update={"settled": False}).healthy


def test_one_supervisor_at_a_time_until_it_is_killed(project: Project) -> None:
    command = [sys.executable, "-c", HOLDER, str(project.root)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert states.supervised(project)
        with states.lock(project) as mine:
            assert not mine
    finally:
        holder.kill()
        holder.wait()
    assert not states.supervised(project)
    with states.lock(project) as mine:
        assert mine
