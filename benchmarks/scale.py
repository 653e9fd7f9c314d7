"""How far one machine goes: many models on one embedded stack, and a prediction log that grows.

    python -m benchmarks.scale [serving] [stack] [log] [--models N …] [--stacks N …] [--rows N …]
                               [--idle SECONDS] [--quick]

**serving**: one server of so many models, each with its champion: its start, its memory, what it
costs when nobody asks, a request, and the registry it follows.

**stack**: the embedded stack of so many models, each with its five deployments: how long
``perennial up`` takes, what the stack costs when nobody asks anything (processor seconds a minute
and memory of each part, with its children), and what looks at the drift of several models at the
same moment take.

**log**: so many rows written the way that a server's go, in a process of its own each
(``benchmarks.scale_log``); what each size took, and what a hundred million would by the slope.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

from benchmarks import harness
from benchmarks.harness import console, show
from benchmarks.scale_project import inputs, model_names, write_models
from perennial.cli.prefect_server import api_url, call
from perennial.cli.stack import state as states
from perennial.cli.stack.parts import SERVER
from perennial.cli.stack.processes import marked
from perennial.stores.project import Project
from perennial.stores.registry import Registry

FAR = 100_000_000
"""Rows of the log that are reckoned to."""
_SETTLE_SECONDS = 20.0
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
_PARTS = ("server", "worker", "serving")
_ALL = ("serving", "stack", "log")
_LOOKS = 6
_START_SECONDS = 300.0
_LOOK_SECONDS = 240.0


@dataclass
class Served:
    """What one server of so many models costs. Seconds, unless named otherwise; ``idle`` are
    processor seconds a minute, of the server without the processes beside it."""

    count: int
    start: float = 0.0
    mib: float = 0.0
    idle: float = 0.0
    request_ms: float = 0.0
    routes_ms: float = 0.0
    status: float = 0.0


@dataclass
class Stack:
    """What a stack of so many models costs. Seconds; MiB and processor seconds a minute by part;
    ``looks`` is the time that ``looked`` looks at one moment took."""

    count: int
    check: float = 0.0
    up: float = 0.0
    up_again: float = 0.0
    idle: dict[str, float] = field(default_factory=dict)
    mib: dict[str, float] = field(default_factory=dict)
    scheduled: int = 0
    looked: int = 0
    looks: float = 0.0
    look_cpu: float = 0.0


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("parts", nargs="*", metavar="|".join(_ALL), help="all by default")
    parser.add_argument("--models", nargs="+", type=int, default=[1, 25, 100])
    parser.add_argument("--stacks", nargs="+", type=int, default=[1, 10])
    parser.add_argument("--rows", nargs="+", type=int, default=[1_000_000, 10_000_000])
    parser.add_argument("--idle", type=float, default=60.0, help="seconds to watch an idle stack")
    parser.add_argument("--quick", action="store_true", help="small and once: that it works")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args(argv)
    unknown = set(arguments.parts) - set(_ALL)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    if arguments.quick:
        arguments.models, arguments.stacks, arguments.rows = [2], [1], [20_000, 40_000]
        arguments.idle = 3.0
    parts = arguments.parts or _ALL
    console.print(harness.machine())
    with tempfile.TemporaryDirectory(prefix="bench-scale-", dir=arguments.folder) as name:
        folder = Path(name)
        if "serving" in parts:
            served = [_served(folder / f"served-{n}", n, arguments.idle) for n in arguments.models]
            _show_served(served)
        if "stack" in parts:
            looks = 1 if arguments.quick else _LOOKS
            _show_stacks(
                [_stack(folder / f"stack-{n}", n, arguments.idle, looks) for n in arguments.stacks]
            )
        if "log" in parts:
            _show_log([_log(folder / f"log-{rows}", rows) for rows in arguments.rows])


def _served(root: Path, count: int, idle: float) -> Served:
    """Measure a server of so many models."""
    names = model_names(count)
    project = write_models(root, names)
    found = Served(count)
    registry = Registry(project.registry_url)
    found.routes_ms = 1e3 * median(_seconds(registry.routes) for _ in range(20))
    registry.close()
    found.status = _perennial(project, "status", "--json")
    command = [sys.executable, "-m", "perennial", "--project", str(root), "serve", "--port", "0"]
    started = time.monotonic()
    with (root / "server.log").open("wb") as log, subprocess.Popen(
        command, env=harness.environment(), stdout=subprocess.PIPE, stderr=log
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            url = server.stdout.readline().decode().split()[-1]
            with httpx.Client(base_url=url, timeout=60) as client:
                while len(_ready(client)) < count:
                    if time.monotonic() - started > _START_SECONDS or server.poll() is not None:
                        raise RuntimeError((root / "server.log").read_text()[-2000:])
                    time.sleep(0.1)
            found.start = time.monotonic() - started
            time.sleep(_SETTLE_SECONDS / 4)
            used, began = _cpu_of(server.pid), time.monotonic()
            time.sleep(idle)
            found.idle = (_cpu_of(server.pid) - used) * 60 / (time.monotonic() - began)
            found.request_ms = _request_ms(url, names)
            found.mib = _mib_of(server.pid)
        finally:
            server.terminate()
    console.print(found)
    return found


def _ready(client: httpx.Client) -> list[str]:
    try:
        found = client.get("/models").json()["models"]
    except httpx.TransportError:  # nobody listens yet
        return []
    return [one["name"] for one in found if one["ready"]]


def _stack(root: Path, count: int, idle: float, looks: int) -> Stack:
    """Measure a stack with so many models."""
    names = model_names(count)
    project = write_models(root, names)
    found = Stack(count)
    found.check = _perennial(project, "check", "--write")
    try:
        found.up = _up(project)
        time.sleep(_SETTLE_SECONDS)
        before, started = _cpu(project), time.monotonic()
        time.sleep(idle)
        minutes = (time.monotonic() - started) / 60
        found.idle = {part: (used - before[part]) / minutes for part, used in _cpu(project).items()}
        found.mib = _mib(project)
        state = states.read(project)
        assert state is not None
        port = state.parts[SERVER].port
        assert port is not None
        url = api_url(port)
        found.scheduled = call("POST", f"{url}/flow_runs/count", {})
        found.looked = min(looks, count)
        found.looks, found.look_cpu = _looks(project, url, names[:looks])
        found.up_again = _perennial(project, "up", "-d")
    finally:
        _perennial(project, "down")
    console.print(found)
    return found


def _up(project: Project) -> float:
    return _perennial(project, "up", "-d", "--port", "0", "--serve-port", "0")


def _perennial(project: Project, *arguments: str) -> float:
    """The seconds that a command takes."""
    command = [sys.executable, "-m", "perennial", "--project", str(project.root), *arguments]
    started = time.monotonic()
    done = subprocess.run(
        command, env=harness.environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"perennial {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return time.monotonic() - started


def _seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _cpu(project: Project) -> dict[str, float]:
    """Processor seconds so far by part, with those of children that have ended."""
    found = dict.fromkeys(_PARTS, 0.0)
    for one in marked(project.home):
        found[one.part] = found.get(one.part, 0.0) + _cpu_of(one.process.pid)
    return found


def _mib(project: Project) -> dict[str, float]:
    found = dict.fromkeys(_PARTS, 0.0)
    for one in marked(project.home):
        found[one.part] = found.get(one.part, 0.0) + _mib_of(one.process.pid)
    return found


def _cpu_of(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / _TICKS


def _mib_of(pid: int) -> float:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * _PAGE / 2**20


def _request_ms(url: str, names: Sequence[str]) -> float:
    """A row to one model after the other, the median."""
    random = np.random.default_rng(1)
    took = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for name in [*names, *names]:
            row = {key: values[0].item() for key, values in inputs(random, 1).items()}
            started = time.perf_counter()
            reply = client.post(
                f"/models/{name}/predict", json={**row, "at": "2026-03-01T00:00:00Z"}
            )
            took.append(1e3 * (time.perf_counter() - started))
            if reply.status_code != 200:
                raise RuntimeError(f"{name}: {reply.status_code} {reply.text}")
    return median(took)


def _looks(project: Project, url: str, names: Sequence[str]) -> tuple[float, float]:
    """Looks at the drift of these models, asked for at one moment: seconds until all have ended,
    and processor seconds of all the stack meanwhile."""
    before, started = sum(_cpu(project).values()), time.monotonic()
    runs = []
    for name in names:
        deployment = call("GET", f"{url}/deployments/name/drift-watch/{name}")["id"]
        body = {"state": {"type": "SCHEDULED"}}
        run = call("POST", f"{url}/deployments/{deployment}/create_flow_run", body)
        runs.append(run["id"])
    for run in runs:
        while (state := call("GET", f"{url}/flow_runs/{run}")["state"])["type"] not in (
            "COMPLETED", "FAILED", "CRASHED", "CANCELLED",
        ):  # fmt: skip
            if time.monotonic() - started > _LOOK_SECONDS:
                raise RuntimeError(f"a look has not ended: {state}")
            time.sleep(0.3)
        if state["type"] != "COMPLETED":
            raise RuntimeError(f"a look ended {state['type']}: {state['message']}")
    return time.monotonic() - started, sum(_cpu(project).values()) - before


def _log(folder: Path, rows: int) -> dict[str, float]:
    """In a process of its own, for its memory."""
    command = ["-m", "benchmarks.scale_log", str(folder), str(rows)]
    done = harness.run(command, Path(__file__).parents[1], harness.environment())
    console.print(done.output)
    return done.result()


def _show_served(found: Sequence[Served]) -> None:
    rows = [
        ("from its start until all answer, s", *(f"{one.start:.1f}" for one in found)),
        ("resident memory, MiB", *(f"{one.mib:.0f}" for one in found)),
        ("CPU s a minute, idle", *(f"{one.idle:.2f}" for one in found)),
        ("a row of each model in turn, median, ms", *(f"{one.request_ms:.1f}" for one in found)),
        ("the registry's routes, ms", *(f"{one.routes_ms:.1f}" for one in found)),
        ("perennial status, s", *(f"{one.status:.1f}" for one in found)),
    ]
    show("Models on one server", ("", *(f"{one.count:,}" for one in found)), rows)


def _show_stacks(found: Sequence[Stack]) -> None:
    rows = [
        ("perennial check --write, s", *(f"{one.check:.1f}" for one in found)),
        ("perennial up, the first time, s", *(f"{one.up:.0f}" for one in found)),
        ("perennial up while it runs, s", *(f"{one.up_again:.1f}" for one in found)),
        ("runs on the server's schedule", *(f"{one.scheduled:,}" for one in found)),
    ]
    for part in _PARTS:
        idle = (f"{one.idle.get(part, 0):.2f}" for one in found)
        rows.append((f"{part}: CPU s a minute, idle", *idle))
    for part in _PARTS:
        rows.append((f"{part}: MiB", *(f"{one.mib.get(part, 0):.0f}" for one in found)))
    each = (f"{o.looked}: {o.looks:.0f} ({o.look_cpu / o.looked:.1f})" for o in found)
    rows.append(("looks at one moment: n: s (CPU s each)", *each))
    show("Models on one stack", ("", *(f"{one.count:,}" for one in found)), rows)


def _show_log(found: Sequence[dict[str, float]]) -> None:
    """Each figure at each size, and at a hundred million rows by the line through the last two."""
    headings = ["", *(f"{int(one['rows']):,}" for one in found), f"{FAR:,} (reckoned)"]
    rows = []
    for name in [name for name in found[0] if name != "rows"]:
        values = [one[name] for one in found]
        cells = [_figure(value) for value in values]
        rows.append((name, *cells, _figure(reckoned([one["rows"] for one in found], values))))
    show("A log of thirty days", headings, rows)


def reckoned(rows: Sequence[float], values: Sequence[float]) -> float:
    """What a value is at ``FAR`` rows, by the line through the last two sizes."""
    if len(values) < 2:
        return values[-1]
    slope = (values[-1] - values[-2]) / (rows[-1] - rows[-2])
    return max(values[-1] + slope * (FAR - rows[-1]), 0.0)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
