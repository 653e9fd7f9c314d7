"""How every task runs: what is measured, what is tried again, what a log shows of an error."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from deltalake.exceptions import CommitFailedError
from prefect import task
from prefect.client.schemas.objects import TaskRun
from prefect.logging import get_logger
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.states import Completed, exception_to_failed_state
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError

from perennial.contracts.errors import InputError, IntegrityError, PerennialError, UnavailableError
from perennial.contracts.runs import StageRecord
from tasks._running import RETRIES, cores, measured, stage_records, worth_retrying
from tests.workplace import Workplace

MIB = 2**20


@pytest.fixture
def run(project: Workplace, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a flow run in a fresh project."""
    number = str(uuid4())
    monkeypatch.setenv("PERENNIAL_PROJECT", str(project.root))
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", number)
    return number


def _record(project: Workplace, run: str, stage: str) -> StageRecord:
    text = (project.root / ".perennial" / "runs" / run / f"{stage}.json").read_text()
    return StageRecord.model_validate(json.loads(text))


def test_a_stage_leaves_a_record_of_its_time_memory_and_rows(project: Workplace, run: str) -> None:
    with measured("stage") as counts:
        held = bytearray(b"x") * (200 * MIB)
        counts.rows_in, counts.rows_out = 10, 7
    del held
    record = _record(project, run, "stage")
    assert (record.stage, record.cached) == ("stage", False)
    assert (record.rows_in, record.rows_out) == (10, 7)
    assert record.seconds is not None
    assert record.seconds > 0
    assert record.peak_memory_mib is not None
    assert record.peak_memory_mib > 200


def test_peak_memory_is_the_stages_own_where_the_system_can_tell(
    project: Workplace, run: str
) -> None:
    with measured("large"):
        held = bytearray(b"x") * (300 * MIB)
        del held
    with measured("small"):
        pass
    large = _record(project, run, "large").peak_memory_mib
    small = _record(project, run, "small").peak_memory_mib
    assert large is not None
    assert small is not None
    assert small < large - 200 if sys.platform == "linux" else small >= large


def test_a_stage_that_does_not_handle_rows_has_none_in_its_record(
    project: Workplace, run: str
) -> None:
    with measured("register"):
        pass
    record = _record(project, run, "register")
    assert record.rows_in is None
    assert record.rows_out is None


def test_a_stage_that_fails_leaves_no_record(project: Workplace, run: str) -> None:
    with pytest.raises(ValueError, match="no"), measured("train"):
        raise ValueError("no")
    assert not (project.root / ".perennial" / "runs" / run / "train.json").exists()


def test_records_come_in_the_order_of_stages_and_a_missing_one_was_cached(
    project: Workplace, run: str
) -> None:
    for stage in ("tune", "split"):
        with measured(stage):
            pass
    records = stage_records(run, ("stage", "split", "tune"))
    assert [(r.stage, r.cached) for r in records] == [
        ("stage", True), ("split", False), ("tune", False),
    ]  # fmt: skip
    assert records[0] == StageRecord(stage="stage", cached=True)


def test_progress_is_silent_unless_it_was_asked_for(
    project: Workplace, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with measured("tune") as counts:
        counts.progress(1, 10, "trial 1")
    assert capsys.readouterr() == ("", "")


def test_at_least_one_core_may_be_used() -> None:
    assert cores() >= 1


@task(**RETRIES)
def _some_task() -> None: ...


def _judged(error: Exception) -> bool:
    state = asyncio.run(exception_to_failed_state(error))
    run = TaskRun(task_key="some", dynamic_key="0")
    return worth_retrying(_some_task, run, state)


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("the database does not answer"),
        ConnectionResetError("reset by peer"),
        TimeoutError("timed out"),
        OperationalError("select 1", {}, sqlite3.OperationalError("database is locked")),
        InterfaceError("select 1", {}, Exception("connection already closed")),
        sqlite3.OperationalError("database is locked"),
        CommitFailedError("another writer was first"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass_by_itself_is_tried_again(error: Exception) -> None:
    assert _judged(error)


@pytest.mark.parametrize(
    "error",
    [
        InputError("the file is empty"),
        IntegrityError("the bundle was tampered with"),
        PerennialError("no trial ended"),
        ValueError("a mistake of ours"),
        FileNotFoundError("gone"),
        MemoryError(),
        OSError(28, "No space left on device"),
        ProgrammingError("select x", {}, sqlite3.ProgrammingError("no such column")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_fail_again_is_not_tried_again(error: Exception) -> None:
    assert not _judged(error)


def test_a_task_that_completed_is_not_tried_again() -> None:
    run = TaskRun(task_key="some", dynamic_key="0")
    assert not worth_retrying(_some_task, run, Completed(data=None))


def test_tries_wait_ever_longer_and_not_in_step() -> None:
    assert _some_task.retries == 3
    assert _some_task.retry_delay_seconds == [0.5, 1.0, 2.0]
    assert _some_task.retry_jitter_factor == 0.5
    assert _some_task.retry_condition_fn is worth_retrying


@pytest.fixture
def _no_server() -> Iterator[None]:
    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield


def _shown(name: str, error: Exception) -> str:
    """What a log of this name prints of an error, trace included."""
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    logger = get_logger(name)
    logger.addHandler(handler)
    try:
        try:
            raise error
        except Exception:
            logger.exception("Task run failed: %s", error)
    finally:
        logger.removeHandler(handler)
    return shown.getvalue().rstrip("\n")


@pytest.mark.usefixtures("_no_server")
@pytest.mark.parametrize("name", ["task_runs", "flow_runs", "engine"])
@pytest.mark.parametrize("error", [InputError("the file is empty"), UnavailableError("away")])
def test_a_message_meant_for_a_person_is_logged_without_a_trace(
    name: str, error: PerennialError
) -> None:
    assert _shown(name, error) == f"Task run failed: {error.message}"


@pytest.mark.usefixtures("_no_server")
@pytest.mark.parametrize("name", ["task_runs", "flow_runs", "engine"])
def test_any_other_error_keeps_its_trace(name: str) -> None:
    shown = _shown(name, ValueError("a mistake of ours"))
    assert "Traceback (most recent call last)" in shown
    assert Path(__file__).name in shown
