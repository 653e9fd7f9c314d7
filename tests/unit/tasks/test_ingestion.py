"""A table that others change while a run stands between looking at its source and publishing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from perennial.contracts.errors import PerennialError
from perennial.contracts.refs import DatasetRef, ModelRef, SourceRef, StagedRef, ValidationRef
from perennial.spec import ModelSpec
from perennial.stores import history, lake, tables
from perennial.stores.ingested import ingested
from perennial.stores.project import Project, load_model
from tasks._caching import Stage
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

    def write(self, days: int, km: int = 1) -> None:
        """``km`` is that of the fifth day."""
        times = pd.date_range("2024-01-01 10:00", periods=days, freq="D")
        kms = [km if day == 4 else 1 for day in range(days)]
        rows = {"at": times, "car": "a", "zone": "north", "km": kms, "stops": 1, "note": ""}
        pd.DataFrame(rows | {"late": 1}).to_csv(self.root / "trips.csv", index=False)

    def look(self) -> tuple[SourceRef, StagedRef]:
        source = inspect_source.fn(self.model, None, full=False)
        return source, stage.fn(self.model, source)

    def publish(self, looked: tuple[SourceRef, StagedRef]) -> DatasetRef:
        return publish.fn(self.model, *looked, ACCEPTED, None)

    def ingest(self, days: int) -> int:
        self.write(days)
        return self.publish(self.look()).rows

    def km(self) -> list[float]:
        """Of the fifth day."""
        ref = tables.dataset(self.spec, self.table, None)
        rows = pd.concat(tables.scan(ref, self.spec), ignore_index=True)
        return list(rows.loc[rows["at"] == pd.Timestamp("2024-01-05 10:00", tz="UTC"), "km"])

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


def test_a_run_that_looked_before_another_published_does_not_put_old_values_over_its_corrections(
    place: Place,
) -> None:
    """The next runs begin a month later, and would never see the row again."""
    place.ingest(6)
    place.write(7)
    earlier = place.look()
    place.write(40, km=99)
    assert place.publish(place.look()).rows == 40

    with pytest.raises(PerennialError) as refused:
        place.publish(earlier)
    assert str(refused.value) == (
        f"{place.table}: another run took in the source after this run looked at it, and this run "
        "would put earlier values over later ones; none of its rows was taken in (run again: the "
        "source is then read as it is now)"
    )
    assert lake.version_of(place.table) == 1
    assert place.publish(place.look()).rows == 40
    assert place.km() == [99]


def test_another_runs_commit_between_reading_the_table_and_writing_is_seen_by_the_second_attempt(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.ingest(6)
    place.write(7)
    earlier = place.look()
    place.write(40, km=99)
    later = place.look()
    write = lake.write

    def published_first(*given: object, **named: object) -> None:
        monkeypatch.setattr(lake, "write", write)
        place.publish(later)
        write(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(lake, "write", published_first)
    with pytest.raises(PerennialError, match="another run took in the source"):
        place.publish(earlier)
    assert place.km() == [99]


def test_the_first_of_two_runs_that_make_the_table_together_may_not_change_what_the_second_read(
    place: Place,
) -> None:
    place.write(7)
    earlier = place.look()
    place.write(7, km=99)
    place.publish(place.look())
    with pytest.raises(PerennialError, match="another run took in the source"):
        place.publish(earlier)
    assert place.km() == [99]


def test_a_run_that_looked_earlier_and_changes_no_row_is_published(place: Place) -> None:
    """Rows the other run didn't read, up to an earlier day, are new; and a batch may come twice."""
    place.ingest(6)
    place.write(20, km=99)
    looked = place.look()
    past = inspect_source.fn(place.model, datetime(2024, 1, 10, 12, tzinfo=UTC), full=False)
    place.publish((past, stage.fn(place.model, past)))
    done = place.publish(looked)
    assert (done.rows, done.version) == (20, 2)
    assert place.publish(looked) == done
    assert place.km() == [99]


def test_an_earlier_version_put_back_does_not_count_as_a_later_look(place: Place) -> None:
    assert [place.ingest(6), place.ingest(7)] == [6, 7]
    place.write(7, km=99)
    looked = place.look()
    history.restore(place.table, 0)
    history.restore(place.table, 1)
    place.publish(looked)
    assert place.km() == [99]

    assert tables.ingestions(place.table) == 3
    history.restore(place.table, 0)
    assert tables.ingestions(place.table) == 3


def test_what_the_table_had_taken_in_makes_no_other_key_and_no_other_source(place: Place) -> None:
    place.ingest(6)
    source = inspect_source.fn(place.model, None, full=False)
    later = source.model_copy(update={"seen": 7})
    assert source.seen == 1
    assert ingested(place.table, later) == later
    keys = {Stage(name="stage").base_key({"source": one}) for one in (source, later)}
    assert len(keys) == 1
