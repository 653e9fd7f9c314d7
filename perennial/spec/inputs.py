"""The sections of model.yaml about data: where rows come from, and what may be in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from perennial.contracts.features import ColumnType
from perennial.spec.values import (
    Class,
    Duration,
    Extent,
    Flag,
    Level,
    Mistake,
    Number,
    PositiveDuration,
    Section,
    Seed,
    Share,
    Text,
    repeated,
)

_PASSWORD = re.compile(r"^[\w+.-]+://[^/]*:[^/]+@|[?&;](password|pwd)(=|%3d)", re.IGNORECASE)
_TABLE_NAME = re.compile(r'[\w$]+(\.[\w$]+)?|"[^"]+"(\."[^"]+")?')


def _keys_of_the_kind(source: Source) -> Iterator[Mistake]:
    if source.kind == "sql" and not source.statement:
        yield "query", "an sql source needs a table's name or a SELECT"
    if source.kind != "sql" and source.query:
        yield "query", f"only an sql source has a query, this is {source.kind}"
    for key in ("delimiter", "decimal"):
        if source.kind != "csv" and key in source.model_fields_set:
            yield key, f"only a csv source has a {key}, this is {source.kind}"


def _one_statement(source: Source) -> Iterator[Mistake]:
    """Some drivers run all that a text holds, one after the other."""
    if source.kind == "sql" and ";" in source.statement and not source.is_table:
        yield (
            "query",
            "a semicolon in the middle: it must be one SELECT; "
            "where a text in it has one, make a view and name that",
        )


def _no_password(source: Source) -> Iterator[Mistake]:
    if _PASSWORD.search(source.uri):
        yield "uri", "holds a password; put the URL in an environment variable and write env:NAME"


def _event_time_alone(source: Source) -> Iterator[Mistake]:
    yield from repeated(source.entity, "entity")
    if source.event_time in source.entity:
        at = source.entity.index(source.event_time)
        yield f"entity.{at}", "the event time always belongs to a row's identity; leave it out"
    if source.event_time is None and "lateness" in source.model_fields_set:
        yield "lateness", "no row is late without source.event_time"


class Source(Section):
    """Where rows come from."""

    kind: Literal["csv", "parquet", "delta", "sql"]
    """The form of the data."""
    uri: Text
    """A file, folder or glob, relative to the project; `s3://…`; for sql an SQLAlchemy URL without
    a password, or `env:NAME` to read it from the environment."""
    query: str | None = None
    """sql only: the table's name or a SELECT statement."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """csv only: one character; a tab is `"\\t"`."""
    decimal: Literal[".", ","] = "."
    """csv only: the decimal mark of its numbers. With a comma `1,5` is a number, and `1.234` is
    none."""
    event_time: Text | None = None
    """Column with the time of the event; naive times are UTC, and one more than a day ahead of the
    clock breaks a rule. Without it every ingestion is a snapshot of the whole source."""
    entity: tuple[Text, ...] = ()
    """Columns that identify a row together with the event time. Without them a row is identified by
    the event time and all its columns but the label: none can be added or taken out later."""
    lateness: Duration = timedelta(days=30)
    """How far behind the newest row already ingested a late row may come and still be read; a
    label, as much later as `label.delay` says."""

    rules = (_keys_of_the_kind, _one_statement, _no_password, _event_time_alone)

    @property
    def statement(self) -> str:
        """The query without what ends it; "" when there is none."""
        return (self.query or "").strip().rstrip("; \n")

    @property
    def is_table(self) -> bool:
        """Whether the query is a table's name, not a SELECT."""
        return _TABLE_NAME.fullmatch(self.statement) is not None


class Label(Section):
    """What is predicted."""

    column: Text
    """The column that holds it."""
    delay: Duration = timedelta(0)
    """How long after the event its label becomes known: until then it is not used, whatever the
    column holds, and the row is read again, to the end of `source.lateness` after it."""
    positive: Class | None = None
    """binary only: the value that counts as positive; by default the greater of the two."""


