"""CSV files, as a stream: every column as text, broken rows kept with their number."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from perennial.contracts.errors import InputError, Problem
from perennial.spec import ModelSpec
from perennial.stores.sources.batches import Malformed, Piece, absent_columns
from perennial.stores.sources.files import Files, SourceFile

_BLOCK = 4 << 20
_HEADER_BYTES = 1 << 20
_LONGEST_TEXT = 10_000
_DELIMITERS = ",;\t|"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read(spec: ModelSpec, files: Files, wanted: Sequence[str]) -> Iterator[Piece]:
    """The wanted columns of all files in order. Unquoted NA, NaN, null and the like are missing.

    Raises InputError for text that is not UTF-8, a header without the wanted columns or with one
    twice, and quotes that never end; UnavailableError when their store stops to answer.
    """
    with files.reading():
        for file in files.files:
            yield from _read_file(spec, files.system, file, wanted)


def columns(spec: ModelSpec, files: Files, file: SourceFile) -> list[str]:
    """The names in the header of one of the files. Raises as ``read``."""
    with files.reading():
        return _header(spec, files.system, file, ())


def _read_file(
    spec: ModelSpec, system: Any, file: SourceFile, wanted: Sequence[str]
) -> Iterator[Piece]:
    header = _header(spec, system, file, wanted)
    broken: list[tuple[int, Malformed]] = []

    def keep(row: Any) -> str:
        reason = f"{row.actual_columns} values where the header has {row.expected_columns} columns"
        text = str(row.text)[:_LONGEST_TEXT]
        broken.append((row.number, Malformed(file.name, row.number, text, reason)))
        return "skip"

    options = {
        # Row numbers are known to a single-threaded reader only; it is no slower by itself.
        "read_options": pacsv.ReadOptions(block_size=_BLOCK, use_threads=False),
        "parse_options": pacsv.ParseOptions(
            delimiter=spec.source.delimiter, newlines_in_values=True, invalid_row_handler=keep
        ),
        "convert_options": pacsv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()),
            include_columns=list(wanted),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    }
    undeclared = tuple(name for name in header if name not in wanted)
    told = good = 0
    with system.open_input_stream(file.path, compression="detect") as stream:
        try:
            for batch in pacsv.open_csv(stream, **options):
                table = pa.Table.from_batches([batch])
                new = tuple(row for _, row in broken[told:])
                told = len(broken)
                rows = _numbers(good, len(table), [number for number, _ in broken])
                good += len(table)
                yield Piece(table, file.name, rows, new, undeclared)
        except pa.ArrowInvalid as error:
            raise InputError(_unreadable(system, file, str(error))) from None
    if told < len(broken):
        rest = tuple(row for _, row in broken[told:])
        empty = pa.schema([(name, pa.string()) for name in wanted]).empty_table()
        yield Piece(empty, file.name, np.array([], np.int64), rest, undeclared)


def _numbers(first: int, count: int, broken: list[int]) -> np.ndarray:
    """Row numbers of ``count`` good rows from the good row ``first`` (from 0) on; the header is row
    1 and broken rows are counted too."""
    good_before = np.array(broken, np.int64) - np.arange(len(broken)) - 2
    good = np.arange(first, first + count)
    return good + 2 + np.searchsorted(good_before, good, side="right")


def _header(spec: ModelSpec, system: Any, file: SourceFile, wanted: Sequence[str]) -> list[str]:
    with system.open_input_stream(file.path, compression="detect") as stream:
        start = stream.read(_HEADER_BYTES)
    if start.startswith(_UTF16):
        raise InputError(Problem(file.path, "this is UTF-16 text", "save it as UTF-8"))
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start)
    except UnicodeDecodeError as error:
        raise InputError(_not_utf8(file, start[: error.start].count(b"\n") + 1)) from None
    delimiter = spec.source.delimiter
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = next((row for row in rows if row), None)
    except csv.Error as error:
        raise InputError(Problem(f"{file.path}, header", f"not readable as CSV: {error}")) from None
    if names is None:
        raise InputError(Problem(file.path, "empty file"))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        what = f"column names given twice: {', '.join(map(repr, twice[:20]))}"
        raise InputError(Problem(f"{file.path}, header", what, "give each column its own name"))
    problems = absent_columns(spec, wanted, names, f"{file.path}, header")
    if problems:
        others = [d for d in _DELIMITERS if d != delimiter and d in names[0]]
        if len(names) == 1 and others:
            likely = max(others, key=names[0].count)
            what = f"with the delimiter {delimiter!r} there is only one column: {names[0][:60]!r}"
            fix = f"set source.delimiter: {_yaml(likely)} in model.yaml"
            raise InputError(Problem(f"{file.path}, header", what, fix))
        raise InputError(problems)
    return names


def _yaml(delimiter: str) -> str:
    return '"\\t"' if delimiter == "\t" else f'"{delimiter}"'


def _unreadable(system: Any, file: SourceFile, error: str) -> Problem:
    if "invalid UTF8" in error:
        with system.open_input_stream(file.path, compression="detect") as stream:
            for number, line in enumerate(io.BufferedReader(stream), start=1):
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return _not_utf8(file, number)
    fix = "a quote that is opened and never closed is the usual cause"
    return Problem(file.path, f"not readable as CSV: {error.splitlines()[0][:200]}", fix)


def _not_utf8(file: SourceFile, line: int) -> Problem:
    return Problem(f"{file.path}, line {line}", "not UTF-8 text", "save it as UTF-8")
