"""What the server learns of the processes beside it."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from perennial.contracts.errors import UnavailableError
from perennial.serving import keeper
from perennial.serving.beside import Beside, Shadow, read_beside
from perennial.serving.keeper import KeeperSettings
from perennial.serving.shadow_state import ShadowState
from perennial.serving.shadow_version import Scored
from tests.logged import prediction_rows, seal

STARTED = 5_000.0
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SILENT = "The process that writes the log's tables has not been heard of for a minute."


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "keeper.json"


def write(path: Path, after_seconds: float, **state: Any) -> None:
    told = {"updated_at": NOON.isoformat(), "monotonic_seconds": STARTED + after_seconds}
    path.write_text(json.dumps({**told, **state}))


def problems(path: Path, after_seconds: float) -> tuple[str, ...]:
    return read_beside(path.parent, STARTED, STARTED + after_seconds).problems


def test_a_keeper_that_is_well_has_no_problems(state_file: Path) -> None:
    write(state_file, 599, problems=[], damaged=[])

    assert problems(state_file, 600) == ()


def test_what_it_can_not_write_is_told_in_its_own_words(state_file: Path) -> None:
    write(state_file, 599, problems=["predictions of churn: the bucket does not answer"])

    assert problems(state_file, 600) == ("predictions of churn: the bucket does not answer",)


def test_damaged_parts_are_counted_and_the_last_is_named(state_file: Path) -> None:
    write(state_file, 599, problems=[], damaged=["/spool/1.aside", "/spool/2.aside"])

    assert problems(state_file, 600) == (
        "Parts of 2 log segments could not be read and are kept aside, the last as /spool/2.aside.",
    )


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"monotonic_seconds": "soon"}'])
def test_a_keeper_is_given_a_minute_to_be_heard_of(state_file: Path, content: str | None) -> None:
    if content is not None:
        state_file.write_text(content)

    assert problems(state_file, 59) == ()
    assert problems(state_file, 61) == (SILENT,)


def test_a_keeper_that_fell_silent_is_a_problem(state_file: Path) -> None:
    write(state_file, 100, problems=["the bucket does not answer"])

    assert problems(state_file, 161) == (SILENT, "the bucket does not answer")


def test_what_an_earlier_servers_keeper_told_is_old(state_file: Path) -> None:
    write(state_file, -3600, problems=["the bucket does not answer"])

    assert problems(state_file, 5) == ()
    assert problems(state_file, 61) == (SILENT,)


def test_what_was_told_before_the_machine_was_restarted_is_old(state_file: Path) -> None:
    write(state_file, 1e6, problems=["the bucket does not answer"])

    assert problems(state_file, 5) == ()
    assert problems(state_file, 61) == (SILENT,)


def test_shadows_are_told_with_what_they_could_not_score_and_mostly_why(state_file: Path) -> None:
    done = {"rows": 90, "seconds": 0.5, "failed_rows": 5, "reasons": {"slow": 1, "absent": 4}}
    well = {"rows": 7, "seconds": 0.1, "failed_rows": 0, "reasons": {}}
    write(state_file, 599, problems=[])
    versions = {"churn@12": done, "a@b@3": well}
    shadow_file = state_file.with_name("shadow.json")
    write(shadow_file, 30, versions=versions, problems=["the table is locked"])

    found = read_beside(state_file.parent, STARTED, STARTED + 600)

    assert found == Beside(
        ("the table is locked",),
        (Shadow("a@b", 3, 7, 0, 0.1, ""), Shadow("churn", 12, 90, 5, 0.5, "absent")),
    )


def test_what_an_earlier_servers_shadows_told_is_old(state_file: Path) -> None:
    done = {"rows": 90, "seconds": 0.5, "failed_rows": 0, "reasons": {}}
    write(state_file.with_name("shadow.json"), -1, versions={"churn@1": done}, problems=["x"])

    assert read_beside(state_file.parent, STARTED, STARTED) == Beside()


def test_what_the_shadow_process_writes_is_what_is_read(tmp_path: Path) -> None:
    state = ShadowState(tmp_path / "shadow.json", started=time.monotonic())
    state.problem("churn", UnavailableError("the registry does not answer"))
    state.done("churn", {4: Scored(4, reasons=Counter({"absent": 2, "slow": 1}))})

    found = read_beside(tmp_path, time.monotonic() - 30, time.monotonic())

    assert found == Beside(
        ("the registry does not answer",), (Shadow("churn", 4, 0, 3, 0.0, "absent"),)
    )


def test_what_a_keeper_writes_is_what_is_read_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    seal(tmp_path / "spool", prediction_rows(["a"]))
    (tmp_path / "tables").touch()
    settings = KeeperSettings(
        str(tmp_path), str(tmp_path / "spool"), str(tmp_path / "tables"),
        str(tmp_path / "keeper.json"), parent=-1,
    )  # fmt: skip
    monkeypatch.setattr(keeper, "_now", lambda: "2001-01-01T00:00:00.000+00:00")
    keeper.Keeper(settings).run(threading.Event())

    (problem,) = read_beside(tmp_path, started, time.monotonic()).problems

    assert problem.startswith(f"{tmp_path}/tables/predictions/m can't be written")
