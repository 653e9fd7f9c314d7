"""The verdict on drift against Evidently's DataDriftPreset, on the same frames.

    python -m benchmarks.drift [--rows 1000000] [--rounds 3]

Both sides get a reference and a window as pandas frames of 20 columns: numbers, whole numbers,
flags, and categories of 3 to 4,000 levels; a twentieth of some is missing, and three columns
drifted. Each run is a process of its own, and the sides take turns. A small run first takes what is
only paid once (imports); the clock and the peak of memory start after it.

*ours* has the reference's statistics, as a drift watch has them; *ours, reference too* computes
them from all rows of the reference first. *from a file* counts the window from Parquet in batches,
as the log lies on disk, with no frame in memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import console, environment, run, show
from perennial.data.drift.counting import count_window
from perennial.data.drift.reference import reference_statistics
from perennial.decisions.drift import judge_drift
from perennial.spec.inputs import Column
from perennial.spec.production import Drift

SIDES = ("ours", "ours, reference too", "from a file", "evidently")
GOAL = 30
_WARM_ROWS = 2_000
_BATCH_ROWS = 65_536
_LEVELS = {"c3": 3, "c16": 16, "c100": 100, "c500": 500, "c4000": 4000}
_NUMBERS = [f"n{i}" for i in range(10)]
_WHOLE = ["w0", "w1", "w2"]
_FLAGS = ["f0", "f1"]


def columns() -> dict[str, Column]:
    return {
        **{name: Column(type="float") for name in _NUMBERS},
        **{name: Column(type="integer") for name in _WHOLE},
        **{name: Column(type="boolean") for name in _FLAGS},
        **{name: Column(type="category") for name in _LEVELS},
    }


def frame(rows: int, seed: int, drifted: bool) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    data: dict[str, Any] = {}
    for i, name in enumerate(_NUMBERS):
        values = random.normal(10, 3, rows) if i % 2 else random.lognormal(1, 0.7, rows)
        if i % 3 == 0:
            values[random.random(rows) < 0.05] = np.nan
        data[name] = values + (2.0 if drifted and name in ("n1", "n5") else 0.0)
    for name, most in zip(_WHOLE, (24, 2400, 10**6), strict=True):
        data[name] = random.integers(0, most, rows)
    for name, share in zip(_FLAGS, (0.2, 0.02), strict=True):
        data[name] = (random.random(rows) < share).astype(np.int64)
    for name, levels in _LEVELS.items():
        odds = 1 / np.arange(1, levels + 1)
        if drifted and name == "c16":
            odds = odds[::-1]
        names = pa.array([f"{name}-{i}" for i in range(levels)])
        places = random.choice(levels, rows, p=odds / odds.sum())
        data[name] = pd.array(names.take(pa.array(places)), dtype="str")
    return pd.DataFrame(data)


def measure(side: str, rows: int, folder: Path) -> dict[str, Any]:
    """One run of a side in this process: seconds, those of the processor (all threads), the peak of
    memory above what it started with, and how many columns it found drifted."""
    work = {
        "ours": _ours,
        "ours, reference too": _ours_with_reference,
        "from a file": _from_file,
        "evidently": _evidently,
    }[side]
    work(_WARM_ROWS, folder)()
    job = work(rows, folder)
    Path("/proc/self/clear_refs").write_text("5")
    before, started, cpu = _memory("VmRSS"), time.perf_counter(), time.process_time()
    drifted = job()
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "mib": _memory("VmHWM") - before,
        "drifted": drifted,
    }


def _frames(rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    return frame(rows, 1, drifted=False), frame(rows, 2, drifted=True)


def _table(rows: pd.DataFrame) -> Any:
    return pa.Table.from_pandas(rows, preserve_index=False)


def _judged(reference: Any, batches: Any) -> int:
    window = count_window(reference.bins, batches)
    verdict = judge_drift(reference, window, importance={}, settings=Drift(), seed=1)
    return len(verdict.drifted)


def _ours(rows: int, _: Path) -> Callable[[], int]:
    before, after = _frames(rows)
    reference = reference_statistics(_table(before), columns())
    return lambda: _judged(reference, _table(after).to_batches(_BATCH_ROWS))


def _ours_with_reference(rows: int, _: Path) -> Callable[[], int]:
    before, after = _frames(rows)

    def job() -> int:
        reference = reference_statistics(_table(before), columns())
        return _judged(reference, _table(after).to_batches(_BATCH_ROWS))

    return job


def _from_file(rows: int, folder: Path) -> Callable[[], int]:
    before, after = _frames(rows)
    reference = reference_statistics(_table(before), columns())
    path = folder / f"window-{rows}.parquet"
    pq.write_table(_table(after), path)
    del before, after

    def job() -> int:
        with pq.ParquetFile(path) as file:
            return _judged(reference, file.iter_batches(_BATCH_ROWS))

    return job


def _evidently(rows: int, _: Path) -> Callable[[], int]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    before, after = _frames(rows)
    categories = [name for name, column in columns().items() if column.type == "category"]
    numbers = [name for name in columns() if name not in (*categories, *_FLAGS)]
    definition = DataDefinition(
        numerical_columns=numbers, categorical_columns=[*categories, *_FLAGS]
    )

    def job() -> int:
        current = Dataset.from_pandas(after, data_definition=definition)
        reference = Dataset.from_pandas(before, data_definition=definition)
        found = Report([DataDriftPreset()]).run(current, reference).dict()
        counted = (m["value"]["count"] for m in found["metrics"] if "Drifted" in m["metric_name"])
        return int(next(counted))

    return job


def _memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def main(argv: Sequence[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Measure each side in turns, print a table, return the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each frame")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.side:
        print(json.dumps(measure(arguments.side, arguments.rows, arguments.folder)))
        return {}
    taken: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for side in SIDES[:: 1 if number % 2 == 0 else -1]:
                command = ["-m", "benchmarks.drift", "--rows", str(arguments.rows)]
                command += ["--side", side, "--folder", folder]
                done = run(command, Path(__file__).parents[1], environment())
                taken[side].append(done.result())
    rows = [_row(side, results, taken["evidently"]) for side, results in taken.items()]
    title = f"{arguments.rows:,} against {arguments.rows:,} rows of {len(columns())} columns"
    headings = ("", "seconds", "Evidently takes", "CPU s", "Evidently takes", "MiB more", "drifted")
    show(title, headings, rows)
    console.print(f"wanted: at least {GOAL} times")
    return taken


def _row(
    side: str, results: Sequence[dict[str, Any]], evidently: Sequence[dict[str, Any]]
) -> tuple[str, ...]:
    cells = []
    for key in ("seconds", "cpu"):
        took = _median(results, key)
        ratio = "" if side == "evidently" else f"{_median(evidently, key) / took:,.0f} times"
        cells += [f"{took:.2f}", ratio]
    return (side, *cells, f"{_median(results, 'mib'):,.0f}", str(results[0]["drifted"]))


def _median(results: Sequence[dict[str, Any]], key: str) -> float:
    return statistics.median(float(result[key]) for result in results)


if __name__ == "__main__":
    sys.exit(0 if main() is not None else 1)
