"""Processes that belong to the server: started with it, started again when they die, ended.

They start with SIGTERM held back, and ``listen_to_stop`` lets it through: a server that stops right
after its start would otherwise end them before they can say what to do about it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from logging import getLogger
from pathlib import Path

_log = getLogger("perennial.serving.children")
_LONGEST_WAIT_SECONDS = 30.0
_SETTLED_SECONDS = 60.0


class Child:
    """One process, kept alive from ``ensure`` until ``stop``."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self._watch = threading.Thread(target=self._run, name=f"{name} watch", daemon=True)
        self._what = name
        self._command = list(command)
        self._ending = threading.Event()
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ensure(self) -> None:
        """Start the process, unless that was done."""
        if self._watch.ident is None:
            self._watch.start()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # of this thread; children's too
        wait = 0.5
        while True:
            started = time.monotonic()
            fields: dict[str, object]
            try:
                process = self._start()
            except OSError as error:  # no memory or no process left: there may be again
                fields = {"problem": str(error)}
            else:
                if process is None:
                    return
                fields = {"code": process.wait()}
            if self._ending.is_set():
                return
            if time.monotonic() - started > _SETTLED_SECONDS:
                wait = 0.5
            fields |= {"child": self._what, "again_in_seconds": wait}
            _log.error("process ended and is started again", extra=fields)
            self._ending.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._starting:
            if self._ending.is_set():
                return None
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the server, which ends its children
            )
            return self._process

    def stop(self, seconds: float) -> None:
        """Ask the process to finish; after ``seconds`` it is killed."""
        with self._starting:
            self._ending.set()
            process = self._process
        if self._watch.ident is None:
            return
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                _log.warning("process does not end and is killed", extra={"child": self._what})
                process.kill()
        self._watch.join(seconds)


def listen_to_stop() -> threading.Event:
    """The event that SIGTERM, now or held back since the start, sets. Ctrl-C is the server's."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return stop


def stand_back(niceness: int) -> None:
    """Let the server go first on a busy machine: this process, and where Linux groups processes by
    session (and then looks at the groups' niceness only), its group."""
    os.nice(niceness)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(niceness))
