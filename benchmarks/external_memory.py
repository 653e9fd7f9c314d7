"""Training on a matrix several times larger than the memory that a process may use.

    python -m benchmarks.external_memory --rows 10000000 --limit-mib 1024

A matrix of 100 features is written to disk and trained on, in processes of their own: without a
limit, and in a control group of its own with a limit on memory, as a container has it, which counts
the files that it reads, too. Under the limit it is tried in pages and at once, as it would be
without XGBoost's external memory. The boosters are compared by their bytes. Needs root.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

FEATURES = 100
_CHUNK = 100_000
_MODEL = """
name: wide
objective: binary
source: {kind: csv, uri: rows.csv}
label: {column: y}
columns: {x: {type: float}}
split: {kind: random, validation: 0.2, test: 0.2}
"""


def write_matrix(folder: Path, rows: int) -> None:
    """A float32 matrix and its labels, 5 % of the values missing."""
    shape = (rows, FEATURES)
    x = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.float32, shape=shape)
    y = np.empty(rows, np.float32)
    for start in range(0, rows, _CHUNK):
        random = np.random.default_rng(start)
        block = random.standard_normal((min(_CHUNK, rows - start), FEATURES), np.float32)
        noise = random.standard_normal(len(block))
        y[start : start + len(block)] = block[:, 0] - block[:, 1] * block[:, 2] + noise > 0
        block[random.random(block.shape, np.float32) < 0.05] = np.nan
        x[start : start + len(block)] = block
    x.flush()
    np.save(folder / "y.npy", y)


def train(folder: Path, rounds: int, memory_mib: int) -> dict[str, Any]:
    """In this process: train with so much memory for the matrix."""
    from perennial.contracts.features import Feature, FeatureSchema
    from perennial.learning.matrices import Matrices
    from perennial.learning.training import booster_bytes, train_booster
    from perennial.spec import parse_spec

    x, y = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xy")
    features = tuple(Feature(name=f"x{i}") for i in range(FEATURES))
    schema = FeatureSchema(inputs=(), features=features, classes=("0", "1"))
    matrices = Matrices(x, y, x[:0], y[:0], schema, memory_mib << 20)
    started = time.monotonic()
    booster = train_booster(matrices, parse_spec(_MODEL), {"max_depth": 6}, rounds, 2)
    seconds = time.monotonic() - started
    status = Path("/proc/self/status").read_text()
    figures = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if "kB" in line}
    return {
        "seconds": round(seconds, 1),
        "resident_mib": int(figures["VmHWM"]) >> 10,
        "booster": hashlib.sha256(booster_bytes(booster)).hexdigest()[:12],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    from benchmarks.harness import console

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--limit-mib", type=int, default=576)
    parser.add_argument("--within", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.within:
        folder, memory, group = options.within
        if group:
            Path(group, "cgroup.procs").write_text(str(os.getpid()))
        print(json.dumps(train(Path(folder), options.rounds, int(memory))))
        return
    with tempfile.TemporaryDirectory() as place:
        write_matrix(Path(place), options.rows)
        size = (Path(place) / "x.npy").stat().st_size >> 20
        limit = options.limit_mib
        console.print(f"{options.rows:,} rows x {FEATURES} features: {size:,} MiB as float32")
        runs = (
            ("in memory, no limit", 1 << 20, 0),
            (f"in pages, {limit} MiB allowed", limit // 12, limit),
            (f"in memory, {limit} MiB allowed", 1 << 20, limit),
        )
        for name, memory, most in runs:
            _forget(Path(place))
            with _group(most) as group:
                told = _run(place, options.rounds, memory, group)
            console.print(f"{name:<32}{told}")


def _forget(folder: Path) -> None:
    """Drop the files from the page cache: what another process has read is not counted against the
    limit of the one that reads it next."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


@contextmanager
def _group(limit_mib: int) -> Iterator[str]:
    """A control group that may use so much memory, of which version the machine has; "" for 0."""
    if not limit_mib:
        yield ""
        return
    first = Path("/sys/fs/cgroup/memory")
    root, name = (
        (first, "memory.limit_in_bytes") if first.is_dir() else (first.parent, "memory.max")
    )
    group = root / f"perennial-benchmark-{os.getpid()}"
    group.mkdir()
    try:
        (group / name).write_text(str(limit_mib << 20))
        yield str(group)
    finally:
        group.rmdir()


def _run(folder: str, rounds: int, memory: int, group: str) -> str:
    command = [sys.executable, "-m", "benchmarks.external_memory", "--rounds", str(rounds)]
    command += ["--within", folder, str(memory), group]
    # Stacks and pools of threads that do nothing count too, where a limit is this tight.
    small = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "2", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **small}
    )
    if done.returncode == 0:
        found = json.loads(done.stdout.splitlines()[-1])
        return (
            f"{found['seconds']} s, most resident {found['resident_mib']} MiB, "
            f"booster {found['booster']}"
        )
    last = (done.stderr.strip().splitlines() or ["killed"])[-1]
    return f"ended with {done.returncode}: {last[:120]}"


if __name__ == "__main__":
    main()
