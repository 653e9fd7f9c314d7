"""What every command knows: the project, and how to run one of its flows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import typer

from perennial.contracts.errors import PerennialError
from perennial.stores.project import PROJECT_VARIABLE, Project

_GOES_ON = "the same command goes on where this stopped"


@dataclass(frozen=True, slots=True)
class Context:
    project: Project
    verbose: bool

    def environment(self) -> dict[str, str]:
        """The environment of a flow's process. What the user has set stays as it is."""
        return {
            "PREFECT_LOCAL_STORAGE_PATH": str(self.project.home / "results"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
            "PREFECT_LOGGING_LEVEL": "INFO" if self.verbose else "CRITICAL",
            "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
            "PERENNIAL_PROGRESS": "1" if sys.stderr.isatty() and not self.verbose else "",
            **os.environ,
            PROJECT_VARIABLE: str(self.project.root),
        }

    def run_flow(self, name: str, **parameters: Any) -> dict[str, Any]:
        """Run a flow in a process of its own and return its result.

        A process, because this package must not import Prefect (docs/adr). The flow talks to the
        server of PREFECT_API_URL, or to one that Prefect starts for the run. Ends this command with
        the flow's exit code, after the flow has said why, when it did not complete; with 128 and
        the signal's number after SIGTERM or SIGHUP, which end the flow too. Raises PerennialError
        when it was killed.
        """
        command = [sys.executable, "-m", "flows", name, json.dumps(parameters)]
        environment = self.environment()
        if environment["PERENNIAL_PROGRESS"]:
            place = environment.get("PREFECT_API_URL") or "a Prefect server, which may take a while"
            typer.echo(f"starting with {place}", err=True)
        # A file: a killed flow's pipe would stay open for as long as what it had started.
        with tempfile.TemporaryFile() as printed:
            with _ending_with_this(command, environment, printed) as (flow, signals):
                try:
                    flow.wait()
                except KeyboardInterrupt:
                    flow.wait()  # it got the Ctrl-C too, and tells the server
                    raise
            if signals:
                name = signal.Signals(signals[0]).name
                typer.echo(f"ended by {name}; {_GOES_ON}", err=True)
                raise typer.Exit(128 + signals[0])
            if flow.returncode < 0:
                raise PerennialError(_killed(-flow.returncode))
            if flow.returncode:
                raise typer.Exit(flow.returncode if flow.returncode in (1, 2) else 1)
            printed.seek(0)
            result: dict[str, Any] = json.loads(printed.read().splitlines()[-1])
        return result


@contextmanager
def _ending_with_this(
    command: list[str], environment: dict[str, str], printed: IO[bytes]
) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """Start a flow that is asked to end when this process is. Yields the signals that come, too."""
    flows: list[subprocess.Popen[bytes]] = []
    came: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        came.append(number)
        for flow in flows:
            flow.terminate()  # the signal upon which Prefect tells the server, whichever came

    handled = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in handled.items():
        if handler != signal.SIG_IGN:  # nohup
            signal.signal(number, pass_on)
    try:
        with subprocess.Popen(command, env=environment, stdout=printed) as flow:
            flows.append(flow)
            if came:
                flow.terminate()
            yield flow, came
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)


def _killed(number: int) -> str:
    why = "most likely out of memory" if number == signal.SIGKILL else signal.strsignal(number)
    return f"the flow was killed by signal {number} ({why}); {_GOES_ON}"


def context_of(context: typer.Context) -> Context:
    found = context.obj
    assert isinstance(found, Context)
    return found
