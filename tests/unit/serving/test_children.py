"""Processes beside the server: whatever becomes of one, there is another."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from perennial.serving.children import Child

# Tells its id, a line each time it is started, and waits; SIGTERM stays held back.
_CHILD = """
import os, sys, time
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""


@contextmanager
def kept(place: Path) -> Iterator[Child]:
    child = Child("keeper", [sys.executable, "-c", _CHILD, str(place)])
    child.ensure()
    try:
        yield child
    finally:
        child.stop(0.1)


def started(place: Path, times: int, seconds: float = 240.0) -> Sequence[int]:
    """The ids of a child's processes, once there were so many."""
    deadline = time.monotonic() + seconds
    while True:
        ids = [int(line) for line in place.read_text().split()] if place.exists() else []
        if len(ids) >= times:
            return ids
        assert time.monotonic() < deadline, f"started {len(ids)} times"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def until(true: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_that_is_killed_is_started_again_and_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with kept(tmp_path / "ids"):
        for times in (1, 2):
            os.kill(started(tmp_path / "ids", times)[-1], signal.SIGKILL)
        last = started(tmp_path / "ids", 3)[-1]
    assert gone(last)
    told = [vars(record) for record in caplog.records if record.levelname == "ERROR"]
    assert [(t["child"], t["code"]) for t in told] == [("keeper", -signal.SIGKILL)] * 2


def test_one_that_does_not_end_is_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with kept(tmp_path / "ids") as child:
        (pid,) = started(tmp_path / "ids", 1)
        child.stop(0.2)
        until(lambda: gone(pid))
    assert [record.message for record in caplog.records] == ["process does not end and is killed"]


def test_one_that_can_not_be_started_is_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "program"
    child = Child("keeper", [str(program), str(tmp_path / "ids")])
    child.ensure()
    try:
        time.sleep(0.1)
        program.write_text(f"#!{sys.executable}\n{_CHILD}")
        program.chmod(0o755)
        started(tmp_path / "ids", 1)
    finally:
        child.stop(0.1)


def test_one_that_is_stopped_while_it_starts_still_finishes(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
Path({str(tmp_path / "started")!r}).touch()
time.sleep(1)  # what it imports
from perennial.serving.children import listen_to_stop
Path({str(tmp_path / "finished")!r}).write_text(str(listen_to_stop().wait(0)))
"""
    child = Child("keeper", [sys.executable, "-c", program])
    child.ensure()
    until((tmp_path / "started").exists)
    child.stop(240)
    assert (tmp_path / "finished").read_text() == "True"


def test_one_that_is_stopped_before_it_was_started_is_not_started(tmp_path: Path) -> None:
    child = Child("keeper", [sys.executable, "-c", _CHILD, str(tmp_path / "ids")])
    child.stop(1)
    child.ensure()
    child.stop(240)
    assert not (tmp_path / "ids").exists()
