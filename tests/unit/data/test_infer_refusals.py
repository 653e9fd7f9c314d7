"""What `perennial init` refuses, with the exact words."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.contracts.errors import InputError
from perennial.data.infer import infer
from perennial.spec import parse_spec

ROWS = "".join(f"{i % 7},{i % 2}\n" for i in range(100))


def refusal(path: Path, label: str = "y", time: str | None = None, name: str = "m") -> str:
    with pytest.raises(InputError) as error:
        infer(path, name, label, time)
    return error.value.message.replace(str(path), "F")


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "rows.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_no_such_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "rows.csv") == "F: no such file"


def test_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "F: this is a folder (name one file)"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "F: the file is empty"),
        ("\n \n", "F: the file is empty"),
        ("x,y\n", "F: only a header and no rows"),
        (
            "x y z\n1 2 3\n",
            "F: one column only: 'x y z' (separate values by a comma, semicolon, tab or |)",
        ),
        ("x,y,x\n1,2,3\n", "F: column names given twice: 'x' (give each column its own name)"),
        (
            "x,y\n1,2\n1,2,3\n",
            "F: 1 of 2 rows are of another length than the header, such as row 3 with 3 values "
            "for 2 columns: '1,2,3' (values are taken to be separated by ','; "
            "quote those that hold it)",
        ),
        (
            b"PK\x03\x04rest",
            "F: neither CSV nor Parquet but an Excel or zip file "
            "(save it as UTF-8 CSV or as Parquet)",
        ),
        (
            "x,y\n1,2\n".encode("utf-16"),
            "F: neither CSV nor Parquet but UTF-16 text (save it as UTF-8 CSV or as Parquet)",
        ),
        (b"x,y\n1,\0\n", "F: neither CSV nor Parquet (save it as UTF-8 CSV or as Parquet)"),
        ("x,y\n1,ü\n".encode("latin-1"), "F, line 2: not UTF-8 text (save it as UTF-8)"),
        (
            b"x,y\n" + b"1,2\n" * 300_000 + b"1,\xfc\n",
            "F: not UTF-8 text (save it as UTF-8)",
        ),
    ],
)
def test_a_file_that_is_no_table(file: Any, content: str | bytes, said: str) -> None:
    assert refusal(file(content)) == said


def test_a_parquet_file_that_is_cut_off_or_empty_or_names_a_column_twice(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    whole = io.BytesIO()
    pq.write_table(pa.table({"x": [1, 2], "y": [1, 2]}), whole)
    path.write_bytes(whole.getvalue()[:-10])
    assert refusal(path).startswith("F: not readable as Parquet: ")
    pq.write_table(pa.table({"x": pa.array([], pa.int64()), "y": pa.array([], pa.int64())}), path)
    assert refusal(path) == "F: no rows"
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["y", "y"]), path)
    assert refusal(path) == ("F: column names given twice: 'y' (give each column its own name)")


def test_everything_wrong_with_the_request_is_told_at_once(file: Any) -> None:
    path = file("x,late\n" + ROWS)
    assert refusal(path, label="lat", time="when", name="Flight delay").split("\n") == [
        "name: 'Flight delay' is not a name; use lowercase letters, digits and dashes, at most "
        "63, with no dash at either end",
        "F: no label column 'lat'; did you mean 'late'?",
        "F: no time column 'when' (its columns: x, late)",
    ]
    assert refusal(path, label="x", time="x") == "F, column 'x': the label can't be the time"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([None] * 200, "can't be predicted: it is empty, every value is missing"),
        (
            ["only"] * 200,
            "one value only, 'only', in all 200 rows that have one "
            "(there is nothing to tell apart)",
        ),
        (
            [None] * 100 + [7] * 100,
            "one value only, 7, in all 100 rows that have one (there is nothing to tell apart)",
        ),
        (
            ["NA", "EU"] * 100,
            "one value only, 'EU', in all 100 rows that have one (there is nothing to tell apart; "
            "100 rows have no label; a class that is called NA, null, none or nan needs quotes in "
            "the file)",
        ),
        (
            [None] * 160 + [0, 1] * 20,
            "40 rows have a label; to train, tune and test takes at least 50",
        ),
        (
            [f"text {i}" for i in range(200)],
            "200 different texts in 200 rows, neither classes nor numbers (at most 50 classes)",
        ),
        (
            [f"{i}%" for i in range(200)],
            "200 different texts in 200 rows, neither classes nor numbers "
            "(numbers such as '0%' are text; write them as 1234.5)",
        ),
        (
            ["2024-01-01", "2024-01-02"] * 100,
            "a time can't be predicted (use a number or classes)",
        ),
    ],
)
def test_a_label_that_can_not_be_learnt(tmp_path: Path, values: list[Any], said: str) -> None:
    path = tmp_path / "rows.csv"
    pd.DataFrame({"x": np.arange(200) / 7, "y": values}).to_csv(path, index=False)
    assert refusal(path) == f"F, column 'y': {said}"


def test_a_label_of_a_nested_type(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"x": [0.5] * 60, "y": [[1]] * 60}), path)
    assert refusal(path).startswith("F, column 'y': can't be predicted: it holds list<")


def test_a_time_that_does_not_parse_is_shown_with_its_row(file: Any) -> None:
    lines = [f"2024-01-{1 + i // 24:02} {i % 24:02}:00,{i % 7},{i % 2}" for i in range(100)]
    lines[41] = "13/01/2024 06:00,1,1"
    assert refusal(file("at,x,y\n" + "\n".join(lines)), time="at") == (
        "F, column 'at': 1 of 100 values are no time: row 43 has '13/01/2024 06:00', which is not "
        "a time (ISO 8601 such as 2013-07-01 06:00:00; epochs are not guessed)"
    )
    lines[5] = "2024-01-01,1,1,1"  # a broken row before it is counted as a person would
    lines[90] = "x,1,1"
    told = refusal(file("at,x,y\n" + "\n".join(lines)), time="at")
    assert "2 of 99 values are no time: row 43 has '13/01/2024 06:00'" in told
    assert "100 of 100 values are no time: row 2 has '0'" in refusal(file("x,y\n" + ROWS), time="x")


def test_rows_without_a_time(file: Any) -> None:
    lines = [f"{'' if i < 3 else f'2024-01-{1 + i // 4:02}'},{i % 7},{i % 2}" for i in range(100)]
    assert refusal(file("at,x,y\n" + "\n".join(lines)), time="at") == (
        "F, column 'at': 3 of 100 rows have no time (every row needs its event time)"
    )
    lines[2] = lines[1] = "2024-01-01,1,1"
    spec = parse_spec(infer(file("at,x,y\n" + "\n".join(lines)), "m", "y", "at").model_text)
    assert spec.source.event_time == "at"


def test_rows_of_the_future(file: Any) -> None:
    lines = [f"{9990 if i < 3 else 2024}-01-{1 + i // 4:02},{i % 7},{i % 2}" for i in range(100)]
    assert refusal(file("at,x,y\n" + "\n".join(lines)), time="at") == (
        "F, column 'at': 3 of 100 rows are more than a day in the future "
        "(leave out what hasn't happened yet)"
    )


def test_rows_before_the_year_300(file: Any) -> None:
    years = ["0001" if i < 3 else "2024" for i in range(100)]
    lines = [f"{year}-01-{1 + i // 4:02},{i % 7},{i % 2}" for i, year in enumerate(years)]
    assert refusal(file("at,x,y\n" + "\n".join(lines)), time="at") == (
        "F, column 'at': 3 of 100 rows are before the year 300 "
        "(every row needs the time of its event)"
    )


def test_no_column_to_learn_from(file: Any) -> None:
    rows = "".join(f"{i},street {i},{i % 2}\n" for i in range(100))
    assert refusal(file("id,address,y\n" + rows)) == (
        "F: no column to learn from (id: another number in every row: an identifier; "
        "address: another text in every row)"
    )


def test_few_rows_of_another_length_are_left_out_and_said(file: Any) -> None:
    path = file("x,y\n" + ROWS * 2 + "1,2,3\n")
    assert "# 1 rows have too many or too few values; they go to quarantine.\n" in (
        infer(path, "m", "y").model_text
    )


def test_a_compressed_csv_is_read_and_a_zip_refused(tmp_path: Path) -> None:
    packed = tmp_path / "rows.csv.gz"
    packed.write_bytes(gzip.compress(("x,y\n" + ROWS).encode()))
    assert parse_spec(infer(packed, "m", "y").model_text).source.kind == "csv"
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.writestr("rows.csv", "x,y\n" + ROWS)
    assert refusal(tmp_path / "rows.zip").startswith("F: neither CSV nor Parquet but an Excel or")


def test_a_byte_order_mark_and_quoted_line_breaks_are_no_obstacle(file: Any) -> None:
    rows = "".join(f'"{i % 7}\n",{i % 2}\n' for i in range(100))
    spec = parse_spec(infer(file(b"\xef\xbb\xbfx,y\r\n" + rows.encode()), "m", "y").model_text)
    assert list(spec.columns) == ["x", "y"]


def test_lines_may_end_as_those_of_old_macintoshes(file: Any) -> None:
    rows = "".join(f"{i % 7},{i % 2}\r" for i in range(100))
    spec = parse_spec(infer(file(b"x,y\r" + rows.encode()), "m", "y").model_text)
    assert list(spec.columns) == ["x", "y"]


@pytest.mark.parametrize("prices", [["1,5", "2,5"] * 100, [f"{i},5" for i in range(200)]])
def test_a_label_with_a_decimal_comma_in_a_file_with_points(file: Any, prices: list[str]) -> None:
    rows = "\n".join(f"{i / 8};{price}" for i, price in enumerate(prices))
    assert refusal(file(f"x;y\n{rows}")) == (
        f"F, column 'y': numbers with a decimal comma, such as '{prices[0]}', are text here "
        "(write a decimal point; a CSV may have commas if no number of it has a point)"
    )
