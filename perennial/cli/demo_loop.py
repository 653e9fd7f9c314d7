"""The demo's closed loop: traffic drifts, and a better version earns it, nobody having touched
anything in between; a version that learned from wrong labels loses what it was given.

All of it is real: the embedded stack, requests over HTTP, the prediction log, a run of the drift
watch on the worker, the event, the run that Prefect's automation starts for it, and the rollouts.
Each hop's time is read from where it is recorded: the registry, Prefect's API, the server's
answers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from perennial.cli.demo_traffic import Flight, ask, flights, going_on, request, send_labels
from perennial.cli.prefect_server import api_url, call
from perennial.cli.stack import state as states
from perennial.cli.stack.parts import SERVER, SERVING
from perennial.contracts.errors import PerennialError
from perennial.contracts.retraining import Retraining
from perennial.contracts.rollouts import Rollout
from perennial.spec import load_spec
from perennial.stores.folders import write_file
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.registry.retrainings import Retrainings

_FIRST = "2013-03-01T00:00:00Z"
"""What the first version knows. Runs as of the past are on no record that others wait for."""
_WAIT = timedelta(minutes=5)
_ROLLOUT = """\
rollout:
  strategy: canary
  steps: [30, 100]
  bake: 5s
  check_every: 1s
  min_requests: 200
  timeout: 7d
  guards: {error_rate: 0.02, p99_ms: 1000, metric: {name: logloss, max_loss: 0.05}}
"""
"""Steps of seconds, where model.yaml has such of minutes; latency is that of a machine that trains
at the same time."""

Hop = tuple[datetime, str]
_T = TypeVar("_T")


def run_loop(project: Project, model: str, arriving: Path, console: Console) -> None:
    """Train on what is there by the end of February, serve it, send it June's flights and let the
    watch look at them. Then train on two months whose labels are turned round.

    ``arriving`` holds a file a month of the year; the project's own data folder gets them as time
    goes by.
    """
    data = project.model_folder(model) / "data"
    months = sorted(arriving.glob("*.csv"))
    _edit(project, model, r"rollout: .*\n", _ROLLOUT)
    _arrive(months[:2], data)
    with _stack(project) as (prefect, serving):
        first = _train(project, prefect, model, as_of=_FIRST, reason="first version")
        june, july = flights(months[5]), flights(months[6])
        _until(lambda: _serves(serving, model, june[0]), "the first version served")
        console.print(f"  version {first} of January and February is served at {serving}")
        _drifts(project, (prefect, serving), model, june, july, months[2:6], console)
        console.print("[bold]4.[/] Labels arrive turned round, and a version learns from them")
        _mislabel(months[6:8], data)
        _misled(project, (prefect, serving), model, july, console)


def _drifts(
    project: Project,
    stack: tuple[str, str],
    model: str,
    june: Sequence[Flight],
    july: Sequence[Flight],
    arriving: Sequence[Path],
    console: Console,
) -> None:
    """From June's flights to the version that has earned July's."""
    prefect, serving = stack
    started = datetime.now(UTC)
    answers = ask(serving, model, june)
    version = answers[0]["version"]
    hops: list[Hop] = [
        (datetime.now(UTC), f"{len(answers):,} flights of June answered by version {version}")
    ]
    send_labels(serving, model, june)
    _arrive(arriving, project.model_folder(model) / "data")
    hops.append((datetime.now(UTC), "June is over: labels sent, flights since March arrived"))
    _until(lambda: _all_logged(serving), "the prediction log's rows in their table")
    hops.append((datetime.now(UTC), "every prediction and label is in its table"))

    with going_on(serving, model, july):
        watched = _watch(prefect, model)
        look = _last_look(Registry(project.registry_url).retrainings, model, started)
        hops.append((watched, "drift watch starts, July's flights go on"))
        finding = f"{look.trigger.finding}: {look.trigger.reason}"
        hops.append((look.current.decided_at, f"{finding}; answer: {look.current.answer}"))
        if look.goes:
            hops += _retrained(project, prefect, look.id)
            hops += _rolled_out(project, serving, model, started, july[0])
    _print(hops, started, console)


def _misled(
    project: Project,
    stack: tuple[str, str],
    model: str,
    july: Sequence[Flight],
    console: Console,
) -> None:
    """The gates judge by the same wrong labels and let the version in; what people see of it does
    not."""
    prefect, serving = stack
    _edit(project, model, r"split: \{kind: time,", "split: {kind: time, window: 4w,")
    started = datetime.now(UTC)
    with going_on(serving, model, july):
        run = _ended(prefect, _run_deployment(prefect, f"continuous-training/{model}"))
        hops: list[Hop] = [(_moment(run["end_time"]), run["state"]["message"])]
        hops += _rolled_out(project, serving, model, started, july[0])
    _print(hops, started, console)


def _rolled_out(
    project: Project, serving: str, model: str, since: datetime, flight: Flight
) -> list[Hop]:
    """Wait for the end of the rollout that has begun since; its way as it is in the audit."""
    registry = Registry(project.registry_url)

    def found() -> Rollout | None:
        last = registry.rollouts.last(model, 1)
        return last[0] if last and last[0].ended and last[0].started_at >= since else None

    if not any(r.started_at >= since for r in registry.rollouts.last(model, 1)):
        return []
    from perennial.stores.rollout_pages import page_of

    ended = _until(found, "the end of the rollout")
    _until(Path(page_of(project, ended)).exists, "the rollout's page")
    hops = [
        (d.at, f"version {d.version} {d.action}: {d.reason}")
        for d in reversed(registry.decisions(model))
        if d.version == ended.version and d.at >= since and d.action != "registered"
    ]
    champion = registry.champion(model)
    assert champion is not None
    wanted = champion.version
    _until(lambda: _serves(serving, model, flight) == wanted, "the champion's answers")
    return [*hops, (datetime.now(UTC), f"version {wanted} answers all")]


def _print(hops: Sequence[Hop], started: datetime, console: Console) -> None:
    for at, what in sorted(hops):
        seconds = (at - started).total_seconds()
        console.print(f"  {seconds:6.1f} s  {what}", soft_wrap=True, highlight=False, markup=False)


def _edit(project: Project, model: str, old: str, new: str) -> None:
    path = project.model_folder(model) / "model.yaml"
    text, times = re.subn(old, new, path.read_text(encoding="utf-8"))
    if times != 1:
        raise PerennialError(f"{path}: the demo expects its own {old!r}")
    write_file(path, text)
    load_spec(path)


def _mislabel(files: Sequence[Path], data: Path) -> None:
    """Flights arrive of which the late ones are said to be in time, and the others late."""
    turned = {"true": "false", "false": "true", "": ""}
    for file in files:
        head, *lines = file.read_text(encoding="utf-8").splitlines()
        at = head.split(",").index("delayed")
        rows = [line.split(",") for line in lines]
        text = [",".join([*row[:at], turned[row[at]], *row[at + 1 :]]) for row in rows]
        write_file(data / file.name, "\n".join([head, *text, ""]))


def _retrained(project: Project, prefect: str, asked: int) -> list[Hop]:
    """The way from the event to what became of the candidate."""
    registry = Registry(project.registry_url)

    def found() -> Retraining | None:
        its = registry.retrainings.one(asked)
        return its if its.finished_at else None

    ended = _until(found, "the retraining's end")
    run = call("GET", f"{prefect}/flow_runs/{ended.started_run}")
    assert ended.finished_at is not None
    return [
        (_moment(run["created"]), "the event has made Prefect's automation create a run"),
        (_moment(run["start_time"]), f"the run starts: {run['name']}"),
        (ended.finished_at, f"the candidate: {ended.outcome}"),
    ]


def end_stack(project: Project) -> None:
    """End what a demo that was killed has left running."""
    if project.home.is_dir():
        subprocess.run(_command(project, "down"), capture_output=True, check=False)


@contextmanager
def _stack(project: Project) -> Iterator[tuple[str, str]]:
    """The embedded stack while it is needed: the addresses of Prefect's API and of serving."""
    command = _command(project, "up", "--detach")
    try:
        up = subprocess.run(command, capture_output=True, text=True, check=False)
        if up.returncode:
            raise PerennialError(f"perennial up: {up.stdout}{up.stderr}".strip())
        state = states.read(project)
        assert state is not None
        port = state.parts[SERVER].port
        assert port is not None
        yield api_url(port), str(state.url(SERVING))
    finally:
        end_stack(project)


