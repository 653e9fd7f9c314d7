"""Telling processes apart, with real ones."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from perennial.cli.stack.processes import (
    Process,
    end,
    find,
    hidden,
    mark,
    marked,
    values_of,
    wait,
)

STUBBORN = (
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
)
PARENT = "import subprocess; subprocess.run(['sleep', '60'])"


@contextmanager
def running(*command: str, home: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, **(mark(home, "worker") if home else {})}
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def found(child: subprocess.Popen[bytes]) -> Process:
    process = find(child.pid)
    assert process is not None
    return process


def test_a_process_is_itself_until_it_ends() -> None:
    with running("sleep", "60") as child:
        process = found(child)
        assert process == found(child)
        assert process.alive
        child.kill()
        assert wait([process], 5.0) == []  # a zombie, since nobody has asked for its exit code yet
        assert not process.alive
        assert find(child.pid) is None


def test_a_halted_process_hears_that_it_is_to_end() -> None:
    with running("sleep", "60") as child:
        process = found(child)
        process.send(signal.SIGSTOP)
        assert end([process], signal.SIGTERM, 5.0) == []
        assert child.wait() == -signal.SIGTERM


def test_a_variable_is_known_of_living_processes_only(tmp_path: Path) -> None:
    value = str(tmp_path)
    with running("env", f"OF_THIS_TEST={value}", "sleep", "60") as child:
        deadline = time.monotonic() + 60
        while value not in values_of("OF_THIS_TEST"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.kill()
        child.wait()
        assert value not in values_of("OF_THIS_TEST")


def test_another_users_process_lives_though_its_environment_is_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running("sleep", "60") as child:
        assert not hidden(child.pid)
        monkeypatch.setattr(Path, "read_bytes", refuse)
        assert hidden(child.pid)
        child.kill()
        child.wait()
        assert not hidden(child.pid)


def refuse(path: Path) -> bytes:
    raise PermissionError(path)


def test_a_process_whose_number_is_used_again_is_not_signalled() -> None:
    with running("sleep", "60") as child:
        earlier = found(child).model_copy(update={"started": "another boot/1"})
        assert not earlier.alive
        earlier.send(signal.SIGKILL)
        assert end([earlier], signal.SIGKILL, 0.0) == []
        time.sleep(0.1)
        assert child.poll() is None


def test_a_process_may_have_any_name(tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 (b"
    shutil.copy(shutil.which("sleep") or "", odd)
    with running(str(odd), "60") as child:
        assert found(child).alive


def test_marked_processes_are_found_with_their_children_and_no_others(tmp_path: Path) -> None:
    home = tmp_path / "a" / ".perennial"
    with (
        running(sys.executable, "-c", PARENT, home=home) as parent,
        running("sleep", "60", home=tmp_path / "b" / ".perennial"),
        running("sleep", "60"),
    ):
        deadline = time.monotonic() + 240
        while len(seen := marked(home)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        leader, child = sorted(seen, key=lambda one: not one.leads)
        assert (leader.process, leader.leads) == (found(parent), True)
        assert (child.parent, child.leads) == (parent.pid, False)
        assert {one.part for one in seen} == {"worker"}


def test_who_does_not_end_when_asked_is_killed_and_named() -> None:
    with running(sys.executable, "-c", STUBBORN) as stubborn, running("sleep", "60") as other:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        killed = end([found(stubborn), found(other)], signal.SIGTERM, 0.3)
        assert [process.pid for process in killed] == [stubborn.pid]
        assert stubborn.wait(240) == -signal.SIGKILL
        assert other.wait(240) == -signal.SIGTERM
