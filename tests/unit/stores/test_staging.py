from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from perennial.contracts.errors import InputError
from perennial.stores import artefacts, staging
from perennial.stores.folders import folder_digest
from perennial.stores.sources import batches

HEAD = "at,car,zone,km,stops,note,late\n"
ROWS = "2024-01-01 10:00:00,a,north,10,1,x,true\n2024-01-02 10:00:00,b,south,20,2,,false\n"


def test_the_folder_holds_good_rows_bad_rows_and_counts(trips: Any) -> None:
    trips.csv(HEAD + ROWS + "2024-01-03,c,west,-1,1,,\nbroken\n")
    staged = trips.stage()
    folder = Path(staged.uri)
    assert (staged.rows, staged.bad_rows) == (2, 2)
    assert folder == trips.root / "staging" / staged.digest
    assert folder_digest(folder) == staged.digest
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "bad/00000.parquet", "good/00000.parquet", "stats.json",
    ]  # fmt: skip
    good = pq.read_table(folder / "good")
    assert good[staging.ROW].to_pylist() == [0, 1]
    bad = pq.read_table(folder / "bad").to_pylist()
    assert [row["place"] for row in bad] == ["trips.csv row 4", "trips.csv row 5"]
    assert bad[0]["reason"] == (
        "column zone: 'west' is not an allowed value; column km: -1 is below min 0"
    )
    assert bad[0]["event_time"] == datetime(2024, 1, 3, tzinfo=UTC)
    assert bad[1]["row"] == '"broken"'


def test_faults_are_counted_by_column_and_rule_with_bounded_examples(trips: Any) -> None:
    lines = [f"2024-01-01,c{i},north,-{i + 1},1,,\n" for i in range(9)]
    trips.csv(HEAD + ROWS + "".join(lines) + "2024-01-01,d,north,900,1.5,,\n" + "x\n" * 7)
    faults = {(f.column, f.rule): f for f in staging.read_stats(trips.stage()).faults}
    assert {key: fault.rows for key, fault in faults.items()} == {
        ("km", "min"): 9, ("km", "max"): 1, ("stops", "type"): 1, ("", "malformed"): 7,
    }  # fmt: skip
    assert faults["km", "min"].examples == tuple(
        f"trips.csv row {i + 4} (column km: -{i + 1} is below min 0)" for i in range(5)
    )
    assert len(faults["", "malformed"].examples) == 5


def test_the_digest_follows_the_content_not_the_file(trips: Any) -> None:
    trips.csv(HEAD + ROWS + "broken\n")
    first = trips.stage()
    os.utime(trips.root / "trips.csv", (1, 1))
    assert trips.stage() == first
    trips.csv(HEAD + ROWS.replace("20", "21") + "broken\n")
    assert trips.stage().digest != first.digest


def test_batches_make_no_difference_to_what_is_counted(
    trips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"2024-01-{1 + i % 9:02},c{i % 50},north,{i % 600},1,,\n" for i in range(1000)]
    trips.csv(HEAD + "".join(lines))
    whole = staging.read_stats(trips.stage())
    monkeypatch.setattr(batches, "ROWS", 64)
    from perennial.stores.sources import delimited

    monkeypatch.setattr(delimited, "_BLOCK", 2000)
    staged = trips.stage()
    parts = staging.read_stats(staged)
    assert len(staging.good_files(staged)) > 5
    for stats in (whole, parts):
        for name in ("mean", "std"):
            stats.profile["columns"]["km"].pop(name)
    assert parts == whole


def test_repeats_are_found_by_identity_and_conflicts_by_content(trips: Any) -> None:
    again = ROWS.splitlines(keepends=True)
    trips.csv(HEAD + ROWS + again[0] + again[0].replace("10,1", "11,1") + again[1])
    staged = trips.stage()
    stats = staging.read_stats(staged)
    assert (staged.rows, stats.repeats, stats.conflicts) == (5, 3, 2)
    assert stats.conflict_examples == (
        "at=2024-01-01 10:00:00+00, car=a", "at=2024-01-01 10:00:00+00, car=a",
    )  # fmt: skip
    repeats = staging.repeats_file(staged)
    assert repeats is not None
    assert pq.read_table(repeats)[staging.ROW].to_pylist() == [0, 1, 2]


def test_a_snapshot_without_identity_has_no_repeats(leaves: Any) -> None:
    leaves.csv("length,kind,width\n3,b,1\n3,b,1\n")
    staged = leaves.stage()
    assert staging.read_stats(staged).repeats == 0
    assert staging.repeats_file(staged) is None


