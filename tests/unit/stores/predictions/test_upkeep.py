"""A table of the log stays small in files and keeps nothing for longer than it may."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from perennial.contracts.errors import UnavailableError
from perennial.stores.predictions.reading import predictions
from perennial.stores.predictions.tables import commit_segments
from perennial.stores.predictions.upkeep import Tidied, tidy
from tests.logged import NOON, prediction_rows, seal

YEARS = timedelta(days=36_500)


def ids(uri: str) -> list[str]:
    return sorted(id for batch in predictions(uri) for id in batch["_id"].to_pylist())


def files(uri: str) -> int:
    return len(DeltaTable(uri).file_uris())


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """Four commits of one day and one of the next, by versions with other inputs."""
    uri = str(tmp_path / "table")
    batches = [prediction_rows([f"{i}"], {f"x{i % 2}": [1.0]}) for i in range(4)]
    batches.append(prediction_rows(["next"], time=NOON + timedelta(days=1)))
    for segment in seal(tmp_path / "spool", *batches):
        commit_segments([segment], uri)
    return uri


def test_many_small_files_of_a_day_become_one(uri: str) -> None:
    assert tidy(uri, YEARS, 4, NOON, vacuum=False) == Tidied(4, 0, 0)
    assert files(uri) == 2
    assert ids(uri) == ["0", "1", "2", "3", "next"]
    assert tidy(uri, YEARS, 4, NOON, vacuum=False) == Tidied(0, 0, 0)


def test_few_small_files_are_left_alone(uri: str) -> None:
    assert tidy(uri, YEARS, 5, NOON, vacuum=False) == Tidied(0, 0, 0)
    assert files(uri) == 5


def test_a_compacted_table_still_knows_what_it_has(uri: str, tmp_path: Path) -> None:
    (segment,) = seal(tmp_path / "spool", prediction_rows(["x"]))
    commit_segments([segment], uri)
    tidy(uri, YEARS, 2, NOON, vacuum=True)
    assert commit_segments([segment], uri).rows == 0
    assert ids(uri) == ["0", "1", "2", "3", "next", "x"]


@pytest.mark.parametrize(
    ("now", "left"),
    [
        (datetime(2026, 3, 24, 23, 59, tzinfo=UTC), ["0", "1", "2", "3", "next"]),
        (datetime(2026, 3, 25, 0, 0, tzinfo=UTC), ["next"]),
        (datetime(2026, 3, 26, 0, 0, tzinfo=UTC), []),
    ],
)
def test_a_day_is_kept_until_all_of_it_is_old_enough(
    uri: str, now: datetime, left: list[str]
) -> None:
    done = tidy(uri, timedelta(days=10), 100, now, vacuum=False)
    assert ids(uri) == left
    assert done.expired_days == 2 - len({id == "next" for id in left})


def test_files_are_deleted_once_no_recent_version_needs_them(uri: str) -> None:
    tidy(uri, YEARS, 4, NOON, vacuum=True)
    assert len(list(Path(uri).glob("_date=*/*.parquet"))) == 6
    table = DeltaTable(uri)
    table.alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 seconds"})
    assert tidy(uri, YEARS, 4, NOON, vacuum=True) == Tidied(0, 0, 4)
    assert len(list(Path(uri).glob("_date=*/*.parquet"))) == 2
    assert ids(uri) == ["0", "1", "2", "3", "next"]


def test_a_table_that_is_not_there_yet_needs_nothing(tmp_path: Path) -> None:
    assert tidy(str(tmp_path / "none"), YEARS, 4, NOON, vacuum=True) == Tidied(0, 0, 0)


def test_a_store_that_does_not_answer_is_worth_another_try(uri: str) -> None:
    for path in Path(uri).glob("_date=2026-03-14/*.parquet"):
        path.unlink()
    with pytest.raises(UnavailableError, match="can't be tidied"):
        tidy(uri, YEARS, 4, NOON, vacuum=False)
