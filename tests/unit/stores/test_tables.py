from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pandas as pd
import pytest

from perennial.contracts.errors import InputError, IntegrityError, PerennialError
from perennial.contracts.refs import StagedRef
from perennial.data.splits import UNUSED, assign, split_columns
from perennial.stores import lake, quarantine, tables
from perennial.stores.standing import standing_of

HEAD = "at,car,zone,km,stops,note,late\n"
FIRST = HEAD + (
    "2024-01-01 10:00:00,a,north,10,1,x,true\n"
    "2024-01-02 10:00:00,b,south,20.5,2,,false\n"
    "2024-01-03 10:00:00,a,north,30,3,z,\n"
)
REFIT = (
    "(change model.yaml back, or train what it says now under another name: versions trained on "
    "this table are reproduced from it, and if you remove its folder they can't be)"
)


def moment(day: int, hour: int = 10) -> datetime:
    return datetime(2024, 1, day, hour, tzinfo=UTC)


def test_publishing_the_same_batch_again_leaves_the_version(trips: Any) -> None:
    trips.csv(FIRST)
    staged = trips.stage()
    assert trips.publish(staged) == 0
    before = trips.rows()
    assert trips.publish(staged) == 0
    assert trips.ingest(full=True) == 0
    pd.testing.assert_frame_equal(trips.rows(), before)