def _bounds_fit(column: Column) -> Iterator[Mistake]:
    if column.min is not None and column.max is not None and column.min > column.max:
        yield "", f"min {column.min:g} is above max {column.max:g}"
    if column.type not in ("float", "integer"):
        for key in ("min", "max"):
            if getattr(column, key) is not None:
                yield key, f"only a float or integer column has a {key}, this is {column.type}"


def _allowed_fit(column: Column) -> Iterator[Mistake]:
    if column.allowed is None:
        return
    if column.type in ("float", "boolean", "datetime"):
        yield (
            "allowed",
            f"only a category, string or integer column has allowed values, this is {column.type}",
        )
    if column.type == "integer":
        for i, value in enumerate(column.allowed):
            if not re.fullmatch(r"-?(0|[1-9][0-9]*)", value):
                yield f"allowed.{i}", f"{value!r} is not a whole number, as the column's type says"
    yield from repeated(column.allowed, "allowed")


def _can_be_a_feature(column: Column) -> Iterator[Mistake]:
    if (
        column.feature
        and column.type in ("string", "datetime")
        and "feature" in column.model_fields_set
    ):
        yield (
            "feature",
            f"a {column.type} column can't be a feature; make it a category, or use features.py",
        )


class Column(Section):
    """What a column may hold; a row that breaks it goes to quarantine with the reason."""

    type: ColumnType
    """What its values are: a category has few distinct values, a string any number."""
    min: Number | None = None
    """Inclusive."""
    max: Number | None = None
    """Inclusive."""
    nullable: Flag = True
    """Whether values may be missing."""
    allowed: Annotated[tuple[Level, ...], Field(min_length=1)] | None = None
    """The allowed values of a category, string or integer column."""
    feature: Flag = True
    """Whether the column itself is given to the booster; features.py may read it either way."""

    rules = (_bounds_fit, _allowed_fit, _can_be_a_feature)


class Quarantine(Section):
    """What happens to rows that break a rule."""

    max_share: Share = 0.02
    """Above this share of bad rows in a batch nothing is ingested and the run fails."""


def _parts_fit(split: Split) -> Iterator[Mistake]:
    for key, value in (("validation", split.validation), ("test", split.test)):
        if split.kind == "time" and isinstance(value, float):
            yield key, f"{key} of a time split is a duration such as 14d, not {value:g}"
        if split.kind != "time" and isinstance(value, timedelta):
            yield key, f"{key} of a {split.kind} split is a share of rows such as 0.2"
    if (
        isinstance(split.validation, float)
        and isinstance(split.test, float)
        and split.validation + split.test >= 1
    ):
        yield "", "validation and test leave nothing to train on"


def _keys_of_the_split(split: Split) -> Iterator[Mistake]:
    if (split.kind == "group") != (split.group is not None):
        yield "group", "group names the column of a group split, and only of one"
    if split.kind != "time":
        for key in ("gap", "window"):
            if getattr(split, key):
                yield key, f"{key} belongs to a time split, this is {split.kind}"


class Split(Section):
    """How rows are divided into training, validation (tuning) and test (gates)."""

    kind: Literal["time", "group", "stratified", "random"] = "time"
    """time: the newest rows are tested; group: rows of one group stay together; stratified: each
    class in equal shares; random: any row anywhere. But for time, a row falls where a hash of its
    identity does, of one without an entity of all it holds but the label, wherever it lies."""
    validation: Extent = timedelta(days=14)
    """For early stopping and tuning: a duration in a time split, else a share of rows (of
    groups)."""
    test: Extent = timedelta(days=14)
    """For the gates; a time split takes the newest rows. Written as validation is."""
    gap: Duration = timedelta(0)
    """time only: rows left out before the validation and before the test part; never less than
    `label.delay`."""
    group: Text | None = None
    """group only: rows with equal values stay in one part."""
    window: PositiveDuration | None = None
    """time only: train on at most this much time before the validation part; by default on all."""
    seed: Seed = 7
    """Of the assignment, where it is random. Another one draws anew: until a version drawn by it
    serves, most test rows are known to the champion and no part of the comparison."""

    rules = (_parts_fit, _keys_of_the_split)