def test_it_is_known_whether_rows_came_by_time(trips: Any) -> None:
    trips.csv(HEAD + ROWS)
    stats = staging.read_stats(trips.stage())
    assert stats.ordered
    assert stats.start == datetime(2024, 1, 1, 10, tzinfo=UTC)
    assert stats.end == datetime(2024, 1, 2, 10, tzinfo=UTC)
    trips.csv(HEAD + "".join(reversed(ROWS.splitlines(keepends=True))))
    assert not staging.read_stats(trips.stage()).ordered


def test_an_increment_leaves_out_and_counts_what_is_before_it_with_its_old_faults(
    trips: Any,
) -> None:
    old = "2024-01-01,o,north,900,1,,\n2024-01-01,,north,1,1,,\nbroken,old\nsoon,o,north,1,1,,\n"
    trips.csv(HEAD + old + "2024-01-08 10:00:00,a,north,10,1,x,true\n")
    trips.ingest()
    trips.csv(HEAD + old + "2024-01-08 10:00:00,a,north,10,1,x,true\nbroken,new\n,n,north,1,1,,\n")
    staged = trips.stage()
    stats = staging.read_stats(staged)
    assert not stats.full
    assert (stats.rows, stats.bad_rows, stats.before) == (1, 2, 3)
    assert [row["row"] for row in pq.read_table(Path(staged.uri) / "bad").to_pylist()][1] == (
        '"broken,new"'
    )


def test_a_source_that_cannot_be_read_leaves_nothing(trips: Any) -> None:
    trips.csv(HEAD + ROWS + "2024-01-01,\xff,north,1,1,,\n")
    path = trips.root / "trips.csv"
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8 text"):
        trips.stage()
    assert list((trips.root / "staging").iterdir()) == []


def test_a_validation_says_where_the_bad_rows_are(trips: Any) -> None:
    trips.csv(HEAD + ROWS + "2024-01-03,c,west,1,1,,\n")
    staged = trips.stage()
    report = trips.validate(staged)
    assert not report.passed
    with pytest.raises(InputError) as caught:
        report.raise_failures()
    assert str(caught.value) == (
        f"{trips.root}/trips.csv: 1 of 3 rows (33.3 %) break a rule, above quarantine.max_share "
        "(2 %)\n  column zone, allowed: 1 row, such as trips.csv row 4 (column zone: 'west' is not "
        "an allowed value)\n  (mend the source or the rules of these columns; the rows, as "
        f"Parquet: {staged.uri}/bad)"
    )


def test_a_validation_compares_with_the_profile_last_trained_on(trips: Any) -> None:
    lines = [f"2024-01-01,c{i},north,{i % 100},1,,{'true' if i % 2 else 'false'}\n"
             for i in range(400)]  # fmt: skip
    trips.csv(HEAD + "".join(lines))
    before = staging.read_stats(trips.stage()).profile
    trips.csv(HEAD + "".join(line.replace(",north,", ",south,") for line in lines))
    report = trips.validate(trips.stage(), before)
    moved = [f.what for f in report.findings if f.outcome == "warned"]
    assert len(moved) == 1
    assert "column zone differs from the rows last trained on" in moved[0]
    assert moved[0].endswith("'south' 100.0%, was 0.0%")


def test_pruning_keeps_the_batch_in_use_and_those_of_the_last_hour(trips: Any) -> None:
    kept = []
    for km in (1, 2, 3):
        trips.csv(HEAD + ROWS.replace("20", str(km)))
        kept.append(Path(trips.stage().uri))
    hours_ago = time.time() - 7200
    for place in kept[:2]:
        os.utime(place, (hours_ago, hours_ago))
    staging.prune(trips.root / "staging", keep=kept[0])
    assert [place.exists() for place in kept] == [True, False, True]


@pytest.mark.parametrize(
    "lost", ["good/00000.parquet", "bad/00000.parquet", "bad", "repeats.parquet", "stats.json"]
)
def test_a_batch_that_lacks_a_file_or_holds_a_cut_one_is_not_whole(trips: Any, lost: str) -> None:
    trips.csv(HEAD + ROWS + "broken\n" + ROWS + "x\n")
    staged = trips.stage()
    assert artefacts.intact(staged)
    place = Path(staged.uri) / lost
    if place.is_dir():
        shutil.rmtree(place)
    else:
        os.truncate(place, place.stat().st_size // 2)
        assert not artefacts.intact(staged)
        place.unlink()
    assert not artefacts.intact(staged)
    assert trips.stage() == staged
    assert artefacts.intact(staged)


def test_a_kill_while_pruning_leaves_no_part_of_a_batch(
    trips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips.csv(HEAD + ROWS)
    place = Path(trips.stage().uri)
    os.utime(place, (1, 1))
    seen: list[bool] = []
    remove = shutil.rmtree

    def watched(folder: Path, **options: Any) -> None:
        seen.append(place.exists())
        remove(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    staging.prune(place.parent, keep=place / "another")
    assert seen == [False]
    assert not list(place.parent.iterdir())
