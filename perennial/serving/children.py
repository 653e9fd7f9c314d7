"""Processes that belong to the server: started with it, started again when they die, ended."""

from __future__ import annotations

import os
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
        self._process: subprocess.Popen[bytes] | None = None

    def ensure(self) -> None:
        """Start the process, unless that was done."""
        if self._watch.ident is None:
            self._watch.start()

    def _run(self) -> None:
        wait = 0.5
        while not self._ending.is_set():
            started = time.monotonic()
            fields: dict[str, object]
            try:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for the server, which ends its children
                )
            except OSError as error:  # no memory or no process left: there may be again
                fields = {"problem": str(error)}
            else:
                fields = {"code": self._process.wait()}
            if self._ending.is_set():
                return
            if time.monotonic() - started > _SETTLED_SECONDS:
                wait = 0.5
            fields |= {"child": self._what, "again_in_seconds": wait}
            _log.error("process ended and is started again", extra=fields)
            self._ending.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def stop(self, seconds: float) -> None:
        """Ask the process to finish; after ``seconds`` it is killed."""
        self._ending.set()
        if self._watch.ident is None:
            return
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                _log.warning("process does not end and is killed", extra={"child": self._what})
                process.kill()
        self._watch.join(seconds)


def stand_back(niceness: int) -> None:
    """Let the server go first on a busy machine: this process, and where Linux groups processes by
    session (and then looks at the groups' niceness only), its group."""
    os.nice(niceness)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(niceness))
