"""Peak memory of ingestion against the size of the source: staged, audited, published, scanned.

    python -m benchmarks.ingestion_memory --rows 300000 1000000 5000000 20000000

Each size is a CSV of 20 columns like those of flights, made in chunks and ingested by a process of
its own, whose peak resident memory (VmHWM) is what is reported. ``--shuffled`` puts the rows in no
order of time, the worst case: they are then sorted outside memory. ``--change`` ingests the source
a second time with that share of its labels changed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

SIZES = (300_000, 1_000_000, 5_000_000)
_CHUNK = 250_000
_MODEL = """
name: trips
objective: binary
source: {kind: csv, uri: trips.csv, event_time: at, entity: [carrier, flight, origin]}
label: {column: late, delay: 2d}
columns:
  carrier: {type: category, nullable: false}
  flight: {type: integer, min: 1}
  origin: {type: category, allowed: [EWR, JFK, LGA]}
  destination: {type: category}
  aircraft: {type: category}
  distance: {type: float, min: 1, max: 6000}
  scheduled: {type: integer, min: 0, max: 2359}
  m0: {type: float}
  m1: {type: float}
  m2: {type: float}
  m3: {type: float}
  m4: {type: float}
  m5: {type: float}
  m6: {type: float}
  m7: {type: float}
  m8: {type: float}
  m9: {type: float}
  seats: {type: integer, min: 1}
  late: {type: boolean}
"""


def write_source(path: Path, rows: int, shuffled: bool, changed: float = 0.0) -> None:
    """A CSV of so many rows, one a second; about one in 1,000 breaks a rule."""
    order = np.random.default_rng(0).permutation(rows) if shuffled else np.arange(rows)
    with path.open("wb") as file:
        for start in range(0, rows, _CHUNK):
            chunk = _rows(order[start : start + _CHUNK], start, changed)
            pacsv.write_csv(chunk, file, pacsv.WriteOptions(include_header=start == 0))


def _rows(seconds: np.ndarray, seed: int, changed: float) -> Any:
    random, n = np.random.default_rng(seed), len(seconds)

    def levels(prefix: str, count: int) -> Any:
        names = pa.array([f"{prefix}{i}" for i in range(count)])
        return names.take(pa.array(random.integers(0, count, n)))

    distance = random.integers(80, 5000, n)
    distance[random.random(n) < 0.001] = -1
    columns = {
        "at": pa.array(1_700_000_000 + seconds, pa.timestamp("s", "UTC")),
        "carrier": levels("CA", 16),
        "flight": random.integers(1, 8000, n),
        "origin": pa.array(["EWR", "JFK", "LGA"]).take(pa.array(random.integers(0, 3, n))),
        "destination": levels("DE", 105),
        "aircraft": levels("N", 4000),
        "distance": distance,
        "scheduled": random.integers(0, 2360, n),
    }
    for i in range(10):
        empty = random.random(n) < 0.02
        columns[f"m{i}"] = pa.array(random.normal(50, 20, n).round(2), mask=empty)
    columns["seats"] = random.integers(50, 400, n)
    late = random.random(n) < 0.23
    columns["late"] = late ^ (np.random.default_rng(seed + 1).random(n) < changed)
    return pa.table(columns)


def ingest(root: Path) -> dict[str, Any]:
    """Ingest the source at ``root`` and scan the dataset, in this process. Returns what it took."""
    from perennial.spec import parse_spec
    from perennial.stores import sources, staging, tables

    spec = parse_spec(_MODEL)
    table, quarantine = str(root / "tables" / "trips"), str(root / "quarantine" / "trips")
    took: dict[str, Any] = {}

    def step(name: str, started: float) -> None:
        took[name] = {"seconds": time.perf_counter() - started, "peak_mib": _peak_mib()}
        Path("/proc/self/clear_refs").write_text("5")

    started = time.perf_counter()
    source = sources.inspect(spec, root, None, None, full=True)
    staged = staging.stage(spec, root, source, root / "staging")
    step("stage", started)
    started = time.perf_counter()
    staging.validate(spec, staged, None).raise_failures()
    tables.publish(spec, staged, table, quarantine)
    ref = tables.dataset(spec, table, None)
    step("publish", started)
    started = time.perf_counter()
    rows = sum(len(frame) for frame in tables.scan(ref, spec))
    step("scan", started)
    return {"rows": rows, "version": ref.version, "steps": took}


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def measure(rows: int, shuffled: bool, changed: float, folder: Path) -> dict[str, Any]:
    """Make a source and ingest it in a process of its own, twice when some rows are to change."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        root = Path(place)
        for change in (0.0, changed) if changed else (0.0,):
            write_source(root / "trips.csv", rows, shuffled, change)
            size = (root / "trips.csv").stat().st_size / 2**20
            command = [sys.executable, "-m", "benchmarks.ingestion_memory", "--ingest", place]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**result, "source_mib": size}


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure each size, print a table and the slope, return the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--shuffled", action="store_true", help="rows in no order of time")
    parser.add_argument("--change", type=float, default=0.0, help="share of labels that change")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--ingest", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.ingest is not None:
        print(json.dumps(ingest(arguments.ingest)))
        return []
    results = []
    print(f"{'rows':>12} {'source':>10}  " + "".join(f"{s:>22}" for s in _STEPS) + f"{'peak':>12}")
    for rows in arguments.rows:
        result = measure(rows, arguments.shuffled, arguments.change, arguments.folder)
        steps = result["steps"]
        result["peak_mib"] = max(step["peak_mib"] for step in steps.values())
        results.append(result)
        cells = (f"{steps[s]['seconds']:9.1f} s {steps[s]['peak_mib']:6.0f} MiB" for s in _STEPS)
        line = "".join(f"{cell:>22}" for cell in cells)
        peak = f"{result['peak_mib']:8.0f} MiB"
        print(f"{rows:12,} {result['source_mib']:6.0f} MiB  {line}{peak:>12}", flush=True)
    if len(results) > 1:
        million = [result["rows"] / 1e6 for result in results]
        slope = np.polyfit(million, [result["peak_mib"] for result in results], 1)[0]
        last = results[-1]["peak_mib"] - results[-2]["peak_mib"]
        last_slope = last / (million[-1] - million[-2])
        print(f"slope: {slope:.1f} MiB a million rows; between the two largest: {last_slope:.1f}")
    return results


_STEPS = ("stage", "publish", "scan")

if __name__ == "__main__":
    main()
