"""A flow whose process ends at once: its command says so, and nothing it had started stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pytest

from tests.waiting import until
from tests.workplace import Workplace

COMMAND = """
import signal
from perennial.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what starts in the background
main()
"""


@dataclass(frozen=True)
class Training:
    command: subprocess.Popen[str]
    flow: psutil.Process
    server: psutil.Process
    guard: psutil.Process

    def kill(self) -> None:
        for process in (self.server, self.guard, self.flow):
            if not ended(process):
                process.kill()
        self.command.kill()


@contextmanager
def training(project: Workplace) -> Iterator[Training]:
    """``perennial train`` whose Prefect server is just starting."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "train", "demand"],
        cwd=project.root,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # what Ctrl-C reaches, as a shell makes it
    ) as command:
        flow = child(psutil.Process(command.pid), "continuous_training")
        started = Training(command, flow, child(flow, "uvicorn"), child(flow, "sh"))
        try:
            yield started
        finally:
            started.kill()


def child(parent: psutil.Process, word: str) -> psutil.Process:
    found: list[psutil.Process] = []

    def look() -> bool:
        found[:] = [each for each in parent.children() if word in each.cmdline()]
        return bool(found)

    until(look)
    return found[0]


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def serves(process: psutil.Process) -> bool:
    return any(each.status == psutil.CONN_LISTEN for each in process.net_connections())


@pytest.mark.parametrize(
    ("number", "why", "early"),
    [(signal.SIGKILL, "most likely out of memory", False), (signal.SIGABRT, "Aborted", True)],
)
def test_a_flow_that_is_killed_ends_its_command_with_a_word_and_its_server(
    project: Workplace, number: signal.Signals, why: str, early: bool
) -> None:
    with training(project) as run:
        until(lambda: early or serves(run.server))
        run.flow.send_signal(number)
        out, err = run.command.communicate(timeout=120)
        until(lambda: ended(run.server) and ended(run.guard))
    assert (run.command.returncode, out) == (1, "")
    assert err == (
        f"the flow was killed by signal {number:d} ({why}); the same command goes on where this "
        "stopped\n"
    )


def test_a_command_that_is_ended_ends_its_flow(project: Workplace) -> None:
    with training(project) as run:
        until(lambda: serves(run.server))
        run.command.terminate()
        out, err = run.command.communicate(timeout=120)
        assert ended(run.flow)
        until(lambda: ended(run.server) and ended(run.guard))
    assert (run.command.returncode, out) == (143, "")
    assert err.splitlines()[-1] == "ended by SIGTERM; the same command goes on where this stopped"


def test_a_flow_that_is_interrupted_says_so_once_and_ends_with_its_server(
    project: Workplace,
) -> None:
    with training(project) as run:
        until(lambda: serves(run.server))
        os.killpg(run.command.pid, signal.SIGINT)
        out, err = run.command.communicate(timeout=60)
        assert [each for each in (run.flow, run.server, run.guard) if not ended(each)] == []
    assert (run.command.returncode, out) == (130, "")
    assert err == "interrupted; the same command goes on where this stopped\n"
