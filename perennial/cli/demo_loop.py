"""The demo's closed loop: traffic drifts, and a better version answers it, nobody having touched
anything in between.

All of it is real: the embedded stack, requests over HTTP, the prediction log, a run of the drift
watch on the worker, the event, and the run that Prefect's automation starts for it. Each hop's time
is read from where it is recorded: the registry, Prefect's API, the server's answers.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from perennial.cli.prefect_server import api_url, call
from perennial.cli.stack import state as states
from perennial.cli.stack.parts import SERVER, SERVING
from perennial.contracts.errors import PerennialError
from perennial.contracts.retraining import Retraining
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.registry.retrainings import Retrainings

_FIRST = "2013-03-01T00:00:00Z"
"""What the first version knows. Runs as of the past are on no record that others wait for."""
_FLIGHTS = 3_000
_CALLERS = 8
_WAIT = timedelta(minutes=5)
_LABEL = "delayed"
_KEYS = ("carrier", "flight", "origin", "time_hour")
_TEXTS = frozenset({"time_hour", "carrier", "origin", "dest"})
_WHOLE = frozenset({"flight", "sched_dep_time", "sched_arr_time"})

Hop = tuple[datetime, str]
_T = TypeVar("_T")


def run_loop(project: Project, model: str, arriving: Path, console: Console) -> None:
    """Train on what is there by the end of February, serve it, send it June's flights.

    ``arriving`` holds a file a month of the year; the project's own data folder gets them as time
    goes by.
    """
    data = project.model_folder(model) / "data"
    months = sorted(arriving.glob("*.csv"))
    _arrive(months[:2], data)
    with _stack(project) as (prefect, serving):
        first = _train(project, prefect, model)
        flights = list(_flights(months[5]))
        _until(lambda: _serves(serving, model, flights[0]), "the first version served")
        console.print(f"  version {first} of January and February is served at {serving}")

        started = datetime.now(UTC)
        answers = _ask(serving, model, [_request(flight) for flight in flights])
        hops: list[Hop] = [
            (datetime.now(UTC), f"{len(answers):,} flights of June answered by version {first}")
        ]
        _send_labels(serving, model, flights)
        _arrive(months[2:6], data)
        hops.append((datetime.now(UTC), "June is over: labels sent, flights since March arrived"))
        _until(lambda: _all_logged(serving), "the prediction log's rows in their table")
        hops.append((datetime.now(UTC), "every prediction and label is in its table"))

        watched = _watch(prefect, model)
        table = Registry(project.registry_url).retrainings
        look = _last_look(table, model, started)
        hops.append((watched, "drift watch starts"))
        finding = f"{look.trigger.finding}: {look.trigger.reason}"
        hops.append((look.current.decided_at, f"{finding}; answer: {look.current.answer}"))
        if look.goes:
            hops += _retrained(project, prefect, model, look.id)
            wanted = Registry(project.registry_url).champion(model)
            assert wanted is not None
            _until(lambda: _serves(serving, model, flights[0]) == wanted.version, "the new version")
            hops.append((datetime.now(UTC), f"version {wanted.version} answers"))
    for at, what in hops:
        seconds = (at - started).total_seconds()
        console.print(f"  {seconds:6.1f} s  {what}", soft_wrap=True, highlight=False, markup=False)


def _retrained(project: Project, prefect: str, model: str, asked: int) -> list[Hop]:
    """The way from the event to what became of the candidate."""
    registry = Registry(project.registry_url)

    def found() -> Retraining | None:
        its = registry.retrainings.one(asked)
        return its if its.finished_at else None

    ended = _until(found, "the retraining's end")
    run = call("GET", f"{prefect}/flow_runs/{ended.started_run}")
    hops: list[Hop] = [
        (_moment(run["created"]), "the event has made Prefect's automation create a run"),
        (_moment(run["start_time"]), f"the run starts: {run['name']}"),
    ]
    assert ended.finished_at is not None
    if ended.outcome != "promoted":
        return [*hops, (ended.finished_at, f"the candidate is not promoted: {ended.outcome}")]
    champion = registry.champion(model)
    assert champion is not None
    promoted = next(d for d in registry.decisions(model) if d.action == "promoted")
    return [*hops, (promoted.at, f"version {champion.version} is promoted: {promoted.reason}")]


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


def _train(project: Project, prefect: str, model: str) -> int:
    """Train by the deployment, as anybody would; returns the version."""
    run = _run_deployment(
        prefect, f"continuous-training/{model}", as_of=_FIRST, reason="first version"
    )
    _ended(prefect, run)
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


def _flights(file: Path) -> Iterator[Mapping[str, str]]:
    """Flights with a label, spread evenly over the month."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row[_LABEL]]
    yield from rows[:: max(1, len(rows) // _FLIGHTS)]


def _request(flight: Mapping[str, str]) -> dict[str, Any]:
    return {name: _value(name, text) for name, text in flight.items() if name != _LABEL}


def _value(name: str, text: str) -> Any:
    if not text:
        return None
    return text if name in _TEXTS else int(text) if name in _WHOLE else float(text)


def _ask(serving: str, model: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The answers, one row a request, several callers at once."""
    import httpx

    def answer(row: Mapping[str, Any]) -> dict[str, Any]:
        response = client.post(f"/models/{model}/predict", json=row)
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    limits = httpx.Limits(max_keepalive_connections=_CALLERS)
    with (
        httpx.Client(base_url=serving, timeout=30, limits=limits, trust_env=False) as client,
        ThreadPoolExecutor(_CALLERS) as callers,
    ):
        return list(callers.map(answer, rows))


def _send_labels(serving: str, model: str, flights: Sequence[Mapping[str, str]]) -> None:
    for start in range(0, len(flights), 1000):
        labels = [
            {**{key: _value(key, flight[key]) for key in _KEYS}, "label": flight[_LABEL] == "true"}
            for flight in flights[start : start + 1000]
        ]
        call("POST", f"{serving}/models/{model}/labels", labels)


def _serves(serving: str, model: str, flight: Mapping[str, str]) -> int | None:
    """The version that answers; None while none does."""
    try:
        version: int = call("POST", f"{serving}/models/{model}/predict", _request(flight))[
            "version"
        ]
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
