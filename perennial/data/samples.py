"""A bounded sample of a CSV or Parquet file, to infer a model.yaml from."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from perennial.contracts.errors import InputError, Problem
from perennial.spec.values import shown

CELLS = 5_000_000
"""How many values are kept of a file at least, if it has as many; at most twice as many."""

_HEAD_BYTES = 1 << 20
_BLOCK_BYTES = 4 << 20
_BATCH_ROWS = 65_536
_DELIMITERS = ",;\t|"
_OTHER_FORMATS = {
    b"PK\x03\x04": "an Excel or zip file",
    b"SQLite format 3": "an SQLite database",
    b"ARROW1": "an Arrow file",
    codecs.BOM_UTF16_LE: "UTF-16 text",
    codecs.BOM_UTF16_BE: "UTF-16 text",
}
_BROKEN_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Sample:
    """Every ``every``-th row of a file of ``rows`` rows, in order, evenly from its whole length.

    ``table`` holds text for a CSV (missing: null) and the file's own types for Parquet; ``numbers``
    are the rows' numbers as a person counts them (in a CSV the header is row 1). ``broken`` rows of
    a CSV have too many or too few values; ``unnamed`` columns have no name; both are left out.
    """

    kind: Literal["csv", "parquet"]
    delimiter: str
    table: Any
    numbers: np.ndarray
    rows: int
    every: int
    broken: int
    unnamed: int


def read_sample(path: Path, cells: int = CELLS) -> Sample:
    """Read a file once, as a stream.

    Raises InputError: no such file, a folder, an empty file, only a header, neither CSV nor
    Parquet, one column only, a column name given twice, not UTF-8, or rows of unequal length.
    """
    if path.is_dir():
        raise InputError(Problem(str(path), "this is a folder", "name one file"))
    try:
        with pa.input_stream(str(path)) as stream:
            head = stream.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise InputError(Problem(str(path), "no such file")) from None
    except OSError as error:
        what = f"can't be read: {str(error).splitlines()[0][:200]}"
        raise InputError(Problem(str(path), what)) from None
    if not head.strip():
        raise InputError(Problem(str(path), "the file is empty"))
    if head.startswith(b"PAR1"):
        return _read_parquet(path, cells)
    other = next((what for magic, what in _OTHER_FORMATS.items() if head.startswith(magic)), None)
    if other is not None or b"\0" in head:
        what = f"neither CSV nor Parquet{f' but {other}' if other else ''}"
        raise InputError(Problem(str(path), what, "save it as UTF-8 CSV or as Parquet"))
    return _read_csv(path, head, cells)


def _read_parquet(path: Path, cells: int) -> Sample:
    def parts(file: Any) -> Iterator[tuple[Any, np.ndarray]]:
        first = 1
        for batch in file.iter_batches(_BATCH_ROWS):
            yield pa.Table.from_batches([batch]), np.arange(first, first + batch.num_rows)
            first += batch.num_rows

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_names(path, names)
            kept = _thinned(parts(file), max(1, cells // max(1, len(names))))
    except (pa.ArrowInvalid, OSError) as error:
        what = f"not readable as Parquet: {str(error).splitlines()[0][:200]}"
        raise InputError(Problem(str(path), what)) from None
    return _sample(path, "parquet", ",", kept, broken=0, names=names)


def _read_csv(path: Path, head: bytes, cells: int) -> Sample:
    delimiter, names = _header(path, head)
    _check_names(path, names)
    broken: list[Any] = []

    def skip(row: Any) -> str:
        broken.append(row)
        return "skip"

    options = {
        "read_options": pacsv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
        "parse_options": pacsv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
        ),
        "convert_options": pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=[name for name in names if name],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    }

    def parts() -> Iterator[tuple[Any, np.ndarray]]:
        good = 0
        with pa.input_stream(str(path)) as stream:
            for batch in pacsv.open_csv(stream, **options):
                rows = np.arange(good, good + batch.num_rows)
                good_before = np.array([row.number for row in broken]) - np.arange(len(broken)) - 2
                shift = np.searchsorted(good_before, rows, side="right")
                yield pa.Table.from_batches([batch]), rows + 2 + shift
                good += batch.num_rows

    try:
        kept = _thinned(parts(), max(1, cells // len(names)))
    except (pa.ArrowInvalid, OSError) as error:
        text = str(error).splitlines()[0][:200]
        if "invalid UTF8" in text:
            raise InputError(Problem(str(path), "not UTF-8 text", "save it as UTF-8")) from None
        fix = "a quote that is opened and never closed is the usual cause"
        raise InputError(Problem(str(path), f"not readable as CSV: {text}", fix)) from None
    if len(broken) > _BROKEN_SHARE * (kept.rows + len(broken)):
        row = broken[0]
        what = (
            f"{len(broken):,} of {kept.rows + len(broken):,} rows are of another length than the "
            f"header, such as row {row.number} with {row.actual_columns} values for "
            f"{row.expected_columns} columns: {shown(row.text)}"
        )
        fix = f"values are taken to be separated by {delimiter!r}; quote those that hold it"
        raise InputError(Problem(str(path), what, fix))
    return _sample(path, "csv", delimiter, kept, broken=len(broken), names=names)


@dataclass(frozen=True, slots=True)
class _Kept:
    table: Any
    numbers: np.ndarray
    rows: int
    every: int


def _thinned(parts: Iterator[tuple[Any, np.ndarray]], limit: int) -> _Kept:
    """Rows in a stream, every one until there are twice ``limit``, then every second one of them,
    and so on."""
    tables: list[Any] = []
    numbers: list[np.ndarray] = []
    rows = size = 0
    every = 1
    for table, places in parts:
        at = np.arange(-rows % every, len(table), every)
        rows += len(table)
        tables.append(table if every == 1 else table.take(pa.array(at)))
        numbers.append(places[at])
        size += len(at)
        while size > 2 * limit:
            whole = pa.concat_tables(tables)
            tables = [whole.take(pa.array(np.arange(0, size, 2)))]
            numbers = [np.concatenate(numbers)[::2]]
            size = len(numbers[0])
            every *= 2
    if not size:
        return _Kept(None, np.array([], np.int64), 0, 1)
    return _Kept(pa.concat_tables(tables).combine_chunks(), np.concatenate(numbers), rows, every)


def _sample(
    path: Path,
    kind: Literal["csv", "parquet"],
    delimiter: str,
    kept: _Kept,
    broken: int,
    names: list[str],
) -> Sample:
    if not kept.rows:
        what = "only a header and no rows" if kind == "csv" else "no rows"
        raise InputError(Problem(str(path), what))
    table = kept.table.select([i for i, name in enumerate(kept.table.column_names) if name])
    unnamed = sum(not name for name in names)
    return Sample(kind, delimiter, table, kept.numbers, kept.rows, kept.every, broken, unnamed)


def _header(path: Path, head: bytes) -> tuple[str, list[str]]:
    """The delimiter, and the column names: of those delimiters that divide the header, the one by
    which the most rows have as many values, and then the one that gives the most columns."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError as error:
        line = head[: error.start].count(b"\n") + 1
        where = f"{path}, line {line}"
        raise InputError(Problem(where, "not UTF-8 text", "save it as UTF-8")) from None
    best: tuple[tuple[bool, float], str, list[str]] | None = None
    for delimiter in _DELIMITERS:
        rows = _first_rows(text, delimiter)
        names = rows[0]
        alike = sum(len(row) == len(names) for row in rows) / len(rows)
        score = (alike > 0.9, alike * len(names))
        if len(names) > 1 and (best is None or score > best[0]):
            best = score, delimiter, names
    if best is None:
        what = f"one column only: {shown(text.strip().splitlines()[0])}"
        fix = "separate values by a comma, semicolon, tab or |"
        raise InputError(Problem(str(path), what, fix))
    return best[1], best[2]


def _first_rows(text: str, delimiter: str) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if row:
                rows.append(row)
            if len(rows) == 200:
                break
    except csv.Error:  # a value longer than the csv module takes
        pass
    return rows or [[]]


def _check_names(path: Path, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        what = f"column names given twice: {', '.join(map(shown, twice[:20]))}"
        raise InputError(Problem(str(path), what, "give each column its own name"))