def _command(project: Project, *arguments: str) -> list[str]:
    start = [sys.executable, "-m", "perennial", "--project", str(project.root)]
    return [*start, *arguments]


def _arrive(files: Sequence[Path], data: Path) -> None:
    data.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, data / f".{file.name}")
        (data / f".{file.name}").replace(data / file.name)


def _train(project: Project, prefect: str, model: str, **parameters: str) -> int:
    """Train by the deployment, as anybody would; returns the version."""
    _ended(prefect, _run_deployment(prefect, f"continuous-training/{model}", **parameters))
    champion = Registry(project.registry_url).champion(model)
    if champion is None:
        raise PerennialError(f"the first version of {model} was refused; see perennial status")
    return champion.version


def _watch(prefect: str, model: str) -> datetime:
    """Run the drift watch to its end; returns when it started."""
    run = _ended(prefect, _run_deployment(prefect, f"drift-watch/{model}"))
    return _moment(run["start_time"])


def _run_deployment(prefect: str, name: str, **parameters: Any) -> str:
    deployment = call("GET", f"{prefect}/deployments/name/{name}")
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    run: str = call("POST", f"{prefect}/deployments/{deployment['id']}/create_flow_run", body)["id"]
    return run


def _ended(prefect: str, run: str) -> dict[str, Any]:
    """The flow run, completed. Raises PerennialError when it ended otherwise."""

    def found() -> dict[str, Any] | None:
        its: dict[str, Any] = call("GET", f"{prefect}/flow_runs/{run}")
        final = its["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        return its if final else None

    its = _until(found, "the end of a flow run")
    if its["state_type"] != "COMPLETED":
        raise PerennialError(f"flow run {its['name']}: {its['state']['message']}")
    return its


def _last_look(table: Retrainings, model: str, since: datetime) -> Retraining:
    looks = (r for r in table.last(model) if r.trigger.finding is not None)
    look = next((r for r in looks if r.current.decided_at >= since), None)
    if look is None:
        raise PerennialError("the drift watch has left no answer")
    return look


def _serves(serving: str, model: str, flight: Flight) -> int | None:
    """The version that answers; None while none does."""
    try:
        version: int = call("POST", f"{serving}/models/{model}/predict", request(flight))["version"]
    except OSError:
        return None
    return version


def _all_logged(serving: str) -> bool:
    """Whether everything that was acknowledged is in its table."""
    with urllib.request.urlopen(f"{serving}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    [waiting] = (line for line in lines if line.startswith("perennial_log_waiting_bytes "))
    return float(waiting.rpartition(" ")[2]) == 0


def _until(found: Callable[[], _T | None], what: str) -> _T:
    deadline = time.monotonic() + _WAIT.total_seconds()
    while not (value := found()):
        if time.monotonic() > deadline:
            raise PerennialError(f"waited {_WAIT.total_seconds():.0f} s in vain for {what}")
        time.sleep(0.2)
    return value


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
