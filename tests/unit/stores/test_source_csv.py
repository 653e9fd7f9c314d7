from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from perennial.contracts.errors import InputError
from perennial.data.checks import RowChecks, texts_of
from perennial.stores import sources
from perennial.stores.sources import delimited

HEAD = "at,car,zone,km,stops,note,late\n"
ROW = "2024-01-01 10:00:00,a,north,10,1,x,true\n"


def read(project: Any) -> list[sources.Batch]:
    source = sources.inspect(project.spec, project.root, None, None)
    return list(sources.read(project.spec, project.root, source))


def told(project: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(project)
    return str(caught.value).replace(str(project.root), "ROOT")


def written(path: Path, moment: int) -> None:
    """Make a file one that was written in this minute."""
    os.utime(path, (60 * moment, 60 * moment))


def test_every_column_comes_as_text_in_the_order_of_the_table(trips: Any) -> None:
    trips.csv("late,unused,car,at,zone,km,stops,note\ntrue,0,a,2024-01-01,north,1,2,x\n")
    (batch,) = read(trips)
    assert batch.table.to_pylist() == [
        {"at": "2024-01-01", "car": "a", "zone": "north", "km": "1", "stops": "2", "note": "x",
         "late": "true"}
    ]  # fmt: skip
    assert set(batch.undeclared) == {"unused"}


def test_unquoted_na_is_missing_and_quoted_is_text(trips: Any) -> None:
    trips.csv(HEAD + '2024-01-01,NA,"NA",,NaN,"",true\n')
    (batch,) = read(trips)
    row = batch.table.to_pylist()[0]
    assert (row["car"], row["zone"], row["km"], row["stops"]) == (None, "NA", None, None)


def test_quotes_may_hold_delimiters_and_line_breaks(trips: Any) -> None:
    trips.csv(HEAD + '2024-01-01,a,north,1,2,"one, ""two""\nthree",true\n' + ROW)
    (batch,) = read(trips)
    assert batch.table["note"].to_pylist() == ['one, "two"\nthree', "x"]
    assert batch.where(1) == "trips.csv row 3"


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_lines_may_end_as_on_any_machine(trips: Any, end: str) -> None:
    (trips.root / "trips.csv").write_bytes((HEAD + ROW + ROW).replace("\n", end).encode())
    (batch,) = read(trips)
    assert batch.table["late"].to_pylist() == ["true", "true"]
    assert batch.where(1) == "trips.csv row 3"


def test_a_header_that_the_csv_module_does_not_take_is_told(trips: Any) -> None:
    trips.csv("x" * 200_000 + "," + HEAD + ROW)
    assert told(trips).startswith("ROOT/trips.csv, header: not readable as CSV: field larger")


def test_decimal_commas_are_read_and_what_is_no_number_stays_as_the_file_has_it(trips: Any) -> None:
    trips = trips.changed("uri: trips.csv", 'uri: trips.csv, delimiter: ";", decimal: ","')
    rows = ["2024-01-01;a,5;north;1,5;2;6,5;true", "2024-01-01;b;north; 2,5E1;2,0;;true"]
    rows += ["2024-01-01;c;north;1.234;1.234,5;1.5;true", "2024-01-01;d;north;n.a.;;x;true"]
    rows += ["2024-01-01;e;north;12.5;1,0;x;true"]
    trips.csv("\n".join([HEAD.strip().replace(",", ";"), *rows]))
    (batch,) = read(trips)
    checked = RowChecks(trips.spec).check(batch.table)
    good = checked.good
    assert good["km"].to_pylist() == [1.5, 25.0]
    assert good["stops"].to_pylist() == [2, 2]
    assert good["note"].to_pylist() == ["6,5", None]
    assert good["car"].to_pylist()[0] == "a,5"
    assert checked.reasons.to_pylist() == [
        "column km: '1.234' is not a number; column stops: '1.234,5' is not a whole number",
        "column km: 'n.a.' is not a number",
        "column km: '12.5' is not a number",
    ]
    texts = [json.loads(text) for text in texts_of(batch.table, checked.bad_rows)]
    assert [row["km"] for row in texts] == ["1.234", "n.a.", "12.5"]
    assert texts[2]["stops"] == "1,0"


def test_a_byte_order_mark_is_no_part_of_the_first_name(trips: Any) -> None:
    trips.csv("\ufeff" + HEAD + ROW)
    assert read(trips)[0].num_rows == 1


def test_broken_rows_are_kept_with_their_numbers_and_good_rows_keep_theirs(
    trips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "_BLOCK", 256)  # so that rows come in many blocks
    lines = [f"2024-01-01,a,north,{i},1,,true\n" if i % 7 else f"broken,{i}\n" for i in range(500)]
    trips.csv(HEAD + "".join(lines))
    batches = read(trips)
    for batch in batches:
        for i, km in enumerate(batch.table["km"].to_pylist()):
            assert batch.where(i) == f"trips.csv row {int(km) + 2}"
    broken = [row for batch in batches for _, row in batch.malformed]
    assert [row.where for row in broken] == [f"trips.csv row {i + 2}" for i in range(0, 500, 7)]
    assert broken[1].text == "broken,7"
    assert broken[1].reason == "2 values where the header has 7 columns"


def test_a_file_with_broken_rows_only_is_not_without_rows(trips: Any) -> None:
    trips.csv(HEAD + "x,y\nz\n")
    (batch,) = read(trips)
    assert batch.num_rows == 0
    assert [row.text for _, row in batch.malformed] == ["x,y", "z"]


def test_files_of_one_time_come_by_name_and_rows_know_their_file(trips: Any) -> None:
    project = trips.changed("uri: trips.csv", "uri: trips")
    for name in ("b/2.csv", "a.csv", "b/1.csv", "_SUCCESS", ".x.csv", "b/notes.md"):
        written(project.csv(HEAD + ROW.replace(",a,", f",{name},"), f"trips/{name}"), 0)
    (batch,) = read(project)
    assert batch.table["car"].to_pylist() == ["a.csv", "b/1.csv", "b/2.csv"]
    assert [batch.where(i) for i in range(3)] == ["a.csv row 2", "b/1.csv row 2", "b/2.csv row 2"]


@pytest.mark.parametrize(
    ("source", "order"),
    [
        ("event_time: at, entity: [car]", ["c", "a", "b"]),
        ("event_time: at", ["c", "a", "b"]),
        ("entity: [car]", ["c", "a", "b"]),
        ("uri: in", ["a", "b", "c"]),  # no identity: a copy with other times is the same snapshot
    ],
)
def test_where_rows_have_an_identity_files_come_in_the_order_they_were_written_in(
    spec_of: Any, trips: Any, source: str, order: list[str]
) -> None:
    kept = source if "uri" in source else f"uri: in, {source}"
    change = ("uri: trips.csv, event_time: at, entity: [car], lateness: 2d", kept)
    split = (
        "split: {kind: time, validation: 1d, test: 1d}",
        "split: {kind: random, validation: 0.2, test: 0.2}",
    )
    spec = spec_of(change, *([] if "event_time" in source else [split, (", delay: 1d", "")]))
    for name, moment in (("a", 2), ("b", 3), ("c", 1)):
        written(trips.csv(HEAD + ROW.replace(",a,", f",{name},"), f"in/{name}.csv"), moment)
    source_ref = sources.inspect(spec, trips.root, None, None)
    (batch,) = sources.read(spec, trips.root, source_ref)
    assert batch.table["car"].to_pylist() == order


def test_files_may_have_their_columns_in_another_order(trips: Any) -> None:
    project = trips.changed("uri: trips.csv", "uri: 'trips/*.csv'")
    project.csv(HEAD + ROW, "trips/1.csv")
    project.csv("car,at,zone,km,stops,note,late\nb,2024-01-02,south,5,1,,false\n", "trips/2.csv")
    assert read(project)[0].table["car"].to_pylist() == ["a", "b"]


def test_globs(trips: Any) -> None:
    for name in ("in/2024/01.csv", "in/2024/02.csv", "in/2023/01.csv", "in/01.csv", "in/01.txt"):
        written(trips.csv(HEAD + ROW.replace(",a,", f",{name[3:]},"), name), 0)
    expected = {
        "in/*.csv": ["01.csv"],
        "in/**/*.csv": ["01.csv", "2023/01.csv", "2024/01.csv", "2024/02.csv"],
        "in/*/01.csv": ["2023/01.csv", "2024/01.csv"],
        "in/202[!3]/0?.csv": ["2024/01.csv", "2024/02.csv"],
    }
    for pattern, names in expected.items():
        project = trips.changed("uri: trips.csv", f"uri: '{pattern}'")
        (batch,) = read(project)
        assert batch.table["car"].to_pylist() == names, pattern


def test_a_name_that_looks_like_a_pattern_is_taken_as_it_is_when_it_is_there(trips: Any) -> None:
    project = trips.changed("uri: trips.csv", "uri: 'trips[1].csv'")
    project.csv(HEAD + ROW, "trips[1].csv")
    assert read(project)[0].num_rows == 1


def test_compressed_files_are_read(trips: Any) -> None:
    project = trips.changed("uri: trips.csv", "uri: trips.csv.gz")
    (project.root / "trips.csv.gz").write_bytes(gzip.compress((HEAD + ROW * 3).encode()))
    assert read(project)[0].num_rows == 3


def test_an_empty_file_among_others_is_passed_over(trips: Any) -> None:
    project = trips.changed("uri: trips.csv", "uri: 'trips/*.csv'")
    project.csv("", "trips/1.csv")
    project.csv(HEAD + ROW, "trips/2.csv")
    assert read(project)[0].num_rows == 1


def test_no_such_file(trips: Any) -> None:
    assert told(trips) == "ROOT/trips.csv: no such file (source.uri is relative to ROOT)"


def test_a_glob_without_a_match(trips: Any) -> None:
    project = trips.changed("uri: trips.csv", "uri: 'trips/*.csv'")
    fix = "(source.uri is relative to ROOT)"
    assert told(project) == f"ROOT/trips/*.csv: no file matches {fix}"


def test_a_folder_without_files_of_the_kind(trips: Any) -> None:
    project = trips.changed("uri: trips.csv", "uri: trips")
    project.csv("x", "trips/notes.md")
    assert told(project) == "ROOT/trips: no csv files in this folder"


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file(trips: Any, text: str) -> None:
    trips.csv(text)
    assert told(trips) == "ROOT/trips.csv: empty file"


def test_an_archive(trips: Any) -> None:
    project = trips.changed("uri: trips.csv", "uri: trips.csv.zip")
    project.csv("PK")
    assert told(project) == (
        "ROOT/trips.csv.zip: an archive is not read "
        "(unpack it; .gz, .bz2, .zst and .lz4 are read as they are)"
    )


@pytest.mark.parametrize(("delimiter", "written"), [(";", '";"'), ("\t", '"\\t"'), ("|", '"|"')])
def test_a_wrong_delimiter_is_told_with_the_likely_one(
    trips: Any, delimiter: str, written: str
) -> None:
    trips.csv((HEAD + ROW).replace(",", delimiter))
    shown = repr(HEAD.strip().replace(",", delimiter))
    assert told(trips) == (
        f"ROOT/trips.csv, header: with the delimiter ',' there is only one column: {shown} "
        f"(set source.delimiter: {written} in model.yaml)"
    )


def test_the_delimiter_of_model_yaml_is_used(trips: Any) -> None:
    project = trips.changed("uri: trips.csv,", 'uri: trips.csv, delimiter: ";",')
    project.csv((HEAD + ROW).replace(",", ";"))
    assert read(project)[0].num_rows == 1


def test_missing_columns_are_told_all_at_once_with_the_nearest_name(trips: Any) -> None:
    trips.csv(HEAD.replace("stops", "stop").replace("late", "y") + ROW)
    columns = "its columns: at, car, zone, km, stop, note, y"
    assert told(trips).splitlines() == [
        f"ROOT/trips.csv, header: column 'stops' is not there; did you mean 'stop'? ({columns})",
        f"ROOT/trips.csv, header: the label column 'late' is not there ({columns})",
    ]


def test_duplicate_column_names(trips: Any) -> None:
    trips.csv(HEAD.replace("note", "km") + ROW)
    assert told(trips) == (
        "ROOT/trips.csv, header: column names given twice: 'km' (give each column its own name)"
    )


def test_text_that_is_not_utf8_is_told_with_its_line(trips: Any) -> None:
    lines = [HEAD, *[ROW] * 50_000, ROW.replace("x", "Zürich")]
    path: Path = trips.root / "trips.csv"
    path.write_bytes("".join(lines).encode("latin-1"))
    assert told(trips) == "ROOT/trips.csv, line 50002: not UTF-8 text (save it as UTF-8)"
    path.write_bytes("".join([HEAD, lines[-1]]).encode("latin-1"))
    assert told(trips) == "ROOT/trips.csv, line 2: not UTF-8 text (save it as UTF-8)"
    path.write_bytes((HEAD + ROW).encode("utf-16"))
    assert told(trips) == "ROOT/trips.csv: this is UTF-16 text (save it as UTF-8)"


def test_a_quote_that_never_ends(trips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_BLOCK", 4096)
    trips.csv(HEAD + ROW.replace("x", '"x') + ROW * 500)
    assert told(trips).startswith("ROOT/trips.csv: not readable as CSV: ")
    assert told(trips).endswith("(a quote that is opened and never closed is the usual cause)")
