"""The columns of the log's tables, and where a column goes whose type has changed."""

from __future__ import annotations

import re

import pyarrow as pa

from perennial.stores.predictions.segments import Kind

TIMESTAMP = pa.timestamp("us", tz="UTC")
DATE = "_date"
"""The partition column of the tables: the day, in UTC, of ``TIME_COLUMNS``."""
METRIC = "metric_"
"""What the columns of the labels' further numbers begin with."""
JOINED = ("_label", "_label_received_at", "_label_due")
"""What a join with labels adds to the log's columns; no input is stored under these names."""
TIME_COLUMNS: dict[Kind, str] = {
    "predictions": "_time",
    "labels": "_received_at",
    "failures": "_time",
}

_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "float": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "datetime": TIMESTAMP,
    "list": pa.list_(pa.float64()),
}


def check_columns(kind: Kind, schema: pa.Schema) -> None:
    """Raises ValueError when the table of this kind can't store these columns."""
    for field in schema:
        if field.type not in _TYPES.values():
            raise ValueError(f"column {field.name!r}: no table stores {field.type}")
    if schema.names.count(TIME_COLUMNS[kind]) != 1:
        raise ValueError(f"{kind} have one column {TIME_COLUMNS[kind]!r}, which says their day")


class Layout:
    """Where columns go in a table that has some already.

    A column keeps its name as long as its type is the one in the table. When a version reads it as
    another type, both are kept, each unchanged: the new one as ``<name>__<type>``
    (``amount__string``). The same goes for a name that is taken: by the log's own column, or by one
    that differs in nothing but capitals, which tables don't tell apart.
    """

    def __init__(self, table: pa.Schema) -> None:
        self._known = dict.fromkeys((DATE, *JOINED), "ours")
        self._known |= {field.name: _word(field.type) for field in table}
        self._lower = {name.lower() for name in self._known}
        self.used: dict[str, pa.DataType] = {}

    def place(self, schema: pa.Schema) -> list[str]:
        """The name in the table of each column, in order."""
        taken: set[str] = set()
        names = []
        for field in schema:
            name = self._name(field.name, _word(field.type), taken)
            taken.add(name)
            self._known[name] = _word(field.type)
            self._lower.add(name.lower())
            self.used[name] = _TYPES[_word(field.type)]
            names.append(name)
        return names

    def _name(self, name: str, word: str, taken: set[str]) -> str:
        candidate, tries = name, 1
        while candidate in taken or not self._fits(candidate, word):
            candidate = f"{name}__{word}" if tries == 1 else f"{name}__{word}_{tries}"
            tries += 1
        return candidate

    def _fits(self, name: str, word: str) -> bool:
        if name in self._known:
            return self._known[name] == word
        return name.lower() not in self._lower


def variants(name: str, table: pa.Schema) -> list[pa.Field]:
    """The columns of a table in which ``Layout`` may have put an input of this name, in their
    order."""
    words = "|".join(word for word in _TYPES if word != "list")
    pattern = re.compile(rf"{re.escape(name)}(__({words})(_\d+)?)?")
    return [field for field in table if pattern.fullmatch(field.name)]


def _word(kind: pa.DataType) -> str:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return "list"
    return next((word for word, known in _TYPES.items() if known == kind), str(kind))
