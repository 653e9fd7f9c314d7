"""Rules that change: a table's rows by those of today."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perennial.contracts.errors import InputError
from perennial.stores import artefacts, history, judging, lake, quarantine, tables
from perennial.stores.standing import Standing, standing_of

HEAD = "at,car,zone,km,stops,note,late\n"
OLD = "2024-01-01 10:00:00,a,north,10,1,x,true\n2024-01-02 10:00:00,b,south,400.5,2,,false\n"
MIDDLE = "2024-01-03 10:00:00,a,north,30,3,z,true\n"
NEW = "2024-02-01 10:00:00,c,north,450,1,x,true\n2024-02-02 10:00:00,d,north,20,4,x,true\n"
ANY_SHARE = ("split: {kind: time", "quarantine: {max_share: 1}\nsplit: {kind: time")


def ruled(trips: Any, spec_of: Any, *changes: tuple[str, str]) -> Any:
    return replace(trips, spec=spec_of(ANY_SHARE, *changes))


@pytest.fixture
def loose(trips: Any, spec_of: Any) -> Any:
    """A project whose table has three rows beyond lateness and two within."""
    project = ruled(trips, spec_of)
    project.csv(HEAD + OLD + MIDDLE + NEW)
    project.ingest()
    return project


@pytest.fixture
def strict(trips: Any, spec_of: Any, loose: Any) -> Any:
    """The same with a rule that an old row and a new one break."""
    return ruled(trips, spec_of, ("max: 500", "max: 100"))


def held(project: Any) -> list[tuple[str, str]]:
    return sorted((row.place, row.reason) for row in quarantine.rows(project.quarantine))


def test_rows_that_a_stricter_rule_refuses_leave_the_table_in_one_commit(strict: Any) -> None:
    assert strict.ingest() == 1
    assert strict.rows()["car"].tolist() == ["a", "a", "d"]
    assert held(strict) == [
        ("table row 2024-01-02 10:00:00+00:00, b", "column km: 400.5 is above max 100"),
        ("trips.csv row 5", "column km: 450 is above max 100"),
    ]
    newest = history.log(strict.table, 1)[0]
    assert (newest.rows, newest.rows_added, newest.rows_changed, newest.rows_removed) == (
        3,
        0,
        0,
        2,
    )
    assert standing_of(lake.open_table(strict.table)).rules > 0


def test_the_same_rules_again_change_nothing_and_judge_nothing(
    strict: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict.ingest()
    monkeypatch.setattr(judging.Judge, "_refused", None)
    assert strict.ingest() == 1
    strict.csv(HEAD + MIDDLE + NEW + "2024-02-03 10:00:00,e,north,1,1,,true\n")
    assert strict.ingest() == 2
    assert len(held(strict)) == 2


def test_rows_come_back_when_the_rule_is_loosened_again(strict: Any, loose: Any) -> None:
    before = tables.dataset(loose.spec, loose.table, None)
    assert strict.publish(strict.stage()) == 1
    assert not artefacts.intact(before), "a cached publish of before would skip the way back"
    loose.ingest()
    after = tables.dataset(loose.spec, loose.table, None)
    assert after.content_digest == before.content_digest
    assert quarantine.count(loose.quarantine) == 0
    assert artefacts.intact(after)


def test_what_was_bad_from_the_first_comes_with_a_looser_rule_however_old(
    trips: Any, spec_of: Any
) -> None:
    trips.csv(HEAD + OLD + MIDDLE.replace("30", "900") + NEW)
    trips.ingest()
    trips.csv(HEAD + NEW)
    looser = replace(trips, spec=spec_of(("max: 500", "max: 1000")))
    staged = looser.stage()
    done = tables.publish(looser.spec, staged, looser.table, looser.quarantine)
    assert (done.refused, done.put_back) == (0, 1)
    assert looser.rows()["km"].tolist() == [10.0, 400.5, 900.0, 450.0, 20.0]


def test_a_row_of_table_and_source_is_in_quarantine_once_however_it_is_read_later(
    strict: Any,
) -> None:
    strict.ingest()
    once = held(strict)
    strict.csv(HEAD + OLD.replace("400.5", "400.50") + MIDDLE + NEW)
    strict.ingest(full=True)
    assert held(strict) == once


def test_a_row_whose_correction_is_bad_stays_while_it_passes_itself(
    loose: Any, strict: Any
) -> None:
    loose.csv(HEAD + OLD + MIDDLE + NEW.replace(",20,", ",900,"))
    assert loose.ingest() == 0
    assert loose.rows()["km"].tolist()[-1] == 20.0
    assert held(loose) == [("trips.csv row 6", "column km: 900 is above max 500")]
    strict.ingest()
    assert strict.rows()["km"].tolist() == [10.0, 30.0, 20.0]


def test_of_a_row_and_its_correction_that_are_bad_quarantine_has_both(
    trips: Any, spec_of: Any, loose: Any
) -> None:
    loose.csv(HEAD + OLD + MIDDLE + NEW.replace(",20,", ",900,"))
    loose.ingest()
    tiny = ruled(trips, spec_of, ("max: 500", "max: 15"))
    tiny.ingest()
    assert tiny.rows()["km"].tolist() == [10.0]
    reasons = [reason for _, reason in held(tiny)]
    assert sorted(reasons) == [
        f"column km: {km} is above max 15" for km in ("20", "30", "400.5", "450", "900")
    ]


def test_a_row_that_the_batch_corrects_is_replaced_and_not_refused(strict: Any) -> None:
    strict.csv(HEAD + OLD + MIDDLE + NEW.replace("450", "45"))
    strict.ingest()
    assert strict.rows()["km"].tolist() == [10.0, 30.0, 45.0, 20.0]
    assert [place for place, _ in held(strict)] == ["table row 2024-01-02 10:00:00+00:00, b"]


@pytest.mark.parametrize(
    ("change", "reason", "left"),
    [
        (("note: {type: string}", "note: {type: string, nullable: false}"),
         "column note: empty, but nullable is false", ["a", "a", "c", "d"]),
        (("allowed: [north, south]", "allowed: [north]"),
         "column zone: 'south' is not an allowed value", ["a", "a", "c", "d"]),
        (("stops: {type: integer, min: 0}", "stops: {type: integer, min: 2}"),
         "column stops: 1 is below min 2", ["b", "a", "d"]),
    ],
)  # fmt: skip
def test_every_kind_of_rule_holds_for_the_rows_of_before(
    trips: Any, spec_of: Any, loose: Any, change: tuple[str, str], reason: str, left: list[str]
) -> None:
    loose.csv(HEAD + NEW)
    changed = ruled(trips, spec_of, change)
    changed.ingest()
    assert changed.rows()["car"].tolist() == left
    assert reason in [told for _, told in held(changed)]


def test_more_than_max_share_of_the_table_is_refused_and_nothing_changes(
    trips: Any, spec_of: Any, loose: Any
) -> None:
    loose.csv(HEAD + OLD + MIDDLE + NEW.replace(",450,", ",600,"))
    few = replace(
        trips,
        spec=spec_of(
            ("max: 500", "max: 400"), ("split: {k", "quarantine: {max_share: 0.1}\nsplit: {k")
        ),
    )
    with pytest.raises(InputError) as caught:
        few.ingest()
    old, new = "table row 2024-01-02 10:00:00+00:00, b", "table row 2024-02-01 10:00:00+00:00, c"
    assert str(caught.value) == (
        f"{few.table}: 2 of 5 rows (40 %) break a rule, above quarantine.max_share (10 %)\n"
        f"  column km, max: 2 rows, such as {old} (column km: 400.5 is above max 400); "
        f"{new} (column km: 450 is above max 400)\n"
        "  (mend the rules of these columns in model.yaml, or raise quarantine.max_share if it is "
        "right)"
    )
    assert len(loose.rows()) == 5
    assert held(few) == []


def test_rules_hold_for_the_table_when_the_source_brings_nothing(strict: Any) -> None:
    strict.csv(HEAD)
    assert strict.ingest() == 1
    assert strict.rows()["car"].tolist() == ["a", "a", "d"]
    assert len(held(strict)) == 2


def test_a_table_all_of_whose_rows_are_refused_is_empty_and_fills_again(
    trips: Any, spec_of: Any, loose: Any
) -> None:
    loose.csv(HEAD)
    ruled(trips, spec_of, ("max: 500", "max: 1")).ingest()
    with pytest.raises(InputError, match="no rows"):
        loose.rows()
    loose.ingest()
    assert len(loose.rows()) == 5


def test_a_table_that_notes_nothing_is_read_anew_and_judged_once(
    trips: Any, spec_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = lake.write
    with monkeypatch.context() as before:
        unnoted = {"standing": None}
        before.setattr(lake, "write", lambda *given, **how: write(*given, **(how | unnoted)))
        trips.csv(HEAD + OLD + MIDDLE + NEW)
        trips.ingest()
    assert standing_of(lake.open_table(trips.table)) == Standing(0, None)
    strict = ruled(trips, spec_of, ("max: 500", "max: 100"))
    strict.csv(HEAD + OLD.partition("\n")[0] + "\n")
    assert tables.watermark(strict.spec, strict.table) is None
    assert strict.ingest() == 1
    assert strict.rows()["car"].tolist() == ["a", "a", "d"]
    assert tables.watermark(strict.spec, strict.table) is not None
    monkeypatch.setattr(judging.Judge, "_refused", None)
    assert strict.ingest() == 1


def test_after_a_restore_rows_are_judged_by_what_held_of_that_version(strict: Any) -> None:
    strict.ingest()
    history.restore(strict.table, 0)
    assert len(strict.rows()) == 5
    strict.ingest()
    assert strict.rows()["car"].tolist() == ["a", "a", "d"]
    assert len(held(strict)) == 2


def test_a_table_in_remote_storage_is_judged_as_well(
    strict: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake, "is_remote", lambda _: True)
    assert strict.ingest() == 1
    assert strict.rows()["car"].tolist() == ["a", "a", "d"]


def test_rows_of_a_quicker_writer_are_judged_as_well(
    strict: Any, loose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, others = lake.write, [HEAD + "2024-02-03 10:00:00,e,north,499,1,,true\n"]

    def beaten(uri: str, table: Any, rows: Any, **how: Any) -> None:
        if uri == loose.table and others:
            loose.csv(others.pop())
            loose.ingest()
        write(uri, table, rows, **how)

    staged = strict.stage()
    monkeypatch.setattr(lake, "write", beaten)
    assert strict.publish(staged) == 2
    assert strict.rows()["car"].tolist() == ["a", "a", "d"]
    assert len(held(strict)) == 3


def test_rows_put_back_by_rules_that_are_given_up_again_are_judged(
    trips: Any, spec_of: Any
) -> None:
    trips.csv(HEAD + OLD + MIDDLE.replace("30", "900") + NEW)
    trips.ingest()
    looser = spec_of(("max: 500", "max: 1000"))
    quarantine.put_back(looser, trips.quarantine, trips.table)
    assert len(trips.rows()) == 5
    few = replace(trips, spec=spec_of(ANY_SHARE))
    few.ingest()
    assert few.rows()["km"].max() == 450.0
    assert [reason for _, reason in held(few)] == ["column km: 900 is above max 500"]
