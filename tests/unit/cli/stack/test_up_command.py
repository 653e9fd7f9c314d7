"""What perennial up and down say before anything is started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perennial.cli.stack import state as states
from perennial.cli.stack.processes import find, mark
from perennial.cli.stack.state import PartState, StackState
from perennial.stores.project import Project
from tests.workplace import Workplace


@pytest.fixture
def declared(project: Workplace) -> Workplace:
    """A project with a prefect.yaml."""
    assert project.command("check", "demand", "--write").returncode == 0
    return project


@contextmanager
def sleeping(*marks: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, **{k: v for one in marks for k, v in one.items()}}
    child = subprocess.Popen(
        ["sleep", "60"],
        env=environment,
        start_new_session=True,
        # Tests that run in the background of a shell ignore it, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # one thread
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def test_a_project_without_models_is_told_how_to_make_one(tmp_path: Path) -> None:
    empty = Workplace(tmp_path, {**os.environ, "PERENNIAL_PROJECT": str(tmp_path)})
    found = empty.command("up")
    assert found.returncode == 2
    assert found.stderr == (
        f"{tmp_path}/models: no models here "
        "(perennial init makes one; --project names another place)\n"
    )
    assert not (tmp_path / "prefect.yaml").exists()


def test_a_prefect_yaml_that_is_not_yaml_is_told_with_its_line(declared: Workplace) -> None:
    path = declared.root / "prefect.yaml"
    path.write_text(path.read_text() + "deployments: [\n")
    found = declared.command("up", "-d")
    assert found.returncode == 2
    assert found.stderr.startswith(f"{path}, line ")
    assert "not YAML: " in found.stderr
    assert found.stderr.endswith("(perennial check --write writes it anew)\n")
    assert states.read(Project(declared.root)) is None


def test_a_prefect_yaml_behind_its_models_is_told(declared: Workplace) -> None:
    declared.edit('retrain: {schedule: "0 6 * * 1"}', 'retrain: {schedule: "0 7 * * 1"}')
    found = declared.command("up")
    assert found.returncode == 2
    assert found.stderr == (
        f"{declared.root}/prefect.yaml: differs from what the models say "
        "(perennial check --write writes it)\n"
    )


@pytest.mark.parametrize("option", ["--port", "--serve-port"])
def test_a_port_that_was_asked_for_and_is_taken_is_told(declared: Workplace, option: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        found = declared.command("up", "-d", option, str(port))
    assert found.returncode == 2
    assert found.stdout.endswith(
        f"{option}: port {port} is taken by another program "
        "(name another, or none: then a free one is taken)\n"
    )
    assert states.read(Project(declared.root)) is None


def test_down_where_nothing_runs_says_so(project: Workplace) -> None:
    found = project.command("down")
    assert (found.returncode, found.stdout) == (0, "nothing was running\n")


def test_down_ends_what_has_the_mark_and_nobody_who_has_an_old_number(project: Workplace) -> None:
    home = Project(project.root).home
    with sleeping() as stranger, sleeping(mark(home, "worker")) as ours:
        process = find(stranger.pid)
        assert process is not None
        before = process.model_copy(update={"started": "another boot/1"})
        part = PartState(process=before, port=4200, at=datetime.now(UTC), status="running")
        state = StackState(supervisor=before, settled=True, parts={"server": part})
        states.write(Project(project.root), state)
        found = project.command("down")
        assert (found.returncode, found.stdout) == (0, "stopped\n")
        assert ours.wait(240) == -signal.SIGINT
        time.sleep(0.1)
        assert stranger.poll() is None
    assert states.read(Project(project.root)) is None


def test_a_part_that_does_not_end_in_time_is_killed_and_named(
    project: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perennial.cli.stack.parts.Serving.stop_seconds", 0.3)
    stubborn = "trap '' TERM; echo; while true; do sleep 1; done"
    child = subprocess.Popen(
        ["sh", "-c", stubborn],
        env={**os.environ, **mark(Project(project.root).home, "serving")},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        found = project.command("down")
        assert found.returncode == 0, found.stderr
        assert found.stdout == "serving: did not end within 0 s, killed\nstopped\n"
        assert child.wait(240) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
