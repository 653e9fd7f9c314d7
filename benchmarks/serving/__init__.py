"""The service's speed: against other servers, alone, in batches, at rest, and in a switch.

    python -m benchmarks.serving [throughput] [lone] [batches] [idle] [switch] [--quick]

One worker process a server, on a core of its own with all its children; the client on another. The
model is made of the flights up to August 2013, the rows are flights of September. More in
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import console, show
from benchmarks.serving import batches, idle, project, switch, throughput
from benchmarks.serving.servers import cores, on_core

PARTS = ("throughput", "lone", "batches", "idle", "switch")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print tables, return the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="short and once: that it works")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--version", type=int, choices=(1, 2), default=2, help="2 is the larger model, the default"
    )
    parser.add_argument("--peers", nargs="*", default=[], help="of the throughput; all by default")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir(), "perennial-serving-benchmark"),
        help="where the trained project and the others' environments are kept for the next time",
    )
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "work", ignore_errors=True)
    root = folder / "project"
    cores()  # of all that are there; from here on this process keeps to the client's
    project.train(root)
    os.sched_setaffinity(0, {cores()[1]})
    project.route_to(root, arguments.version)
    served = project.bundle(root, arguments.version)
    console.print(project.described(served))
    flights = project.flights(root, served)
    rounds, seconds = (2, 1.0) if arguments.quick else (arguments.rounds, 3.0)
    few = 1 if arguments.quick else 5

    def compared() -> dict[str, Any]:
        trials, trial_seconds = (1, 1.0) if arguments.quick else (2, 2.0)
        plan = throughput.Plan(rounds, seconds, trials, trial_seconds)
        booster = served.path / "booster.ubj"
        return throughput.compare(root, flights, booster, folder, plan, arguments.peers)

    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "throughput": compared,
        "lone": lambda: _lone(root, flights, folder, few),
        "batches": lambda: batches.measure(root, served, folder, rounds, seconds),
        "idle": lambda: idle.measure(root, folder, few),
        "switch": lambda: switch.measure(root, flights, folder, 1 if arguments.quick else 3, 4),
    }
    found = {part: measures[part]() for part in arguments.parts or PARTS}
    (folder / "figures.json").write_text(json.dumps(found, indent=1))
    console.print(f"figures: {folder / 'figures.json'}")
    return found


def _lone(root: Path, flights: project.Flights, folder: Path, repeats: int) -> dict[str, Any]:
    bodies = folder / "bodies.json"
    bodies.write_text(json.dumps([body.decode() for body in flights.bodies()]))
    command = ["-m", "benchmarks.serving.in_process", "lone", str(root), str(bodies)]
    results = []
    for _ in range(repeats):
        with on_core(cores()[0]):
            ran = harness.run(command, harness.EXAMPLE.parents[1], harness.environment())
        results.append(ran.result())
    middle = sorted(results, key=lambda result: float(result["p50_ms"]))[repeats // 2]
    show(
        f"A request alone, bytes in to bytes out in the process, the median of {repeats} processes",
        ("p50", "p90", "p99"),
        [tuple(f"{middle[name]:.2f} ms" for name in ("p50_ms", "p90_ms", "p99_ms"))],
    )
    return dict(middle)
