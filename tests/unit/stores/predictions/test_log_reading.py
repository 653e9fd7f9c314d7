"""Reading the log back: by time, by column, a little at a time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from perennial.contracts.errors import InputError
from perennial.stores.predictions.reading import labels, predictions
from perennial.stores.predictions.tables import commit_segments
from tests.logged import NOON, label_rows, prediction_rows, seal

HOUR = timedelta(hours=1)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A prediction each hour of three days."""
    uri = str(tmp_path / "table")
    first = NOON.replace(hour=0)
    batches = [prediction_rows([f"{i:02}"], {"x": [i]}, time=first + i * HOUR) for i in range(72)]
    commit_segments(seal(tmp_path / "spool", *batches), uri)
    return uri


def ids(uri: str, start: datetime | None, end: datetime | None) -> list[int]:
    return sorted(int(id) for b in predictions(uri, start, end, ["_id"]) for id in b[0].to_pylist())


def test_a_window_has_its_start_and_not_its_end(uri: str) -> None:
    assert ids(uri, NOON, NOON + 24 * HOUR) == list(range(12, 36))
    assert ids(uri, None, NOON) == list(range(12))
    assert ids(uri, NOON + 58 * HOUR, None) == [70, 71]
    assert ids(uri, NOON, NOON) == []


def test_a_window_may_be_given_in_another_time_zone(uri: str) -> None:
    here = timezone(timedelta(hours=-9))
    late = (NOON + 18 * HOUR).astimezone(here)
    assert late.date() != (NOON + 18 * HOUR).date()
    assert ids(uri, late, late + HOUR) == [30]


def test_only_the_columns_that_were_asked_for_come(uri: str) -> None:
    batches = list(predictions(uri, columns=["x", "_id"]))
    assert all(batch.schema.names == ["x", "_id"] for batch in batches)
    assert sum(batch.num_rows for batch in batches) == 72


def test_all_columns_come_by_default(uri: str) -> None:
    batch = next(predictions(uri))
    assert batch.schema.names[:3] == ["_id", "_request_id", "_time"]
    assert {"x", "_date"} <= set(batch.schema.names)


def test_a_column_that_is_not_there_is_told(uri: str) -> None:
    with pytest.raises(InputError) as error:
        next(predictions(uri, columns=["_id", "_versoin"]))
    assert str(error.value) == (
        f"{uri}, column '_versoin': no such column; did you mean '_version'?"
    )


def test_a_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert list(predictions(str(tmp_path / "none"))) == []


def test_labels_are_read_by_when_they_came(tmp_path: Path) -> None:
    uri = str(tmp_path / "table")
    batches = [label_rows([f"{i}"], time=NOON + i * HOUR) for i in range(3)]
    commit_segments(seal(tmp_path / "spool", *batches, kind="labels"), uri)
    found = [row["_id"] for batch in labels(uri, NOON + HOUR, None) for row in batch.to_pylist()]
    assert sorted(found) == ["1", "2"]
