"""What differs between two versions of a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perennial.contracts.data_versions import ColumnChange, Window
from perennial.contracts.errors import InputError
from perennial.stores import lake
from perennial.stores.differences import diff

START = datetime(2024, 1, 1, tzinfo=UTC)
ROWS = st.dictionaries(
    st.tuples(st.integers(0, 3), st.sampled_from(["a", "b"])),
    st.tuples(st.sampled_from([None, 1.0, 2.0, float("nan")]), st.sampled_from([None, "x", "y"])),
    max_size=8,
)


def write(uri: str, rows: dict[tuple[int, str], tuple[Any, Any]], identity: list[str]) -> None:
    """The table's next version: these rows, in place of all."""
    schema = pa.schema(
        [("at", pa.timestamp("us", "UTC")), ("car", pa.string()), ("km", pa.float64()),
         ("note", pa.string())]
    )  # fmt: skip
    columns = [
        [START + timedelta(hours=hour) for hour, _ in rows],
        [car for _, car in rows],
        [km for km, _ in rows.values()],
        [note for _, note in rows.values()],
    ]
    table = pa.table(columns, schema=schema)
    about = {"identity": identity}
    lake.write(uri, lake.open_table(uri), table.to_reader(), replace=True, about=about)


def same(one: Any, other: Any) -> bool:
    """As Delta and DuckDB have it: missing is missing, NaN is NaN."""
    both = [isinstance(value, float) and np.isnan(value) for value in (one, other)]
    return all(both) or (one == other and not any(both))


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(before=ROWS, after=ROWS)
def test_rows_are_added_removed_and_changed_as_by_looking_at_each(
    tmp_path_factory: pytest.TempPathFactory, before: Any, after: Any
) -> None:
    uri = str(tmp_path_factory.mktemp("t") / "table")
    write(uri, before, ["at", "car"])
    write(uri, after, ["at", "car"])

    found = diff(uri, 0, 1, "at")

    both = before.keys() & after.keys()
    km = {key for key in both if not same(before[key][0], after[key][0])}
    note = {key for key in both if not same(before[key][1], after[key][1])}
    touched = (after.keys() ^ before.keys()) | km | note
    assert (found.rows_before, found.rows_after) == (len(before), len(after))
    assert found.added == len(after.keys() - before.keys())
    assert found.removed == len(before.keys() - after.keys())
    assert found.changed == len(km | note)
    assert found.columns == {k: len(v) for k, v in (("km", km), ("note", note)) if v}
    hours = sorted(hour for hour, _ in touched)
    assert found.window == (
        Window(first=START + timedelta(hours=hours[0]), last=START + timedelta(hours=hours[-1]))
        if hours
        else None
    )
    back = diff(uri, 1, 0, "at")
    assert (back.added, back.removed, back.changed) == (found.removed, found.added, found.changed)


def test_rows_without_identity_are_told_apart_by_all_they_hold(leaves: Any) -> None:
    leaves.csv("length,kind,width\n1,oak,1\n1,oak,1\n2,elm,2\n")
    leaves.ingest()
    leaves.csv("length,kind,width\n3,oak,1\n1,oak,1\n2,elm,2\n3,oak,1\n")
    leaves.ingest()
    found = diff(leaves.table, 0, 1, None)
    assert (found.by, found.added, found.removed, found.changed) == ((), 2, 1, 0)
    assert (found.window, found.columns) == (None, {})


def test_columns_that_come_go_or_change_their_type_are_told(tmp_path: Any) -> None:
    uri = str(tmp_path / "table")
    rows = pd.DataFrame({"at": [START], "gone": [1], "size": [1]})
    for frame in (rows, rows.assign(size="1", new=2.5).drop(columns="gone")):
        table = pa.Table.from_pandas(frame, preserve_index=False)
        reader, about = table.to_reader(), {"identity": ["at"]}
        lake.write(
            uri, lake.open_table(uri), reader, replace=True, schema_mode="overwrite", about=about
        )
    found = diff(uri, 0, 1, "at")
    assert found.schema_changes == (
        ColumnChange(column="gone", before="int64", after=None),
        ColumnChange(column="size", before="int64", after="string"),
        ColumnChange(column="new", before=None, after="double"),
    )
    assert found.changed == 1
    assert found.columns == {"gone": 1, "new": 1}, "the size reads the same as text"


def test_files_that_both_versions_have_are_not_read(tmp_path: Any) -> None:
    uri = str(tmp_path / "table")
    for hours in (range(2), range(2, 5)):
        table = pa.table(
            {"at": pa.array([START + timedelta(hours=h) for h in hours], pa.timestamp("us", "UTC"))}
        )
        lake.write(uri, lake.open_table(uri), table.to_reader(), about={"identity": ["at"]})
    shared = lake.paths_of(lake.open_table(uri, 0))
    for path in shared:
        size = (tmp_path / "table" / path).stat().st_size
        (tmp_path / "table" / path).write_bytes(b"x" * size)
    assert diff(uri, 0, 1, "at").added == 3


def test_a_version_that_never_was_is_refused(trips: Any) -> None:
    trips.csv("at,car,zone,km,stops,note,late\n2024-01-01 10:00:00,a,north,10,1,x,true\n")
    trips.ingest()
    with pytest.raises(InputError, match=r"no version 1 \(it has version 0 only\)"):
        diff(trips.table, 0, 1, "at")