def test_a_late_row_within_lateness_is_added_in_its_place(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    trips.csv(FIRST + "2024-01-01 12:00:00,c,south,5,1,,true\n")
    assert trips.ingest() == 1
    assert trips.rows()["car"].tolist() == ["a", "c", "b", "a"]


def test_a_row_later_than_lateness_is_left_out_until_a_full_reading(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    trips.csv(FIRST + "2023-12-31 09:59:59,c,south,5,1,,true\n")
    assert trips.ingest() == 0
    assert trips.ingest(full=True) == 1
    assert trips.rows()["car"].tolist() == ["c", "a", "b", "a"]


def test_a_label_is_read_however_long_after_its_event_and_then_as_late_as_a_row(trips: Any) -> None:
    slow = trips.changed("delay: 1d", "delay: 60d")
    unlabelled = HEAD + "2024-01-01 10:00:00,a,north,10,1,x,\n"
    newest = "{:%Y-%m-%d} 10:00:00,b,south,5,1,,\n"
    slow.csv(unlabelled + newest.format(moment(1) + timedelta(days=62)))
    slow.ingest()
    later = newest.format(moment(1) + timedelta(days=63))
    slow.csv(unlabelled.replace("x,", "x,true") + later)
    slow.ingest()
    assert slow.rows()["late"].tolist()[0] == 1.0
    slow.csv(unlabelled.replace("x,", "x,false") + later)
    slow.ingest()
    assert slow.rows()["late"].tolist()[0] == 1.0  # the label came a day too late


def test_an_event_of_the_far_future_ends_no_reading(trips: Any) -> None:
    far = "9999-12-31 00:00:00,f,north,1,1,,true\n"
    trips.csv(FIRST + far)
    trips.ingest()
    assert quarantine.put_back(trips.spec, trips.quarantine, trips.table).bad == 1
    assert tables.watermark(trips.spec, trips.table) == moment(3)
    trips.csv(FIRST + far + "2024-01-04 10:00:00,d,north,1,1,,\n")
    trips.ingest()
    assert trips.rows()["car"].tolist() == ["a", "b", "a", "d"]


def test_an_event_of_the_future_is_taken_in_when_its_time_has_come(trips: Any) -> None:
    trips.csv(FIRST + "2024-01-05 10:00:00,d,south,5,1,,\n2024-01-06 10:00:00,e,south,5,1,,\n")
    trips.ingest(now=moment(3, 12))
    (_, fifth) = quarantine.rows(trips.quarantine)
    assert fifth.reason == "column at: '2024-01-05 10:00:00' is more than a day in the future"
    assert trips.rows()["car"].tolist() == ["a", "b", "a"]
    trips.ingest(now=moment(4))
    assert trips.rows()["car"].tolist() == ["a", "b", "a", "d"]
    quarantine.put_back(trips.spec, trips.quarantine, trips.table)
    assert trips.rows()["car"].tolist() == ["a", "b", "a", "d", "e"]
    assert quarantine.count(trips.quarantine) == 0


def test_a_table_that_holds_such_an_event_is_read_on_and_trained_without_it(trips: Any) -> None:
    far = "2042-01-01 00:00:00,f,north,1,1,,true\n"
    trips.csv(FIRST + far)
    trips.ingest(now=datetime(2042, 1, 1, tzinfo=UTC))
    trips.csv(FIRST + far + "2024-01-04 10:00:00,d,north,1,1,,\n")
    trips.ingest(now=moment(5))
    assert tables.watermark(trips.spec, trips.table, moment(5)) == moment(4)
    assert trips.rows()["car"].tolist() == ["a", "b", "a", "d"]


def test_an_event_of_the_zero_date_goes_to_quarantine_for_good(trips: Any) -> None:
    trips.csv(FIRST + "0001-01-01 00:00:00,z,north,1,1,,true\n")
    trips.ingest()
    assert [row.reason for row in quarantine.rows(trips.quarantine)] == [
        "column at: '0001-01-01 00:00:00' is before the year 300"
    ]
    assert quarantine.put_back(trips.spec, trips.quarantine, trips.table).bad == 1
    assert trips.rows()["car"].tolist() == ["a", "b", "a"]


def test_a_table_that_holds_an_event_of_the_zero_date_is_read(
    trips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perennial.data.checks.EARLIEST", datetime.min.replace(tzinfo=UTC))
    trips.csv(FIRST + "0001-01-01 00:00:00,z,north,1,1,,true\n")
    trips.ingest()
    assert trips.rows()["car"].tolist() == ["z", "a", "b", "a"]
    trips.csv(FIRST + "2024-01-04 10:00:00,d,north,1,1,,\n")
    trips.ingest()
    assert trips.rows()["car"].tolist() == ["z", "a", "b", "a", "d"]


def test_a_label_that_becomes_known_replaces_its_row_in_one_commit(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    trips.csv(FIRST.replace("3,z,\n", "3,z,true\n") + "2024-01-04 10:00:00,d,north,1,1,,\n")
    assert trips.ingest() == 1
    assert trips.rows()["late"].tolist()[:3] == [1.0, 0.0, 1.0]
    assert len(trips.rows()) == 4


def test_a_changed_row_leaves_the_rows_around_it_as_they_were(trips: Any) -> None:
    lines = [f"2024-01-01 {h:02}:{m:02}:00.000001,c{m},north,{h},{m},,true\n"
             for h in range(24) for m in range(60)]  # fmt: skip
    trips.csv(HEAD + "".join(lines))
    trips.ingest()
    before = trips.rows()
    changed = [line.replace("c7,north,5,", "c7,north,499,") for line in lines]
    trips.csv(HEAD + "".join(changed))
    assert trips.ingest() == 1
    after = trips.rows()
    at = (before["car"] == "c7") & (before["km"] == 5)
    before.loc[at, "km"] = 499.0
    pd.testing.assert_frame_equal(after, before)


def test_of_repeats_in_a_batch_the_last_in_source_order_counts(trips: Any) -> None:
    trips.csv(FIRST + "2024-01-01 10:00:00,a,south,11,9,later,false\n")
    trips.ingest()
    first = trips.rows().iloc[0]
    assert (first["zone"], first["km"], first["note"]) == ("south", 11.0, "later")
    assert len(trips.rows()) == 3


@pytest.mark.parametrize("name", ["corrections.csv", "z-corrections.csv"])
def test_a_correction_in_a_file_written_later_replaces_its_row_whatever_the_files_name(
    trips: Any, name: str
) -> None:
    project = trips.changed("uri: trips.csv", "uri: in")
    hour_ago = time.time() - 3600
    os.utime(project.csv(FIRST, "in/trips-2024-01.csv"), (hour_ago, hour_ago))
    project.ingest()
    project.csv(HEAD + "2024-01-01 10:00:00,a,south,11,9,mended,false\n", f"in/{name}")
    assert project.ingest(full=True) == 1
    first = project.rows().iloc[0]
    assert (first["zone"], first["km"], first["note"]) == ("south", 11.0, "mended")
    assert len(project.rows()) == 3


def test_missing_values_in_the_identity_are_equal_to_each_other(trips: Any) -> None:
    project = trips.changed("car: {type: category, nullable: false}", "car: {type: category}")
    project.csv(HEAD + "2024-01-01,,north,1,1,,true\n2024-01-02,b,north,1,1,,true\n")
    project.ingest()
    project.csv(HEAD + "2024-01-01,,north,1,1,,false\n2024-01-02,b,north,1,1,,true\n")
    assert project.ingest() == 1
    assert project.rows()["late"].tolist() == [0.0, 1.0]


def test_without_entity_a_row_is_its_columns_but_the_label(trips: Any) -> None:
    project = trips.changed("entity: [car], ", "")
    project.csv(FIRST)
    project.ingest()
    project.csv(FIRST.replace("10,1,x,true", "10,1,x,false").replace(",20.5,", ",21,"))
    assert project.ingest() == 1
    assert project.rows()["km"].tolist() == [10.0, 20.5, 21.0, 30.0]
    assert project.rows()["late"].tolist()[0] == 0.0


def test_only_files_that_reach_into_the_batch_are_replaced(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    trips.csv(HEAD + "2024-01-09 10:00:00,a,north,10,1,x,true\n")
    trips.ingest()
    files = set(deltalake.DeltaTable(trips.table).file_uris())
    trips.csv(HEAD + "2024-01-09 10:00:00,a,north,10,1,x,false\n")
    assert trips.ingest() == 2
    assert len(files & set(deltalake.DeltaTable(trips.table).file_uris())) == 1


def test_a_new_column_is_filled_in_by_reading_the_source_anew(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    grown = trips.changed("  note:", "  tip: {type: float}\n  note:")
    grown.csv("tip," + HEAD + "".join(f"{i}," + x + "\n" for i, x in
                                      enumerate(FIRST.splitlines()[1:])))  # fmt: skip
    assert tables.watermark(trips.spec, trips.table) == moment(3)
    assert tables.watermark(grown.spec, grown.table) is None
    assert grown.ingest() == 1
    assert grown.rows()["tip"].tolist() == [0.0, 1.0, 2.0]


def test_a_column_taken_out_stays_in_the_table_and_is_missing_in_new_rows(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    smaller = trips.changed("  note: {type: string}\n", "")
    smaller.csv(FIRST + "2024-01-04 10:00:00,d,north,1,1,seen,\n")
    assert smaller.ingest() == 1
    assert trips.rows()["note"].isna().tolist() == [False, True, False, True]


SPREAD = FIRST + "2024-02-01 10:00:00,d,north,1,1,new,true\n"
LATER = "2024-03-01 10:00:00,e,north,1,1,newer,true\n"


def without_note(trips: Any) -> Any:
    return trips.changed("  note: {type: string}\n", "")


def test_a_column_taken_out_and_put_back_has_its_values_in_the_rows_between(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    smaller = without_note(trips)
    smaller.csv(SPREAD)
    smaller.ingest()
    trips.csv(SPREAD + LATER)
    assert tables.watermark(smaller.spec, smaller.table) == datetime(2024, 2, 1, 10, tzinfo=UTC)
    assert tables.watermark(trips.spec, trips.table) is None
    trips.ingest()
    assert trips.rows()["note"].tolist() == ["x", np.nan, "z", "new", "newer"]
    assert tables.watermark(trips.spec, trips.table) == datetime(2024, 3, 1, 10, tzinfo=UTC)


def test_a_column_is_missing_in_no_row_only_when_the_source_was_read_to_its_end(
    trips: Any,
) -> None:
    trips.csv(FIRST)
    trips.ingest()
    smaller = without_note(trips)
    smaller.csv(SPREAD)
    smaller.ingest()
    trips.csv("at,car,zone,km,stops,note,late\n2024-01-02 11:00:00,f,north,1,1,y,true\n" + SPREAD
              .partition("\n")[2])  # fmt: skip
    trips.ingest(as_of=moment(3))
    assert trips.rows()["note"].isna().tolist() == [False, True, False, False, True]
    assert tables.watermark(trips.spec, trips.table) is None
    trips.ingest()
    assert trips.rows()["note"].isna().tolist() == [False, True, False, False, False]
    assert tables.watermark(trips.spec, trips.table) is not None


def test_a_row_corrected_while_a_column_is_out_keeps_what_it_held(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    smaller = without_note(trips)
    smaller.csv(FIRST.replace(",30,", ",31,"))
    assert smaller.ingest() == 1
    rows = trips.rows()
    assert rows["km"].tolist() == [10.0, 20.5, 31.0]
    assert rows["note"].tolist() == ["x", np.nan, "z"]
    assert tables.watermark(trips.spec, trips.table) is None


def test_a_row_put_back_without_a_column_has_it_read_from_the_source(trips: Any) -> None:
    smaller = without_note(trips)
    smaller.csv(SPREAD.replace(",20.5,", ",900,"))
    smaller.ingest()
    smaller.csv(HEAD + LATER)
    whole = SPREAD.replace(",20.5,2,,", ",900,2,seen,").splitlines(keepends=True)
    trips.csv("".join(line for line in whole if "seen" not in line))
    trips.ingest()
    wider = trips.changed("max: 500", "max: 1000")
    version = quarantine.put_back(wider.spec, wider.quarantine, wider.table)
    assert version.put_back == 1
    assert tables.watermark(wider.spec, wider.table) is None
    trips.csv("".join(whole))
    wider.ingest()
    assert wider.rows()["note"].tolist()[1] == "seen"


def test_a_table_of_more_columns_than_fit_one_number_knows_those_it_lacks(trips: Any) -> None:
    names = [f"n{i}" for i in range(130)]
    grown = "".join(f"  {name}: {{type: float}}\n" for name in names)
    wide = trips.changed("  note:", f"{grown}  note:")
    lines = [line + ",1" * len(names) for line in FIRST.splitlines()[1:]]
    wide.csv(",".join([HEAD.strip(), *names]) + "\n" + "\n".join(lines) + "\n")
    trips.csv(FIRST)
    trips.ingest()
    wide.csv(",".join([HEAD.strip(), *names]) + "\n" + "\n".join(lines) + "\n")
    wide.ingest()
    whole = standing_of(lake.open_table(wide.table))
    assert whole.columns == {*HEAD.strip().split(","), *names}
    fewer = trips.changed("  note:", grown.replace("  n100: {type: float}\n", "") + "  note:")
    fewer.csv(",".join([HEAD.strip(), *names]) + "\n" + "\n".join(
        [*lines, LATER.strip() + ",1" * len(names)]) + "\n")  # fmt: skip
    fewer.ingest()
    table = lake.open_table(wide.table)
    assert standing_of(table).columns == whole.columns - {"n100"}
    table.create_checkpoint()
    assert standing_of(lake.open_table(wide.table)).columns == whole.columns - {"n100"}
    assert tables.watermark(wide.spec, wide.table) is None
    assert tables.watermark(trips.spec, trips.table) is not None


def test_a_column_of_another_type_is_refused_and_nothing_changes(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    other = trips.changed("stops: {type: integer, min: 0}", "stops: {type: string}")
    with pytest.raises(InputError) as caught:
        other.publish(other.stage())
    assert str(caught.value) == (
        f"{trips.table}, column 'stops': is stored as int64, model.yaml now makes it string {REFIT}"
    )
    assert trips.rows()["stops"].tolist() == [1.0, 2.0, 3.0]


def test_another_entity_is_refused(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    other = trips.changed("entity: [car]", "entity: [car, zone]")
    with pytest.raises(InputError) as caught:
        other.ingest()
    what = "its rows are identified by at, car; model.yaml now adds zone"
    assert str(caught.value) == f"{trips.table}: {what} {REFIT}"


def test_without_entity_a_column_less_is_refused_and_another_order_is_not(trips: Any) -> None:
    whole = trips.changed("entity: [car], ", "")
    whole.csv(FIRST)
    whole.ingest()
    columns = whole.spec.columns
    turned = whole.spec.model_copy(update={"columns": dict(reversed(columns.items()))})
    whole.csv(FIRST.replace(",20.5,", ",21,"))
    assert replace(whole, spec=turned).ingest() == 1

    fewer = {name: column for name, column in columns.items() if name != "stops"}
    narrow = replace(whole, spec=whole.spec.model_copy(update={"columns": fewer}))
    with pytest.raises(InputError) as caught:
        narrow.ingest(full=True)
    what = "identified by at, car, zone, km, stops, note; model.yaml now leaves out stops"
    assert str(caught.value) == f"{whole.table}: its rows are {what} {REFIT}"


def test_a_batch_without_new_rows_keeps_the_table_and_needs_one(trips: Any) -> None:
    trips.csv(FIRST)
    with pytest.raises(InputError, match="no row of the source passed its checks"):
        trips.ingest(as_of=moment(1, 9))
    assert not Path(trips.table).exists()
    trips.ingest()
    trips.csv(HEAD + "2023-01-01,a,north,1,1,,true\n")
    assert trips.ingest() == 0


def test_a_dataset_is_the_rows_up_to_as_of(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    ref = tables.dataset(trips.spec, trips.table, moment(2))
    assert (ref.start, ref.rows, ref.version) == (moment(1), 2, 0)
    assert ref.end == moment(2) + timedelta(microseconds=1)
    assert ref.as_of == moment(2)


def test_a_table_that_was_made_anew_of_other_rows_can_not_hold_a_dataset(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    ref = tables.dataset(trips.spec, trips.table, None)
    assert tables.may_hold(ref, trips.spec)

    def anew(project: Any, text: str) -> bool:
        shutil.rmtree(project.table)
        project.csv(text)
        project.ingest()
        return bool(tables.may_hold(ref, trips.spec))

    assert anew(trips, FIRST)
    assert not anew(trips, FIRST.replace("2024-01-", "2024-02-")), "only rows of later"
    assert not anew(
        trips.changed("km: {type: float, min: 0, max: 500}", "km: {type: string}"), FIRST
    )
    assert not anew(trips.changed("  note: {type: string}\n", ""), FIRST)


def test_as_of_is_never_later_than_the_last_label_so_the_reference_is_stable(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    ref = tables.dataset(trips.spec, trips.table, None)
    assert ref.as_of == moment(4) + timedelta(microseconds=1)
    for later in (moment(5), datetime(2031, 1, 1), datetime(2031, 1, 1, tzinfo=UTC)):
        assert tables.dataset(trips.spec, trips.table, later) == ref


def test_without_as_of_no_label_is_used_that_nobody_can_know_yet(trips: Any) -> None:
    slow = trips.changed("delay: 1d", "delay: 5d")
    rows = [f"2024-01-{day:02} 10:00:00,a,north,1,1,,{day % 2}\n" for day in range(1, 21)]
    slow.csv(HEAD + "".join(rows))
    slow.ingest()
    now = moment(20, 11)
    plain = tables.dataset(slow.spec, slow.table, None, now)
    asked = tables.dataset(slow.spec, slow.table, now)
    assert (plain.rows, plain.content_digest) == (asked.rows, asked.content_digest)
    frame = pd.concat(tables.scan(plain, slow.spec, split_columns(slow.spec)))
    parts = assign(frame, slow.spec, plain.as_of)
    assert parts.tolist() == assign(frame, slow.spec, asked.as_of).tolist()
    assert parts.tolist()[14:] == [2] + 5 * [UNUSED]  # of the 15th, the last label that is known


def test_without_as_of_the_reference_changes_when_a_label_becomes_known_only(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    hours = [(3, 10), (3, 11), (4, 9), (4, 10), (4, 11), (25, 10)]
    refs = [tables.dataset(trips.spec, trips.table, None, moment(*hour)) for hour in hours]
    assert refs[0] == refs[1] == refs[2]
    assert refs[0].as_of == moment(3) + timedelta(microseconds=1)  # of the second, after its day
    assert refs[3] == refs[4] == refs[5] == tables.dataset(trips.spec, trips.table, None)
    assert refs[3].as_of == moment(4) + timedelta(microseconds=1)
    assert tables.dataset(trips.spec, trips.table, moment(25), moment(2)).rows == 2

    for ref, hour in zip(refs, hours, strict=True):
        for other, later in zip(refs, hours, strict=True):
            same = tables.is_current(trips.spec, ref, moment(*later))
            assert same == (ref == other), (hour, later)


def test_a_reference_is_of_now_while_no_label_is_known_or_an_event_is_to_come(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    early = tables.dataset(trips.spec, trips.table, None, moment(1, 11))
    assert not tables.is_current(trips.spec, early, moment(2, 11))
    slow = trips.changed("delay: 1d", "delay: 0d")
    before = tables.dataset(slow.spec, slow.table, None, moment(2, 11))
    assert before.rows == 2
    assert tables.is_current(slow.spec, before, moment(2, 12))
    assert not tables.is_current(slow.spec, before, moment(3, 11))


def test_a_moment_before_the_first_row_is_an_input_error(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    with pytest.raises(InputError) as caught:
        tables.dataset(trips.spec, trips.table, moment(1, 9))
    what = "no rows up to 2024-01-01T09:00:00+00:00 (name a later moment)"
    assert str(caught.value) == f"{trips.table}: {what}"


def test_a_dataset_before_any_ingestion_is_an_input_error(trips: Any) -> None:
    with pytest.raises(InputError, match="no table: nothing was ingested yet"):
        tables.dataset(trips.spec, trips.table, None)
    assert not tables.exists(trips.table)
    assert tables.watermark(trips.spec, trips.table) is None


def test_an_older_reference_still_reads_the_older_rows(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    old = tables.dataset(trips.spec, trips.table, None)
    trips.csv(FIRST.replace("true", "false") + "2024-01-01 12:00:00,c,south,5,1,,true\n")
    trips.ingest()
    assert pd.concat(tables.scan(old, trips.spec))["late"].tolist()[0] == 1.0
    assert sum(len(frame) for frame in tables.scan(old, trips.spec)) == old.rows == 3


def test_scan_sorts_by_event_time_then_identity_whatever_the_order_of_the_source(
    trips: Any,
) -> None:
    lines = [f"2024-01-0{d},{car},north,{d},1,,true\n" for d in (3, 1, 2) for car in "cab"]
    trips.csv(HEAD + "".join(lines))
    trips.ingest()
    ref = tables.dataset(trips.spec, trips.table, None)
    frames = list(tables.scan(ref, trips.spec, ["car", "km"], batch_rows=2))
    assert max(len(frame) for frame in frames) <= 2
    rows = pd.concat(frames)
    assert list(rows.columns) == ["car", "km"]
    assert rows["car"].tolist() == list("abc" * 3)
    assert rows["km"].tolist() == [1.0] * 3 + [2.0] * 3 + [3.0] * 3


def test_scan_gives_canonical_dtypes(trips: Any) -> None:
    project = trips.changed("{type: integer, min: 0}", "{type: integer, nullable: false}")
    project.csv(FIRST)
    project.ingest()
    assert {name: str(dtype) for name, dtype in project.rows().dtypes.items()} == {
        "at": "datetime64[us, UTC]", "car": "str", "zone": "str", "km": "float64",
        "stops": "int64", "note": "str", "late": "float64",
    }  # fmt: skip


def test_a_value_that_may_no_longer_be_missing_is_told_with_its_count(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    stricter = trips.changed("note: {type: string}", "note: {type: string, nullable: false}")
    with pytest.raises(InputError, match="column 'note': 1 of 3 values are missing"):
        stricter.rows()


def test_a_snapshot_keeps_the_order_of_its_source_and_its_repeats(leaves: Any) -> None:
    leaves.csv("length,kind,width\n3,b,1\n1,a,2\n3,b,1\n2,,\n")
    assert leaves.ingest() == 0
    assert leaves.rows()["length"].tolist() == [3.0, 1.0, 3.0, 2.0]
    ref = tables.dataset(leaves.spec, leaves.table, datetime(2024, 1, 1))
    assert (ref.start, ref.end, ref.as_of, ref.rows) == (None, None, None, 4)


def test_a_snapshot_is_replaced_only_when_something_differs(leaves: Any) -> None:
    leaves.csv("length,kind,width\n3,b,1\n1,a,2\n")
    assert [leaves.ingest(), leaves.ingest()] == [0, 0]
    leaves.csv("length,kind,width\n1,a,2\n3,b,1\n")
    assert [leaves.ingest(), leaves.ingest()] == [1, 1]
    leaves.csv("length,kind,width\n1,a,2\n")
    assert [leaves.ingest(), leaves.ingest()] == [2, 2]
    assert leaves.rows()["length"].tolist() == [1.0]


def test_a_snapshot_with_an_entity_is_ordered_by_it_and_each_is_there_once(leaves: Any) -> None:
    project = leaves.changed("uri: leaves.csv}", "uri: leaves.csv, entity: [kind]}")
    project.csv("length,kind,width\n3,b,1\n1,a,2\n9,b,7\n")
    project.ingest()
    assert project.rows()["length"].tolist() == [1.0, 9.0]
    project.csv("length,kind,width\n9,b,7\n1,a,2\n")
    assert project.ingest() == 0


def test_a_snapshot_takes_a_changed_column_type(leaves: Any) -> None:
    leaves.csv("length,kind,width\n3,5,1\n1,6,2\n")
    leaves.ingest()
    project = leaves.changed("kind: {type: category}", "kind: {type: integer}")
    assert project.ingest() == 1
    assert project.rows()["kind"].tolist() == [5.0, 6.0]


def test_a_corrupt_log_says_what_to_do(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    ref = tables.dataset(trips.spec, trips.table, None)
    log = Path(trips.table) / "_delta_log" / "00000000000000000000.json"
    log.write_text("{not json")
    for action in (
        lambda: tables.dataset(trips.spec, trips.table, None),
        lambda: tables.watermark(trips.spec, trips.table),
        lambda: tables.exists(trips.table),
        lambda: list(tables.scan(ref, trips.spec)),
    ):
        with pytest.raises(IntegrityError) as caught:
            action()
        assert str(caught.value).startswith(
            f"{trips.table}/_delta_log: the Delta log can't be read: "
        )
        assert str(caught.value).endswith(
            "(restore the table from a backup, or remove its folder and train anew from the source)"
        )
    assert not tables.intact(ref)


def test_a_log_without_its_first_entry_is_corrupt_not_absent(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    trips.csv(FIRST + "2024-01-04 10:00:00,d,north,1,1,,\n")
    trips.ingest()
    (Path(trips.table) / "_delta_log" / "00000000000000000000.json").unlink()
    with pytest.raises(IntegrityError, match="the Delta log can't be read"):
        tables.exists(trips.table)


def test_files_left_by_a_writer_killed_before_its_first_commit_are_no_table(trips: Any) -> None:
    trips.csv(FIRST)
    (Path(trips.table) / "_delta_log").mkdir(parents=True)
    (Path(trips.table) / "part-00000-dead.zstd.parquet").write_bytes(b"half a fi")
    assert not tables.exists(trips.table)
    assert trips.ingest() == 0
    assert len(trips.rows()) == 3


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_a_dataset_whose_file_is_damaged_is_not_intact(trips: Any, damage: str) -> None:
    trips.csv(FIRST)
    trips.ingest()
    ref = tables.dataset(trips.spec, trips.table, None)
    assert tables.intact(ref)
    (file,) = Path(trips.table).glob("*.parquet")
    file.unlink() if damage == "removed" else file.write_bytes(file.read_bytes()[:-9])
    assert not tables.intact(ref)
    with pytest.raises(IntegrityError, match="version 0 of the table is gone"):
        list(tables.scan(ref, trips.spec))


def test_a_dataset_of_a_version_that_is_not_there_is_not_intact(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    ref = tables.dataset(trips.spec, trips.table, None)
    assert not tables.intact(ref.model_copy(update={"version": 7}))
    assert not tables.intact(ref.model_copy(update={"uri": ref.uri + "-gone"}))


def test_nothing_temporary_stays_beside_the_table(trips: Any) -> None:
    trips.csv(FIRST + "x,y\n")
    trips.ingest()
    trips.rows()
    quarantine.put_back(trips.spec, trips.quarantine, trips.table)
    left = [p.name for p in trips.root.rglob("*") if p.name.startswith((".writing", "duckdb"))]
    assert left == []


def test_the_profile_of_a_dataset_counts_its_window_only(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    ref = tables.dataset(trips.spec, trips.table, moment(2))
    profile = tables.profile(ref, trips.spec)
    assert profile["rows"] == 2
    assert profile["columns"]["km"]["max"] == 20.5
    assert profile["columns"]["zone"]["levels"] == {"north": 1, "south": 1}


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file can grow beyond 100 kB, which to a writer is as good as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_the_table_stays_as_it_was(
    trips: Any, request: pytest.FixtureRequest
) -> None:
    trips.csv(FIRST)
    trips.ingest()
    random = np.random.default_rng(1).random(20_000)
    lines = (f"2024-01-04 10:00:00,{i},north,{x * 500},1,{x},\n" for i, x in enumerate(random))
    trips.csv(FIRST + "".join(lines))
    staged = trips.stage()
    request.getfixturevalue("small_disk")
    with pytest.raises(PerennialError) as caught:
        trips.publish(staged)
    assert str(caught.value) == (
        f"no space left while writing {trips.table}; it is as it was. Free some space and run again"
    )
    assert len(trips.rows()) == 3
    with pytest.raises(PerennialError, match="no space left while writing below"):
        trips.stage(full=True)
    assert [p.name for p in (trips.root / "staging").iterdir() if p.name.startswith(".")] == []


def test_a_file_damaged_inside_is_told_when_it_is_read(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    ref = tables.dataset(trips.spec, trips.table, None)
    (file,) = Path(trips.table).glob("*.parquet")
    content = bytearray(file.read_bytes())
    content[4:900] = b"\xff" * 896
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match="version 0 can't be read: "):
        list(tables.scan(ref, trips.spec))


def test_a_snapshot_whose_empty_column_changes_its_type_is_replaced(leaves: Any) -> None:
    leaves.csv("length,kind,width\n3,,1\n1,,2\n")
    leaves.ingest()
    project = leaves.changed("kind: {type: category}", "kind: {type: float}")
    assert project.ingest() == 1
    assert str(project.rows()["kind"].dtype) == "float64"


def test_a_source_of_broken_rows_only_is_staged_and_refused(trips: Any) -> None:
    trips.csv(HEAD + "x\ny,z\n")
    staged = trips.stage()
    assert (staged.rows, staged.bad_rows) == (0, 2)
    assert not trips.validate(staged).passed


def test_a_snapshot_that_was_looked_at_earlier_does_not_replace_a_later_one(
    leaves: Any,
) -> None:
    def look(text: str) -> tuple[StagedRef, int]:
        leaves.csv(f"length,kind,width\n{text}\n")
        return leaves.stage(), tables.ingestions(leaves.table)

    def publish(looked: tuple[StagedRef, int]) -> int:
        staged, seen = looked
        bad = leaves.quarantine
        return tables.publish(leaves.spec, staged, leaves.table, bad, seen=seen).version

    earlier, later = look("1,a,2\n-1,a,2"), look("1,a,3")
    assert publish(later) == 0
    with pytest.raises(PerennialError, match="another run took in the source"):
        publish(earlier)
    assert publish(later) == 0
    assert leaves.rows()["width"].tolist() == [3]
    assert quarantine.count(leaves.quarantine) == 0
