"""One part while it is supervised: started or taken over, watched, started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from perennial.cli.prefect_server import is_answered
from perennial.cli.stack.parts import Part
from perennial.cli.stack.processes import end, find, listens, mark
from perennial.cli.stack.state import PartState

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
_SETTLED_SECONDS = 60.0
_LOG_BYTES = 32 * 2**20


class Running:
    """A part, its process and what became of it so far."""

    def __init__(self, part: Part, folder: Path) -> None:
        self.part = part
        self.log = folder / f"{part.name}.log"
        self.state = PartState(process=None, port=None, at=_now(), status="waiting")
        self.adopted = False
        """Whether a supervisor before this one started it."""
        self._child: subprocess.Popen[bytes] | None = None
        self._since = self.state.at
        self._started = time.monotonic()
        self._wait = _FIRST_WAIT_SECONDS
        self._not_before = 0.0

    @property
    def ended(self) -> bool:
        """Whether it should have a process and has none any more."""
        if self._child is not None:
            self._child.poll()  # a child that nobody asks after stays as a zombie
        if self.state.status == "waiting":
            return False
        return self.state.process is None or not self.state.process.alive

    @property
    def overdue(self) -> bool:
        passed = time.monotonic() - self._started
        return self.state.status == "starting" and passed > self.part.ready_seconds

    @property
    def displaced(self) -> bool:
        """Whether it is starting, or ended while it did, and another program has its port."""
        port = self.state.port
        if self.state.status != "starting" or port is None or not is_answered(port):
            return False
        # In this order: what answered and is not its own now never was, unless it has just ended.
        return not self._has_its_port and is_answered(port)

    @property
    def _has_its_port(self) -> bool:
        process, port = self.state.process, self.state.port
        return port is None or (process is not None and listens(process, port))

    @property
    def due(self) -> bool:
        """Whether it waits to be started, and has waited long enough."""
        return self.state.status == "waiting" and time.monotonic() >= self._not_before

    def adopt(self, state: PartState) -> None:
        """Take over a process that was started by a supervisor that is gone, which may have left it
        halted. What it did before says nothing about whether it works now."""
        self.state = state.model_copy(update={"status": "starting"})
        self.adopted = True
        self._since = _now()
        if state.process is not None:
            state.process.send(signal.SIGCONT)
        self._started = time.monotonic()

    def start(self) -> None:
        """Start its process, in a session of its own: Ctrl-C is for the supervisor."""
        trim(self.log)
        home = self.part.project.home
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.part.command(),
                cwd=self.part.project.root,
                env={**self.part.environment(), **mark(home, self.part.name)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.adopted = False
        self._since = _now()
        self._started = time.monotonic()
        self._change(
            process=find(self._child.pid),
            port=self.part.ports.get(self.part.name),
            at=self._since,
            status="starting",
        )

    def look(self) -> bool:
        """Ask a part that is starting whether it is ready. Returns whether it has become so."""
        if self.state.status != "starting" or not self.part.ready(self._since):
            return False
        if self.ended or not self._has_its_port:  # somebody else answers there
            return False
        self._change(status="running", problem="")
        return True

    def failed(self, what: str) -> float:
        """Note that it ended; it is to be started again after the returned number of seconds."""
        if self.state.status == "running" and self.seconds > _SETTLED_SECONDS:
            self._wait = _FIRST_WAIT_SECONDS
        seconds, self._wait = self._wait, min(2 * self._wait, _LONGEST_WAIT_SECONDS)
        self._not_before = time.monotonic() + seconds
        self._change(process=None, status="waiting", restarts=self.state.restarts + 1, problem=what)
        return seconds

    def drop(self) -> None:
        """Be rid of its process, to be started anew."""
        self.kill()
        self.adopted = False
        self._change(process=None, status="waiting")

    def end(self) -> None:
        """Ask its process to end, as it likes to be asked; kill it when it takes too long."""
        if self.state.process is not None:
            end([self.state.process], self.part.stop_signal, self.part.stop_seconds)
        self._change(process=None, status="waiting")

    def kill(self) -> None:
        if self.state.process is not None:
            end([self.state.process], signal.SIGKILL, 0.0)

    def how_it_ended(self) -> str:
        code = None if self._child is None else self._child.poll()
        if code is None:
            return "ended"
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    @property
    def seconds(self) -> float:
        """Since it was started or taken over."""
        return time.monotonic() - self._started

    def _change(self, **values: object) -> None:
        self.state = self.state.model_copy(update=values)


def trim(path: Path) -> None:
    """Keep a log from growing without end, also while it is written to: one old file is kept."""
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        # Its writer appends, wherever the end is: the file is emptied, not exchanged.
        shutil.copyfile(path, path.with_suffix(".log.1"))
        os.truncate(path, 0)


def _now() -> datetime:
    return datetime.now(UTC)
