"""The prediction log as it grows: appended, committed, compacted, looked at.

    python -m benchmarks.scale_log FOLDER ROWS

Rows of thirty days go the way that a server's go: through a spool, its segments committed by the
keeper's code to a Delta table. A fifth of them get labels. Prints what was measured as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.scale_project import inputs, model_names, write_models
from perennial.contracts.rollouts import Guard, Plan, Step
from perennial.stores.predictions import Spool
from perennial.stores.predictions.columns import TIMESTAMP
from perennial.stores.predictions.segments import Kind
from perennial.stores.predictions.tables import commit_segments, open_log
from perennial.stores.predictions.upkeep import tidy
from perennial.stores.predictions.waiting import finish, waiting
from perennial.stores.project import Project
from perennial.stores.registry import Registry

DAYS = 30
END = datetime(2026, 3, 31, tzinfo=UTC)
LABELLED = 0.2
_RECORD_ROWS = 1_000
_DRIP_ROWS = 200
"""A segment of 5 seconds at 40 predictions a second: 100 million a month."""
_DRIPS = 15
_MOST_WAITING = 2**40
_KEEP = timedelta(days=400)


class Log:
    """The log of one model, and what appending to it and committing took."""

    def __init__(self, project: Project, model: str) -> None:
        self._model = model
        self.project = project
        self.uri = {kind: str(project.folder(kind, model)) for kind in ("predictions", "labels")}
        self.commits: list[tuple[float, int]] = []
        self.append_seconds = self.commit_cpu = 0.0
        self.spool_bytes = 0
        self._spool = project.home / "spool"

    def write(self, kind: Kind, batches: Iterator[pa.RecordBatch]) -> None:
        """Append; whatever is sealed meanwhile is committed, as the keeper would."""
        spool = Spool(self._spool, max_bytes=_MOST_WAITING)
        for batch in batches:
            started = time.perf_counter()
            spool.append(self._model, kind, batch, {"shadow": []})
            self.append_seconds += time.perf_counter() - started
            if waiting(self._spool, most=1):
                self._commit()
        spool.close()
        self._commit()

    def _commit(self) -> None:
        for stream in waiting(self._spool):
            for segment in stream:
                started, used = time.perf_counter(), _cpu()
                done = commit_segments([segment], self.uri[segment.kind])
                self.commit_cpu += _cpu() - used
                self.commits.append((time.perf_counter() - started, done.rows))
                self.spool_bytes += segment.bytes
                finish(segment.path, "live")

    def size(self, kind: Kind = "predictions") -> tuple[int, int]:
        """Files and bytes of the table as it is."""
        table = open_log(self.uri[kind])
        if table is None:
            return 0, 0
        sizes = pa.table(table.get_add_actions(flatten=True))["size_bytes"]
        return len(sizes), pc.sum(sizes).as_py()


def predictions(first: int, rows: int, total: int) -> Iterator[pa.RecordBatch]:
    """Rows ``first …`` of ``total``, spread evenly over the days."""
    random = np.random.default_rng(first)
    start = np.datetime64((END - timedelta(days=DAYS)).replace(tzinfo=None), "us")
    step = DAYS * 86_400_000_000 / total
    for at in range(first, first + rows, _RECORD_ROWS):
        count = min(_RECORD_ROWS, first + rows - at)
        numbers = np.arange(at, at + count)
        times = pa.array(start + (numbers * step).astype("timedelta64[us]")).cast(TIMESTAMP)
        ids = pc.binary_join_element_wise("01a1ff8184746e38897600", _text(numbers), "-")
        version = np.where(random.random(count) < 0.5, 1, 2)
        own = {name: pa.array(values) for name, values in inputs(random, count).items()}
        columns = {
            "_id": ids,
            "_request_id": ids,
            "_time": times,
            "_version": pa.array(version, pa.int64()),
            "_arm": pa.array(np.where(version == 1, "champion", "challenger")),
            "_latency_ms": pa.array(random.gamma(2, 1, count)),
            "_compute_ms": pa.array(random.gamma(2, 0.2, count)),
            "_prediction": pa.array(random.random(count)),
            "_class": pa.nulls(count, pa.string()),
            "_probabilities": pa.nulls(count, pa.list_(pa.float64())),
            "at": times,
            **own,
        }
        yield pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def labels(total: int) -> Iterator[pa.RecordBatch]:
    """Labels of a part of the predictions, each a day after its own."""
    random = np.random.default_rng(5)
    start = np.datetime64((END - timedelta(days=DAYS - 1)).replace(tzinfo=None), "us")
    step = DAYS * 86_400_000_000 / total
    every = round(1 / LABELLED)
    for at in range(0, total, _RECORD_ROWS * every):
        numbers = np.arange(at, min(at + _RECORD_ROWS * every, total), every)
        times = pa.array(start + (numbers * step).astype("timedelta64[us]")).cast(TIMESTAMP)
        columns = {
            "_received_at": times,
            "_id": pc.binary_join_element_wise("01a1ff8184746e38897600", _text(numbers), "-"),
            "label": pa.array(random.choice(["no", "yes"], len(numbers))),
        }
        yield pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _text(numbers: np.ndarray) -> pa.Array:
    return pc.cast(pa.array(numbers), pa.string())


def measure(folder: Path, rows: int) -> dict[str, Any]:
    """Write so many predictions, and what the log then costs. Seconds, unless named otherwise."""
    from perennial.stores.rolling_out import look
    from perennial.stores.watching import watch

    (model,) = names = model_names(1)
    project = write_models(folder, names, versions=2)
    log = Log(project, model)
    log.write("predictions", predictions(0, rows, rows))
    found: dict[str, Any] = {"rows": rows}
    seconds = [took for took, count in log.commits if count]
    found["commit, CPU"] = log.commit_cpu
    found["append, rows/s"] = rows / log.append_seconds
    found["spool, bytes a row"] = log.spool_bytes / rows
    found["commits"] = len(seconds)
    found["commit, rows/s"] = rows / sum(seconds)
    found["commit, the last third"] = median(seconds[-max(1, len(seconds) // 3) :])
    found["files before"], table_bytes = log.size()
    found["table, bytes a row"] = table_bytes / rows
    before, log.commits = log.commits, []
    for drip in range(_DRIPS):
        log.write("predictions", predictions(rows + drip * _DRIP_ROWS, _DRIP_ROWS, 2 * rows))
    found["commit of 200 rows"] = median(took for took, _ in log.commits)
    _timed(found, "tidy", lambda: tidy(log.uri["predictions"], _KEEP, 2, END, vacuum=False))
    _timed(
        found,
        "tidy, nothing to do",
        lambda: tidy(log.uri["predictions"], _KEEP, 100_000, END, vacuum=False),
    )
    found["files after"], _ = log.size()
    log.write("labels", labels(rows))
    log.commits = before
    found["MiB so far"] = _peak_mib()

    registry = Registry(project.registry_url)
    spec, version = project.load_model(model)[1], registry.version(model, 1)
    week = (END - timedelta(days=9), END - timedelta(days=2))
    seen = _timed(
        found,
        "look at a week",
        lambda: watch(project, spec, version, week, now=END - timedelta(hours=1), threads=1),
    )
    found["rows of the week"] = seen.look.rows
    found["MiB of the look"] = _peak_mib()
    step = Step(
        strategy="canary", weight=50, bake_seconds=60, timeout_seconds=86_400, min_requests=10,
        guards=(Guard(name="error_rate", kind="error_rate", limit=0.5),
                Guard(name="prediction_shift", kind="prediction", limit=0.5)),
    )  # fmt: skip
    began = END - timedelta(hours=1)
    rollout = registry.rollouts.begin(
        model, 2, Plan(steps=(step,)), actor="benchmark", reason="measured", cause="measured",
        now=began,
    )  # fmt: skip
    checked = _timed(
        found,
        "look at an hour's rollout",
        lambda: look(project, registry, spec, rollout, actor="benchmark", now=END),
    )
    assert checked.state.last is not None
    found["rows of the rollout"] = checked.state.last.requests
    registry.close()
    command = [sys.executable, "-m", "perennial", "--project", str(folder), "status", model]
    _timed(
        found,
        "perennial status",
        lambda: subprocess.run([*command, "--json"], check=True, capture_output=True),
    )
    found["GB on disk"] = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e9
    return found


def _timed(found: dict[str, Any], what: str, work: Callable[[], Any]) -> Any:
    """What the work gives; its seconds by the clock and of the processors go to ``found``."""
    started, used = time.perf_counter(), _cpu()
    value = work()
    found[what], found[f"{what}, CPU"] = time.perf_counter() - started, _cpu() - used
    return value


def _cpu() -> float:
    """Processor seconds of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
