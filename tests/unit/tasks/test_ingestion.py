"""A table that is put back while a run stands between looking at its source and publishing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from perennial.contracts.errors import PerennialError
from perennial.contracts.refs import DatasetRef, ModelRef, SourceRef, StagedRef, ValidationRef
from perennial.spec import ModelSpec
from perennial.stores import history, lake, tables
from perennial.stores.ingested import ingested
from perennial.stores.project import Project, load_model
from tasks.ingestion import inspect_source, publish, stage
from tests.unit.stores.conftest import TRIPS

ACCEPTED = ValidationRef(uri="audit", digest="", passed=True)


@dataclass
class Place:
    """A project whose source grows by the day; each step of an ingestion by itself."""

    root: Path
    model: ModelRef
    spec: ModelSpec

    @property
    def table(self) -> str:
        return Project(self.root).uri("tables", "trips")

    def write(self, days: int) -> None:
        times = pd.date_range("2024-01-01 10:00", periods=days, freq="D")
        rows = {"at": times, "car": "a", "zone": "north", "km": 1, "stops": 1, "note": ""}
        pd.DataFrame(rows | {"late": 1}).to_csv(self.root / "trips.csv", index=False)

    def look(self) -> tuple[SourceRef, StagedRef]:
        source = inspect_source.fn(self.model, None, full=False)
        return source, stage.fn(self.model, source)

    def publish(self, looked: tuple[SourceRef, StagedRef]) -> DatasetRef:
        return publish.fn(self.model, *looked, ACCEPTED, None)

    def ingest(self, days: int) -> int:
        self.write(days)
        return self.publish(self.look()).rows

    def look_after_two(self) -> tuple[SourceRef, StagedRef]:
        """A look at 30 days, of which a table of two versions has 15."""
        assert [self.ingest(5), self.ingest(15)] == [5, 15]
        self.write(30)
        return self.look()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("PERENNIAL_PROJECT", str(tmp_path))
    folder = tmp_path / "models" / "trips"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(TRIPS)
    return Place(tmp_path, *load_model(folder))


def test_rows_read_from_after_a_restored_tables_last_event_are_refused_and_come_with_the_next_run(
    place: Place,
) -> None:
    looked = place.look_after_two()
    history.restore(place.table, 0)

    with pytest.raises(PerennialError) as refused:
        place.publish(looked)
    assert str(refused.value) == (
        f"{place.table}: the table was put back or made anew while this run read its source from "
        "2024-01-12 10:00:00 UTC on, and now needs rows from 2024-01-02 10:00:00 UTC on; nothing "
        "was written (run again: it then reads from there)"
    )
    assert lake.version_of(place.table) == 2
    assert inspect_source.fn(place.model, None, full=False).since is not None

    assert place.publish(place.look()).rows == 30


def test_a_restore_that_leaves_the_last_event_where_it_was_is_published_to(place: Place) -> None:
    assert [place.ingest(5), place.ingest(15)] == [5, 15]
    history.restore(place.table, 0)
    history.restore(place.table, 1)
    place.write(30)
    looked = place.look()
    history.restore(place.table, 2)
    history.restore(place.table, 3)
    assert place.publish(looked).rows == 30


def test_a_restore_before_the_commit_is_seen_by_the_second_attempt(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = place.look_after_two()
    write = lake.write

    def restored_first(*given: object, **named: object) -> None:
        monkeypatch.setattr(lake, "write", write)
        history.restore(place.table, 0)
        write(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(lake, "write", restored_first)
    with pytest.raises(PerennialError, match="the table was put back or made anew"):
        place.publish(looked)
    assert place.publish(place.look()).rows == 30


def test_a_restore_between_the_commit_and_the_note_leaves_no_note_and_no_dataset(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = place.look_after_two()
    dataset = tables.dataset

    def restored_first(*given: object) -> DatasetRef:
        history.restore(place.table, 1)
        return dataset(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(tables, "dataset", restored_first)
        with pytest.raises(PerennialError, match="an earlier version was put back while this run"):
            place.publish(looked)
    assert ingested(place.table, looked[0]) is None
    assert place.publish(place.look()).rows == 30


def test_a_table_put_back_when_nothing_runs_is_filled_by_the_next_run(place: Place) -> None:
    assert [place.ingest(5), place.ingest(15)] == [5, 15]
    source = inspect_source.fn(place.model, None, full=False)
    assert ingested(place.table, source) == source
    history.restore(place.table, 0)
    assert ingested(place.table, source) is None
    assert place.publish(place.look()).rows == 15
