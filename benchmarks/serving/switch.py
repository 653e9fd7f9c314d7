"""Another version takes over under full load: errors, and how long the slowest answers take."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness import console, show
from benchmarks.serving import ours
from benchmarks.serving.load import Job, Outcome
from benchmarks.serving.project import Flights, route_to
from benchmarks.serving.servers import Server, cores, on_core

_WINDOW_SECONDS = 2.0
"""From the new route on: the old version serves, the new one is loaded and warmed beside it, takes
over, and settles."""
_FIRST_SECONDS = 4.0
_APART_SECONDS = 5.0


def measure(root: Path, flights: Flights, folder: Path, runs: int, switches: int) -> dict[str, Any]:
    """Each run: a server that starts with version 2, some switches between the two."""
    errors, usual, during, follow, windows = 0, [], [], [], []
    for number in range(runs):
        route_to(root, 2)
        server = ours.server(root, folder / "work" / f"switch-{number}")
        server.start(cores()[0])
        try:
            outcome, samples, moments = _run(root, flights, server, switches, folder)
        finally:
            server.stop()
            route_to(root, 2)
        errors += outcome.failed
        follow += [_followed(outcome, moment, i) for i, moment in enumerate(moments)]
        inside = np.zeros(len(samples), dtype=bool)
        for moment in moments:
            of_it = (samples[:, 0] >= moment) & (samples[:, 0] < moment + _WINDOW_SECONDS)
            windows.append(_p99(samples[of_it]))
            inside |= of_it
        usual.append(_p99(samples[~inside]))
        during.append(_p99(samples[inside]))
        console.print(
            f"  run {number + 1}: {outcome.answers:,} answers, {outcome.failed} failed, p99 "
            f"usually {usual[-1]:.2f} ms, in switches {during[-1]:.2f} ms"
        )
    figures = {
        "switches": runs * switches,
        "errors": errors,
        "follow_seconds": median(follow),
        "slowest_follow_seconds": max(follow),
        "p99_usual_ms": median(usual),
        "p99_switch_ms": median(during),
        "worst_window_ms": max(windows),
        "ratio": median(d / u for d, u in zip(during, usual, strict=True)),
    }
    show(
        f"{runs * switches} switches under full load, 16 connections",
        ("errors", "followed after", "slowest", "p99 usual", "p99 in a switch", "ratio",
         "worst switch"),
        [
            (
                str(errors),
                f"{figures['follow_seconds']:.2f} s",
                f"{figures['slowest_follow_seconds']:.2f} s",
                f"{figures['p99_usual_ms']:.2f} ms",
                f"{figures['p99_switch_ms']:.2f} ms",
                f"{figures['ratio']:.2f}",
                f"{figures['worst_window_ms']:.2f} ms",
            )
        ],
    )  # fmt: skip
    return figures


def _run(
    root: Path, flights: Flights, server: Server, switches: int, folder: Path
) -> tuple[Outcome, np.ndarray, list[float]]:
    """Load, and meanwhile the switches. Also the moments at which the registry took them."""
    samples = folder / "switch.npy"
    job = Job(
        port=server.port,
        path=ours.PATH,
        content_type="application/json",
        bodies=[body.decode("latin-1") for body in flights.bodies()],
        samples=str(samples),
        seconds=_FIRST_SECONDS + switches * _APART_SECONDS,
        warm_up_seconds=1.0,
        mark='"version":',
    )
    with on_core(cores()[1]):
        client = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving.client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert client.stdin is not None
    client.stdin.write(json.dumps(asdict(job)))
    client.stdin.close()
    time.sleep(_FIRST_SECONDS + job.warm_up_seconds)
    moments = []
    for number in range(switches):
        moments.append(time.monotonic())
        route_to(root, _target(number))
        time.sleep(_APART_SECONDS - (time.monotonic() - moments[-1]))
    assert client.stdout is not None
    outcome = Outcome(**json.loads(client.stdout.read()))
    client.wait()
    return outcome, np.load(samples), moments


def _target(number: int) -> int:
    """The version of the so manieth switch."""
    return 1 + number % 2


def _followed(outcome: Outcome, moment: float, number: int) -> float:
    """Seconds from the new route to the first answer of its version."""
    for then, version in outcome.marks:
        if then >= moment and version == str(_target(number)):
            return then - moment
    raise RuntimeError(f"nobody followed switch {number + 1}: {outcome.marks}")


def _p99(samples: np.ndarray) -> float:
    return float(np.percentile(samples[:, 1], 99) * 1e3)
