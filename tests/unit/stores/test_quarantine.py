from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from perennial.stores import artefacts, lake, quarantine, tables

ANY_SHARE = ("split:", "quarantine: {max_share: 1}\nsplit:")
HEAD = "at,car,zone,km,stops,note,late\n"
GOOD = HEAD + "2024-01-01 10:00:00,a,north,10,1,x,true\n2024-01-02 10:00:00,b,south,20,2,,false\n"
FAR = "2024-01-01 12:00:00,c,south,900,1,,true\n"
NO_TIME = "soon,d,south,5,1,,true\n"
BROKEN = "2024-01-01 13:00:00,e\n"


def reasons(project: Any) -> list[str]:
    return sorted(row.reason for row in quarantine.rows(project.quarantine))


def test_bad_rows_are_kept_as_they_came_with_reason_and_place(trips: Any) -> None:
    trips.csv(GOOD + FAR + BROKEN)
    staged = trips.stage()
    trips.publish(staged)
    far, broken = quarantine.rows(trips.quarantine)
    assert far.reason == "column km: 900 is above max 500"
    assert far.place == "trips.csv row 4"
    assert far.event_time == datetime(2024, 1, 1, 12, tzinfo=UTC)
    assert far.batch == staged.digest
    assert far.row == {
        "at": "2024-01-01 12:00:00", "car": "c", "zone": "south", "km": "900", "stops": "1",
        "note": None, "late": "true",
    }  # fmt: skip
    assert broken.reason == "2 values where the header has 7 columns"
    assert (broken.row, broken.event_time) == ("2024-01-01 13:00:00,e", None)


def test_the_same_bad_rows_again_add_nothing(trips: Any) -> None:
    trips.csv(GOOD + FAR + NO_TIME + BROKEN)
    staged = trips.stage()
    for _ in range(2):
        trips.publish(staged)
    trips.csv(GOOD + "2024-01-03 10:00:00,z,north,1,1,,\n" + FAR + NO_TIME + BROKEN)
    trips.ingest()
    assert quarantine.count(trips.quarantine) == 3


def test_a_row_that_breaks_another_rule_than_before_gets_its_new_reason(trips: Any) -> None:
    trips.csv(GOOD + FAR)
    trips.ingest()
    wider = trips.changed("max: 500", "max: 800")
    wider.ingest()
    assert reasons(wider) == ["column km: 900 is above max 800"]


def test_without_bad_rows_there_is_no_quarantine_table(trips: Any) -> None:
    trips.csv(GOOD)
    trips.ingest()
    assert not tables.exists(trips.quarantine)
    assert (quarantine.count(trips.quarantine), quarantine.rows(trips.quarantine)) == (0, [])
    result = quarantine.put_back(trips.spec, trips.quarantine, trips.table)
    assert result == quarantine.PutBack(checked=0, put_back=0, present=0, bad=0)


def test_rows_that_pass_by_the_rules_of_today_go_into_the_table_and_leave(trips: Any) -> None:
    trips.csv(GOOD + FAR + NO_TIME + BROKEN)
    trips.ingest()
    wider = trips.changed("max: 500", "max: 1000")
    result = quarantine.put_back(wider.spec, wider.quarantine, wider.table)
    assert result == quarantine.PutBack(checked=3, put_back=1, present=0, bad=2)
    assert wider.rows()["car"].tolist() == ["a", "c", "b"]
    assert wider.rows()["km"].tolist() == [10.0, 900.0, 20.0]
    again = quarantine.put_back(wider.spec, wider.quarantine, wider.table)
    assert again == quarantine.PutBack(checked=2, put_back=0, present=0, bad=2)


def test_what_was_cached_before_rows_were_put_back_is_not_used_again(trips: Any) -> None:
    trips.csv(GOOD + FAR)
    trips.ingest()
    wider = trips.changed("max: 500", "max: 1000")
    before = tables.dataset(wider.spec, wider.table, None)
    assert artefacts.intact(before)

    quarantine.put_back(wider.spec, wider.quarantine, wider.table)

    assert not artefacts.intact(before), "a cached publish of before would leave the rows out"
    after = tables.dataset(wider.spec, wider.table, None)
    assert (before.rows, after.rows) == (2, 3)
    assert artefacts.intact(after), "an unchanged run afterwards is cached again"
    wider.csv("at,car,zone,km,stops,note,late\n2024-01-04 10:00:00,f,north,1,1,,true\n")
    wider.ingest()
    assert artefacts.intact(after), "rows that only followed change nothing of what was read"


def test_rows_that_still_break_a_rule_stay(trips: Any) -> None:
    trips.csv(GOOD + FAR)
    trips.ingest()
    version = tables.dataset(trips.spec, trips.table, None).version
    result = quarantine.put_back(trips.spec, trips.quarantine, trips.table)
    assert result == quarantine.PutBack(checked=1, put_back=0, present=0, bad=1)
    assert quarantine.count(trips.quarantine) == 1
    assert tables.dataset(trips.spec, trips.table, None).version == version


