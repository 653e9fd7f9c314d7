"""Batches of 1,000 rows by Arrow over HTTP, against the Predictor on the same table in memory."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import harness
from benchmarks.harness import console, show
from benchmarks.serving import ours
from benchmarks.serving.contenders import load
from benchmarks.serving.load import Job
from benchmarks.serving.project import table
from benchmarks.serving.servers import Server, cores, on_core
from perennial.bundle.read import Bundle

ROWS = 1_000
_ARROW = "application/vnd.apache.arrow.stream"
_WAYS = (1, 2)
"""Batches at once: with two, one is on its way while the other is computed."""


def measure(
    root: Path, served: Bundle, folder: Path, rounds: int, seconds: float
) -> dict[str, Any]:
    rows = table(root, served, ROWS)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    body: bytes = sink.getvalue().to_pybytes()
    (folder / "table.arrow").write_bytes(body)
    here: list[float] = []
    there: dict[int, list[float]] = {ways: [] for ways in _WAYS}
    server = ours.server(root, folder / "work" / "batches")
    server.start(cores()[0])
    try:
        for number in range(rounds):
            here.append(_in_process(folder / "table.arrow", served.path, seconds))
            for ways in _WAYS:
                there[ways].append(_by_http(server, body, ways, seconds))
            rates = ", ".join(f"by {w} {there[w][-1]:,.0f}" for w in _WAYS)
            console.print(f"  round {number + 1}: in process {here[-1]:,.0f} rows/s, HTTP {rates}")
    finally:
        server.stop()
    shares = {ways: median(h / p for h, p in zip(there[ways], here, strict=True)) for ways in _WAYS}
    show(
        f"Batches of {ROWS:,} rows, medians of {rounds} times {seconds:g} s",
        ("", "rows/s", "ms a batch", "share of in-process"),
        [
            ("Predictor in the process", f"{median(here):,.0f}", f"{_ms(here):.2f}", "100%"),
            *(
                (
                    f"Arrow over HTTP, {ways} at once",
                    f"{median(there[ways]):,.0f}",
                    f"{_ms(there[ways]) * ways:.2f}",
                    f"{shares[ways]:.0%}",
                )
                for ways in _WAYS
            ),
        ],
    )
    return {"in_process": median(here), "shares": shares}


def _ms(rates: list[float]) -> float:
    return 1e3 * ROWS / median(rates)


def _in_process(arrow: Path, place: Path, seconds: float) -> float:
    """Rows a second."""
    command = ["-m", "benchmarks.serving.in_process", "batches", str(arrow), str(place)]
    root = harness.EXAMPLE.parents[1]
    with on_core(cores()[0]):
        result = harness.run([*command, str(seconds)], root, harness.environment()).result()
    took = np.array(result["seconds"])
    return float(ROWS * len(took) / took.sum())


def _by_http(server: Server, body: bytes, ways: int, seconds: float) -> float:
    """Rows a second."""
    outcome, _ = load(
        Job(
            port=server.port,
            path=ours.PATH,
            content_type=_ARROW,
            accept=_ARROW,
            bodies=[body.decode("latin-1")],
            samples="",
            connections=ways,
            seconds=seconds,
        )
    )
    if outcome.failed:
        raise RuntimeError(f"{outcome.failed} failed: {outcome.failures}")
    return ROWS * outcome.answers / outcome.seconds
