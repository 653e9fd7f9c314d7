"""``perennial up`` and ``perennial down``: the embedded stack of a project."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
import yaml

from perennial.cli.context import context_of
from perennial.cli.deploying import compare_prefect_yaml, write_prefect_yaml
from perennial.cli.output import console, table_of
from perennial.cli.prefect_server import api_url
from perennial.cli.stack import state as states
from perennial.cli.stack.deploying import deploy, deployed, set_up
from perennial.cli.stack.parts import SERVER, SERVING, parts_of
from perennial.cli.stack.processes import require_linux, wait
from perennial.cli.stack.state import StackState
from perennial.cli.stack.stopping import stop_all
from perennial.cli.stack.supervisor import OPTIONS, Supervisor
from perennial.contracts.distribution import pip_install
from perennial.contracts.errors import InputError, PerennialError, Problem
from perennial.stores.project import Project

_EXTRAS = {"pipeline": "prefect", "serving": "uvloop"}
_MEND_SECONDS = 150.0
_STOP_SECONDS = 120.0


def up(
    context: typer.Context,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Of the Prefect server; else 4200, or a free one."),
    ] = None,
    serve_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Of serving; else 8080, or a free one."),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", "-d", help="Return when all runs; `perennial down` ends it."),
    ] = False,
) -> None:
    """Start the embedded stack. A Prefect server, a worker, the deployments of prefect.yaml, and
    serving; Ctrl-C ends them all. What died is started again."""
    project = context_of(context).project
    asked = {SERVER: port, SERVING: serve_port}
    wanted = {name: value for name, value in asked.items() if value is not None}
    require_linux()
    _look_over(project)
    if states.supervised(project):
        _show(project, _mend(project, wanted), "it runs already; perennial down ends it")
    elif detach:
        _show(project, _start_detached(project, wanted), "perennial down ends it")
    else:
        supervisor = Supervisor(project, wanted)
        supervisor.run(lambda state: _show(project, state, "Ctrl-C ends it"))


def down(context: typer.Context) -> None:
    """End the embedded stack. All that `perennial up` has started, also what a killed one has left
    behind, and nothing else."""
    project = context_of(context).project
    require_linux()
    state = states.read(project)
    supervised = states.supervised(project)
    if supervised:
        if state is None:
            raise PerennialError(f"{project.root}: perennial up has only just begun; try again")
        typer.echo("stopping")
        state.supervisor.send(signal.SIGTERM)
        if wait([state.supervisor], _STOP_SECONDS):
            state.supervisor.send(signal.SIGKILL)
            wait([state.supervisor], _STOP_SECONDS)
    with states.lock(project) as mine:
        if not mine:
            raise PerennialError(f"{project.root}: another perennial up or down is at work")
        left_behind = stop_all(project, parts_of(project, {}), typer.echo)
        states.remove(project)
    typer.echo("stopped" if supervised or left_behind else "nothing was running")


def _look_over(project: Project) -> None:
    """Tell most mistakes before anything is started. Raises InputError."""
    missing = [extra for extra, module in _EXTRAS.items() if find_spec(module) is None]
    if missing:
        fix = pip_install(*missing)
        raise InputError(Problem("perennial up", "needs more than is installed here", fix))
    if not project.model_names():
        fix = "perennial init makes one; --project names another place"
        raise InputError(Problem(str(project.models), "no models here", fix))
    path = project.root / "prefect.yaml"
    if not path.is_file():
        typer.echo(write_prefect_yaml(project))
    try:
        yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = str(path) if mark is None else f"{path}, line {mark.line + 1}"
        what = f"not YAML: {getattr(error, 'problem', None) or error}"
        raise InputError(Problem(where, what, "perennial check --write writes it anew")) from None
    compare_prefect_yaml(project)


def _mend(project: Project, wanted: Mapping[str, int]) -> StackState:
    """Wait until the supervisor that is there has all parts running; deploy what has changed."""
    deadline = time.monotonic() + _MEND_SECONDS
    ports: dict[str, int] = {}
    parts = parts_of(project, ports)
    told: set[str] = set()
    while True:
        state = states.read(project)
        if state is not None and state.healthy:
            ports.update(_ports(state))
            if all(p.ready(state.parts[name].at) for name, p in parts.items()):
                break
        for name, part in (state.parts if state else {}).items():
            if part.problem and part.problem not in told:
                told.add(part.problem)
                typer.echo(f"{parts[name].title}: {part.problem}")
        if not states.supervised(project):
            raise PerennialError("it ended just now; perennial up starts it again")
        if time.monotonic() > deadline:
            raise PerennialError(
                f"not all parts answer after {_MEND_SECONDS:.0f} s; see {states.logs(project)}"
            )
        time.sleep(0.3)
    for name, value in wanted.items():
        if value not in (0, ports[name]):
            what = f"{value}, but {parts[name].title} runs at {ports[name]} already"
            raise InputError(Problem(OPTIONS[name], what, "perennial down ends it"))
    changed = not deployed(project)
    if changed:
        deploy(project, ports)
        typer.echo("deployments: as prefect.yaml declares them now")
    if changed or any(name.startswith("PERENNIAL_ALERT_") for name in os.environ):
        typer.echo(set_up(project, ports))
    return state


def _start_detached(project: Project, wanted: Mapping[str, int]) -> StackState:
    """Start a supervisor in the background, and wait until all runs, passing on what it says."""
    log = states.logs(project) / "stack.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        said = file.tell()
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "perennial.cli.stack", str(project.root), json.dumps(wanted)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        while True:
            code = supervisor.poll()
            said = _pass_on(log, said)
            if code is not None:
                raise typer.Exit(code or 1)
            state = states.read(project)
            if state is not None and state.supervisor.pid == supervisor.pid and state.settled:
                _pass_on(log, said)
                return state
            time.sleep(0.2)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait()
        raise


def _pass_on(log: Path, start: int) -> int:
    """Print the whole lines of a file from a place on; returns the next place."""
    with log.open("rb") as file:
        file.seek(start)
        text, newline, _ = file.read().rpartition(b"\n")
    typer.echo((text + newline).decode(errors="replace"), nl=False)
    return start + len(text) + len(newline)


def _show(project: Project, state: StackState, how_to_end: str) -> None:
    """The parts, and how to go on."""
    out = console()
    table = table_of("part", "address", "log")
    logs = os.path.relpath(states.logs(project))
    for name, part in parts_of(project, {}).items():
        port = state.parts[name].port
        address = f"http://127.0.0.1:{port}" if port else ""
        table.add_row(part.title, address, f"{logs}/{name}.log")
    out.print()
    out.print(table)
    url = api_url(_ports(state)[SERVER])
    model = shlex.quote(f"continuous-training/{project.model_names()[0]}")
    for line in (
        f"PREFECT_API_URL={url} prefect deployment run {model}",
        how_to_end,
    ):
        out.print(line, soft_wrap=True)


def _ports(state: StackState) -> dict[str, int]:
    return {name: part.port for name, part in state.parts.items() if part.port is not None}