def test_a_row_that_the_source_has_mended_leaves(trips: Any) -> None:
    other = FAR.replace(",c,", ",f,")
    trips.csv(GOOD + FAR + other + NO_TIME + BROKEN)
    trips.ingest()
    trips.csv(GOOD + FAR.replace("900", "90") + other + NO_TIME + BROKEN)
    trips.ingest()
    kept = [row.row for row in quarantine.rows(trips.quarantine)]
    assert sorted(row["car"] for row in kept if isinstance(row, dict)) == ["d", "f"]
    assert len(kept) == 3


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_the_tables_commit_leaves_no_mended_row_behind(
    trips: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    trips.csv(GOOD + FAR)
    trips.ingest()
    later = (
        "2024-01-20 10:00:00,z,north,1,1,,true\n"  # the next reading begins after the mended row
    )
    trips.csv(GOOD + FAR.replace("900", "90") + later)
    write = lake.write

    def killed(uri: str, *args: Any, **more: Any) -> None:
        if uri == trips.table and when == "before":
            raise KeyboardInterrupt
        write(uri, *args, **more)
        if uri == trips.table:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(lake, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            trips.ingest()
    trips.ingest()
    trips.ingest()
    wider = trips.changed("max: 500", "max: 1000")
    wider.ingest()
    assert wider.rows().set_index("car")["km"]["c"] == 90
    assert quarantine.count(wider.quarantine) == 0


@pytest.mark.parametrize("when", ["while it is checked", "before the commit"])
def test_a_row_that_is_mended_while_it_is_put_back_stays_mended(
    trips: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    other = FAR.replace(",c,", ",f,")
    trips.csv(GOOD + FAR + other)
    trips.ingest()
    later = (
        "2024-01-20 10:00:00,z,north,1,1,,true\n"  # the next reading begins after the mended row
    )
    wider = trips.changed("max: 500", "max: 1000")
    check_again, write = quarantine._check_again, lake.write

    def mend() -> None:
        monkeypatch.undo()
        trips.csv(GOOD + FAR.replace("900", "90") + other + later)
        trips.ingest()

    def checked(*args: Any) -> Any:
        result = check_again(*args)
        mend()
        return result

    def beaten(*args: Any, **more: Any) -> None:
        mend()
        write(*args, **more)

    if when == "before the commit":
        monkeypatch.setattr(lake, "write", beaten)
    else:
        monkeypatch.setattr(quarantine, "_check_again", checked)
    result = quarantine.put_back(wider.spec, wider.quarantine, wider.table)
    assert result == quarantine.PutBack(checked=2, put_back=1, present=1, bad=0)
    trips.csv(GOOD + FAR.replace("900", "90") + other + later)
    wider.ingest()
    assert wider.rows().set_index("car")["km"][["c", "f"]].tolist() == [90, 900]
    assert quarantine.count(wider.quarantine) == 0


def test_a_correction_in_the_same_source_never_enters_quarantine(trips: Any) -> None:
    trips.csv(GOOD + FAR + FAR.replace("900", "90"))
    trips.ingest()
    more = "2024-01-03 10:00:00,z,north,1,1,,true\n"
    trips.csv(GOOD + FAR + FAR.replace("900", "90") + more)
    trips.ingest()
    assert quarantine.count(trips.quarantine) == 0
    assert lake.version_of(trips.quarantine) == 0, "nothing was written there, not even to leave"


def test_the_last_word_of_a_batch_says_whether_a_row_is_mended(trips: Any) -> None:
    trips.csv(GOOD + FAR + FAR.replace("900", "90"))
    trips.ingest()
    assert quarantine.count(trips.quarantine) == 0
    trips.csv(GOOD + FAR.replace("900", "90") + FAR.replace("900", "900.0"))
    trips.ingest()
    assert reasons(trips) == ["column km: 900.0 is above max 500"]


def test_rows_that_a_snapshot_has_mended_leave_if_it_names_its_rows(leaves: Any) -> None:
    leaves.csv("length,kind,width\n3,b,1\n-1,a,2\n-1,c,2\n")
    named = leaves.changed("source: {", "source: {entity: [kind], ")
    named.ingest()
    leaves.csv("length,kind,width\n3,b,1\n1,a,2\n")
    named.ingest()
    (kept,) = quarantine.rows(named.quarantine)
    assert isinstance(kept.row, dict)
    assert kept.row["kind"] == "c", "what the source no longer has is not mended"


def test_a_correction_that_broke_a_rule_takes_effect_when_the_rule_goes(trips: Any) -> None:
    trips.csv(GOOD + FAR.replace("900", "90"))
    trips.ingest()
    trips.csv(GOOD + FAR)
    trips.ingest()
    assert trips.rows()["km"].tolist() == [10.0, 90.0, 20.0]
    wider = trips.changed("max: 500", "max: 1000")
    result = quarantine.put_back(wider.spec, wider.quarantine, wider.table)
    assert result == quarantine.PutBack(checked=1, put_back=1, present=0, bad=0)
    assert wider.rows()["km"].tolist() == [10.0, 900.0, 20.0]
    assert quarantine.count(wider.quarantine) == 0


@pytest.mark.parametrize("words", [["900", "1000", "950"], ["950", "900", "950"]])
@pytest.mark.parametrize("batches", [1, 3])
def test_of_bad_rows_of_one_identity_the_last_is_kept_and_put_back(
    trips: Any, words: list[str], batches: int
) -> None:
    others = "".join(f"2024-01-01 1{n}:00:00,x{n},south,1,1,,true\n" for n in range(7))
    rows = [FAR.replace("900", word) for word in words]  # rows 9, 10, 11: "11" sorts before "9"
    for number in range(batches):
        part = rows if batches == 1 else [rows[number]]
        trips.csv(GOOD + others + "".join(part))
        trips.ingest()
    assert reasons(trips) == ["column km: 950 is above max 500"]
    wider = trips.changed("max: 500", "max: 2000")
    result = quarantine.put_back(wider.spec, wider.quarantine, wider.table)
    assert result == quarantine.PutBack(checked=1, put_back=1, present=0, bad=0)
    assert wider.rows().set_index("car")["km"]["c"] == 950


def test_the_last_word_is_kept_in_whatever_words_it_comes(trips: Any) -> None:
    for word in ("900", "950", "900.0"):
        trips.csv(GOOD + FAR.replace("900", word))
        trips.ingest()
    assert reasons(trips) == ["column km: 900.0 is above max 500"]


def test_what_left_the_table_yields_to_its_correction(trips: Any, spec_of: Any) -> None:
    trips = replace(trips, spec=spec_of(ANY_SHARE))
    trips.csv(GOOD + FAR.replace("900", "450"))
    trips.ingest()
    trips.csv(GOOD + FAR)
    trips.ingest()
    stricter = replace(trips, spec=spec_of(ANY_SHARE, ("max: 500", "max: 400")))
    trips.csv(HEAD + "2024-01-03 10:00:00,z,north,1,1,,true\n")
    stricter.ingest()
    assert (len(stricter.rows()), quarantine.count(stricter.quarantine)) == (3, 2)
    wider = trips.changed("max: 500", "max: 1000")
    wider.ingest()
    assert wider.rows().set_index("car")["km"]["c"] == 900


def test_a_rule_undone_brings_rows_back_also_where_the_source_has_decimal_commas(
    trips: Any, spec_of: Any
) -> None:
    commas = ("trips.csv", 'trips.csv, delimiter: ";", decimal: ","')
    trips = replace(trips, spec=spec_of(ANY_SHARE, commas))
    trips.csv((GOOD + FAR.replace("900", "401.125")).replace(",", ";").replace(".", ","))
    trips.ingest()
    before = trips.rows()
    trips.csv(HEAD.replace(",", ";"))
    stricter = replace(trips, spec=spec_of(ANY_SHARE, commas, ("max: 500", "max: 400")))
    stricter.ingest()
    (row,) = quarantine.rows(trips.quarantine)
    assert row.reason == "column km: 401.125 is above max 400"
    assert isinstance(row.row, dict)
    assert row.row["km"] == "401,125"
    trips.ingest()
    assert trips.rows().equals(before)
    assert quarantine.count(trips.quarantine) == 0


def test_rows_put_back_are_the_same_as_if_they_had_been_read_so(trips: Any) -> None:
    trips.csv(GOOD + "2024-01-01 12:00:00.123456+02:00,c, south,0.1,7.0,NA,1\n")
    trips.ingest()
    wider = trips.changed("allowed: [north, south]", 'allowed: [north, south, " south"]')
    quarantine.put_back(wider.spec, wider.quarantine, wider.table)
    put_back = wider.rows()
    assert wider.ingest(full=True) == tables.dataset(wider.spec, wider.table, None).version
    assert put_back.iloc[1]["zone"] == " south"
    assert len(wider.rows()) == 3


def test_a_snapshots_rows_leave_quarantine_and_come_with_the_next_ingestion(leaves: Any) -> None:
    leaves.csv("length,kind,width\n3,b,1\n-1,a,2\n")
    leaves.ingest()
    looser = leaves.changed("min: 0", "min: -5")
    result = quarantine.put_back(looser.spec, looser.quarantine, looser.table)
    assert result == quarantine.PutBack(checked=1, put_back=1, present=0, bad=0)
    assert quarantine.count(looser.quarantine) == 0
    looser.ingest()
    assert looser.rows()["length"].tolist() == [3.0, -1.0]


def test_rows_are_shown_newest_first_and_bounded(trips: Any) -> None:
    lines = [f"2024-01-01 {h:02}:00:00,c{h},south,900,1,,true\n" for h in range(24)]
    trips.csv(GOOD + "".join(lines))
    trips.publish(trips.stage())
    shown = quarantine.rows(trips.quarantine, limit=2)
    assert [row.event_time.hour for row in shown if row.event_time] == [23, 22]
    assert json.loads(shown[0].model_dump_json())["row"]["car"] == "c23"
