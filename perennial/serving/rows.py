"""The rows of one request, in whichever form they came, as the columns a version reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from operator import itemgetter
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.features import FeatureSchema
from perennial.data.frames import Typed, table_rows
from perennial.data.row_numbers import at_row
from perennial.serving.batching import INLINE_ROWS, Rows
from perennial.serving.replies import Refusal
from perennial.spec import ModelSpec
from perennial.spec.values import nearest, shown

_MAX_PROBLEMS = 20
_SHORT = (np.float16, np.float32)
_PLAIN = frozenset(
    kind.id
    for kind in (
        pa.null(), pa.bool_(), pa.string(), pa.float64(),
        pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
        pa.int8(), pa.int16(), pa.int32(), pa.int64(),
    )
)  # fmt: skip
"""Types whose values mean the same to any column when they are Python's own."""


class Reads:
    """What a version reads of a request. Made once a version."""

    def __init__(
        self, spec: ModelSpec, schema: FeatureSchema, columns: Mapping[str, Typed]
    ) -> None:
        self.required = tuple(column.name for column in schema.inputs)
        self.optional = tuple(name for name in columns if name not in self.required)
        time = spec.source.event_time
        self.label = spec.label.column
        self.known = frozenset((*spec.columns, *((time,) if time else ()))) - {self.label}
        self.columns = columns
        self.entity = {name: columns[name] for name in spec.source.entity}

    @cached_property
    def get(self) -> Any:
        """The required values of a row, as a tuple; KeyError when one is absent."""
        if len(self.required) == 1:
            only = self.required[0]
            return lambda row: (row[only],)
        return itemgetter(*self.required) if self.required else lambda _: ()

    def unknown(self, name: object) -> Problem:
        if name == self.label:
            what = "is the label, which nobody knows at prediction time"
            return Problem(f"column {name!r}", what, "leave it out; labels go to …/labels")
        what = f"no such column{nearest(str(name), sorted(self.known))}"
        return Problem(f"column {shown(name)}", what, "leave it out or correct its name")

    def absent(self, name: str, row: int | None) -> Problem:
        where = f"column {name!r}"
        if row is not None:
            where = at_row(where, row)
        fix = "send its value"
        if self.columns[name].nullable:
            fix += ", or null when it is not known"
        return Problem(where, "is absent", fix)


class RequestRows(Protocol):
    """Rows of a request. All methods raise InputError that names columns and rows (from 1)."""

    @property
    def count(self) -> int: ...

    def keys(self, reads: Reads) -> list[str | None]:
        """What tells entities apart, a row, whatever form their values came in; None where the
        request doesn't say."""
        ...

    def take(self, places: Sequence[int]) -> RequestRows:
        """Some of the rows."""
        ...

    def columns(self, reads: Reads) -> Rows:
        """Exactly what a version reads. A column nobody knows is an error: nothing is dropped
        without a word."""
        ...


class Objects:
    """Rows as JSON objects."""

    def __init__(self, rows: Sequence[Mapping[str, object]]) -> None:
        self._rows = rows
        self.count = len(rows)

    def keys(self, reads: Reads) -> list[str | None]:
        entity = {name: [row.get(name) for row in self._rows] for name in reads.entity}
        return _keys(entity, reads, self.count)

    def take(self, places: Sequence[int]) -> Objects:
        return Objects([self._rows[place] for place in places])

    def columns(self, reads: Reads) -> Rows:
        rows, known, get = self._rows, reads.known, reads.get
        try:
            values = [get(row) for row in rows]
        except KeyError:
            values = []
        if len(values) != len(rows) or not all(row.keys() <= known for row in rows):
            raise InputError(self._problems(reads))
        columns: dict[str, Sequence[object]] = dict(
            zip(reads.required, map(list, zip(*values, strict=True)), strict=True)
        )
        for name in reads.optional:
            columns[name] = [row.get(name) for row in rows]
        return columns

    def _problems(self, reads: Reads) -> list[Problem]:
        unknown: dict[str, None] = {}
        for row in self._rows:
            unknown |= dict.fromkeys(
                islice((n for n in row if n not in reads.known), _MAX_PROBLEMS)
            )
            if len(unknown) >= _MAX_PROBLEMS:
                break
        problems = [reads.unknown(name) for name in islice(unknown, _MAX_PROBLEMS)]
        for name in reads.required:
            lacking = [i for i, row in enumerate(self._rows) if name not in row]
            if lacking:
                everywhere = len(lacking) == len(self._rows)
                problems.append(reads.absent(name, None if everywhere else lacking[0]))
        return problems


