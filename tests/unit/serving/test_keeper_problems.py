"""What the server tells of its keeper."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perennial.serving.keeper_problems import keeper_problems

STARTED = datetime(2026, 11, 21, 19, tzinfo=UTC)
SILENT = "The process that writes the log's tables has not been heard of for a minute."


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "keeper.json"


def write(path: Path, after_seconds: float, **state: Any) -> None:
    at = STARTED + timedelta(seconds=after_seconds)
    path.write_text(json.dumps({"updated_at": at.isoformat(), **state}))


def problems(path: Path, after_seconds: float) -> tuple[str, ...]:
    return keeper_problems(path, STARTED, STARTED + timedelta(seconds=after_seconds))


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


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"updated_at": "soon"}'])
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
