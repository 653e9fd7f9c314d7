"""How every task runs: which errors are retried, what is measured, what a log shows."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.tasks import exponential_backoff
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from perennial.contracts.errors import PerennialError, UnavailableError
from perennial.contracts.runs import StageRecord
from perennial.stores.project import Project

PROGRESS_VARIABLE = "PERENNIAL_PROGRESS"
_BAR_WIDTH = 41  # of all that stands before a bar's note


class _Retries(TypedDict):
    retries: int
    retry_delay_seconds: Any
    retry_jitter_factor: float
    retry_condition_fn: Any


def worth_retrying(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001
    """Only what may pass by itself: a store that doesn't answer, a lock, a broken connection."""
    try:
        state.result()
    except (UnavailableError, ConnectionError, TimeoutError):
        return True
    except Exception as error:
        return type(error).__name__ in ("OperationalError", "InterfaceError", "CommitFailedError")
    return False


RETRIES: _Retries = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=0.5),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": worth_retrying,
}


class _NoTrace(logging.Filter):
    """A person's mistake is shown as its message; the trace through our code tells them nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if isinstance(record.exc_info, tuple) else None
        if kind is not None and issubclass(kind, PerennialError):
            record.exc_info = None
        return True


for _name in ("prefect.task_runs", "prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(_NoTrace())


@dataclass
class Measured:
    """Row counts a stage fills in while it is measured, and a bar it may move."""

    stage: str
    rows_in: int | None = None
    rows_out: int | None = None
    _bar: Progress | None = None

    def progress(self, done: int, total: int | None, note: str = "") -> None:
        """Say how far the stage is, of ``total`` if that is known. Silent unless the command line
        asked for bars."""
        if self._bar is not None:
            room = max(self._bar.console.width - _BAR_WIDTH, 0)
            self._bar.update(TaskID(0), completed=done, total=total, note=note[:room])


@contextmanager
def measured(stage: str) -> Iterator[Measured]:
    """Record a stage's duration, peak memory and rows for the summary of its run.

    Peak memory is the process's: reset when the stage starts where Linux allows it.
    """
    counts = Measured(stage)
    started = time.perf_counter()
    _reset_peak_memory()
    with ExitStack() as shown:
        if os.environ.get(PROGRESS_VARIABLE):
            counts._bar = shown.enter_context(_bar())
            counts._bar.add_task(stage, total=None, note="")
        yield counts
    record = StageRecord(
        stage=stage,
        cached=False,
        seconds=round(time.perf_counter() - started, 3),
        peak_memory_mib=round(_peak_memory_mib(), 1),
        rows_in=counts.rows_in,
        rows_out=counts.rows_out,
    )
    folder = records_folder(str(flow_run.get_id() or "outside"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stage}.json").write_text(record.model_dump_json())
    if TaskRunContext.get():
        get_run_logger().info(_told(record))


def _told(record: StageRecord) -> str:
    """``tune: 59,620 rows in, 35.7 s, peak memory 574 MiB``, for the run's log."""
    rows = ((record.rows_in, "in"), (record.rows_out, "out"))
    figures = [f"{count:,} rows {way}" for count, way in rows if count is not None]
    figures += [f"{record.seconds:.1f} s", f"peak memory {record.peak_memory_mib:,.0f} MiB"]
    return f"{record.stage}: {', '.join(figures)}"


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bar() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def records_folder(run: str) -> Path:
    """Where a flow run's stage records lie."""
    return Project.current().home / "runs" / run


def stage_records(run: str, stages: tuple[str, ...]) -> tuple[StageRecord, ...]:
    """The records of a run in the order of ``stages``; a stage without one came from the cache."""
    records = []
    for stage in stages:
        path = records_folder(run) / f"{stage}.json"
        if path.is_file():
            records.append(StageRecord.model_validate(json.loads(path.read_text())))
        else:
            records.append(StageRecord(stage=stage, cached=True))
    return tuple(records)


def _reset_peak_memory() -> None:
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory_mib() -> float:
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
