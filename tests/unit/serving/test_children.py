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

# Tells its id, a line each time it is started, and waits.
_CHILD = """
import os, signal, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""


@contextmanager
def kept(place: Path, *words: str) -> Iterator[Child]:
    child = Child("keeper", [sys.executable, "-c", _CHILD, str(place), *words])
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
    told = [vars(record) for record in caplog.records]
    assert [(t["child"], t["code"]) for t in told] == [("keeper", -signal.SIGKILL)] * 2


def test_one_that_does_not_end_is_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with kept(tmp_path / "ids", "stubborn") as child:
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