class Columns:
    """Rows as columns of the same length: lists of Python values, NumPy arrays, chunked ones
    of Arrow."""

    def __init__(self, columns: Mapping[str, Any], count: int) -> None:
        self._columns = columns
        self.count = count

    def keys(self, reads: Reads) -> list[str | None]:
        return _keys(self._columns, reads, self.count)

    def take(self, places: Sequence[int]) -> Columns:
        taken = {
            name: [values[place] for place in places]
            if isinstance(values, list)
            else values.take(places)
            for name, values in self._columns.items()
        }
        return Columns(taken, len(places))

    def columns(self, reads: Reads) -> Rows:
        _check_names(reads, self._columns)
        nothing = [None] * self.count
        given = {name: self._columns.get(name, nothing) for name in reads.columns}
        try:
            return {name: _plain(name, given[name], c) for name, c in reads.columns.items()}
        except InputError:
            table_rows(given, reads.columns)  # raises with what is wrong in the other columns too
            raise


class Table:
    """Many rows as an Arrow table."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.count = len(table)

    def keys(self, reads: Reads) -> list[str | None]:
        names = self._table.column_names
        return _keys(dict(zip(names, self._table.columns, strict=True)), reads, self.count)

    def take(self, places: Sequence[int]) -> Table:
        return Table(self._table.take(pa.array(places, pa.int64())))

    def columns(self, reads: Reads) -> Rows:
        _check_names(reads, self._table.column_names)
        names = self._table.column_names
        return self._table.select(
            [name for name in (*reads.required, *reads.optional) if name in names]
        )


def from_table(table: pa.Table) -> RequestRows:
    """An Arrow table; few rows become Python values, so that they join a batch."""
    if len(set(table.column_names)) < table.num_columns:
        names = table.column_names
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(Problem(f"column {shown(twice)}", "is there twice"))
    if len(table) <= INLINE_ROWS:
        return Columns(dict(zip(table.column_names, table.columns, strict=True)), len(table))
    return Table(table)


def from_json(document: object) -> tuple[RequestRows, bool]:
    """Rows of ``{…}``, ``[{…}]`` or ``{"rows": [{…}]}``, and whether it was a single one."""
    single = False
    if isinstance(document, dict):
        inner = document.get("rows")
        single = not (len(document) == 1 and isinstance(inner, list))
        document = document if single else inner
    return Objects(objects(document, "row")), single


def objects(document: object, called: str) -> list[dict[str, Any]]:
    """The objects of a list, or the one that is no list. Raises Refusal for anything else, with
    what such an object is ``called``."""
    found = [document] if isinstance(document, dict) else document
    if not isinstance(found, list):
        what = f'expected an object (one {called}), a list of objects, or {{"{called}s": […]}}'
        raise Refusal(400, "invalid_request", f"{what}, not {_kind(found)}")
    for place, one in enumerate(found):
        if type(one) is not dict:
            what = f"{called} {place + 1} is {_kind(one)}, not an object of column: value"
            raise Refusal(400, "invalid_request", what)
    return found


def decode_json(body: bytes) -> object:
    """A JSON document. Raises Refusal for anything else, NaN and Infinity included."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        what = f"the body is not JSON: {error}"
        raise Refusal(400, "invalid_json", what) from None
    except UnicodeDecodeError as error:
        what = f"the body is not JSON: byte {error.start} of a text is not UTF-8"
        raise Refusal(400, "invalid_json", what) from None
    except RecursionError:
        raise Refusal(400, "invalid_json", "the body is not JSON: nested too deeply") from None


def _check_names(reads: Reads, names: Sequence[str] | Mapping[str, object]) -> None:
    unknown = (name for name in names if name not in reads.known)
    problems = [reads.unknown(name) for name in islice(unknown, _MAX_PROBLEMS)]
    problems += [reads.absent(name, None) for name in reads.required if name not in names]
    if problems:
        raise InputError(problems)


def _plain(name: str, values: Any, column: Typed) -> list[object]:
    """Values as Python's own that mean the same to their column. Those of most Arrow types come by
    way of the column's type, for a float32 is other text than the float that Python makes of it.
    Raises InputError for what does not parse."""
    plain: list[object]
    as_text = column.type in ("category", "string")
    if isinstance(values, list):
        plain = values
    elif isinstance(values, np.ndarray) and not (as_text and values.dtype in _SHORT):
        plain = values.tolist()
    elif isinstance(values, pa.ChunkedArray) and (
        values.type.id in _PLAIN or (pa.types.is_floating(values.type) and not as_text)
    ):
        plain = values.to_pylist()
    else:
        plain = table_rows({name: values}, {name: column}).column(0).to_pylist()
    return plain


def _keys(columns: Mapping[str, Any], reads: Reads, count: int) -> list[str | None]:
    """The entities' values in the types of their columns, as text. Servers of all releases must
    agree on it while a canary is under way."""
    if not reads.entity or any(name not in columns for name in reads.entity):
        return [None] * count
    parsed = table_rows({name: columns[name] for name in reads.entity}, reads.entity)
    return [
        None if None in values else "\x1f".join(map(str, values))
        for values in zip(*(column.to_pylist() for column in parsed.columns), strict=True)
    ]


def _kind(value: object) -> str:
    names = {list: "a list", dict: "an object", str: "text", type(None): "null", bool: "true/false"}
    return names.get(type(value), "a number")
