"""Prefect's temporary server, which ends with the flow's process, however that ends."""

from __future__ import annotations

import subprocess
from typing import Any

from prefect.server.api.server import SubprocessASGIServer

_GUARD = 'read -r _ || kill "$0"'
"""Its input ends without a line when the process that holds the other end was killed."""


class _Server(SubprocessASGIServer):
    """Prefect stops its server when the process ends by itself. That of a killed process would stay
    for ever, with all files it inherited, so a shell waits beside it for that process's end. In a
    session of its own: the signal that ends a whole group must not end the guard first."""

    _guard: subprocess.Popen[bytes] | None = None

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        self._dismiss()  # that of a server whose port was taken
        server = super()._run_uvicorn_command()
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, str(server.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return server

    def stop(self) -> None:
        super().stop()
        self._dismiss()

    def _dismiss(self) -> None:
        if self._guard:
            self._guard.communicate(b"\n")
            self._guard = None


def end_with_this_process() -> None:
    """The server that Prefect starts in this process from now on ends with it."""
    _Server()  # Prefect knows one server a process, and this is now it
