"""Late labels joined to the predictions they are of, in bounded memory.

A window is of *prediction time*: our own clock wrote it, it is never missing, the table is
partitioned by it, and the drift of inputs is measured over the same rows. *Event time* says which
label is of which prediction, and when it is due.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from perennial.contracts.errors import InputError, IntegrityError, Problem
from perennial.contracts.performance import JoinCounts, LabelCounts
from perennial.spec.rules import OURS
from perennial.spec.schema import ModelSpec
from perennial.spec.values import nearest
from perennial.stores import engine, lake
from perennial.stores.predictions.columns import DATE, JOINED, METRIC, variants
from perennial.stores.predictions.tables import open_log, schema_of

LABEL, RECEIVED_AT, DUE = JOINED
"""What a join adds to the columns of the log."""
_BATCH_ROWS = 65_536
_HAPPENED, _COPIES, _CONTRADICTS = f"{OURS}event", f"{OURS}copies", f"{OURS}contradicts"
_KEY = f"{OURS}key_"
_COUNTED = {
    "predictions": "true",
    "due": DUE,
    "labelled": f"{LABEL} IS NOT NULL",
    "labelled_due": f"{LABEL} IS NOT NULL AND {DUE}",
    "overdue": f"{LABEL} IS NULL AND {DUE}",
    "pending": f"{LABEL} IS NULL AND NOT {DUE}",
    "early": f"{RECEIVED_AT} < {_HAPPENED}",
    "repeated": f"{_COPIES} > 1",
    "contradicted": _CONTRADICTS,
}


@dataclass(frozen=True)
class Joined:
    """Predictions with what is known of their labels. Usable while its context is open."""

    counts: JoinCounts
    _connection: Any
    _rows: str
    _columns: tuple[str, ...]

    def batches(
        self, columns: Sequence[str] | None = None, version: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The predictions of the window, of one version or of all, in order of time, id, version.

        Batches have at most 65,536 rows: the columns asked for (default: all of the log but
        ``_date``), then ``_label`` (float64 in a regression, else the class as text; null where
        there is none yet), ``_label_received_at`` and ``_label_due``. A metric is of rows that are
        labelled *and* due: labels that come before they are due are often those of one class.

        Raises InputError for a column that the log doesn't have.
        """
        chosen = self._columns if columns is None else tuple(columns)
        problems = [
            Problem(f"column {name!r}", f"not in the log{nearest(name, self._columns)}")
            for name in chosen
            if self._columns and name not in self._columns
        ]
        if problems:
            raise InputError(problems)
        if not self.counts.versions:
            return
        wanted = "true" if version is None else f"_version = {version:d}"
        query = (
            f"SELECT {engine.names([*chosen, LABEL, RECEIVED_AT, DUE])} FROM ({self._rows}) "
            f"WHERE {wanted} ORDER BY _time, _id, _version"
        )
        yield from self._connection.sql(query).to_arrow_reader(_BATCH_ROWS)


@contextmanager
def join_labels(
    spec: ModelSpec,
    predictions_uri: str,
    labels_uri: str,
    start: datetime,
    end: datetime,
    as_of: datetime,
) -> Iterator[Joined]:
    """The predictions made in ``start <= _time < end``, joined with the labels received before
    ``as_of`` (all with an offset): the same rows give the same join, however their files lie.

    A label is of the predictions with its id, or with its entity and event time: of every version
    that answered, shadows included. Of several labels the last received counts, of several received
    at once the greatest. Where the model has an event time but no entity, only ids tell rows apart.

    Labels of predictions that the log doesn't have are counted, never used; when some label is of
    no prediction in the window, the keys of the whole log are read to tell.

    A table that isn't there is empty. Raises IntegrityError when one is damaged, UnavailableError
    when its store does not answer, InputError when there is no space left to spill to.
    """
    predictions, labels = open_log(predictions_uri), open_log(labels_uri)
    with _readable(predictions_uri), engine.connect(_spill(predictions_uri)) as connection:
        keys = _keep_labels(connection, spec, predictions, labels, labels_uri, as_of, ())
        received = f"received >= {engine.at(start)}"
        (arrived,) = engine.one(connection, f"SELECT count(*) FROM given WHERE {received}")
        counts = JoinCounts(
            start=start, end=end, as_of=as_of, labels=arrived, unknown=arrived, versions={}
        )
        if predictions is None:
            yield Joined(counts, connection, "", ())
            return
        compared = _compared(spec, predictions, keys)
        log = _log(connection, predictions, predictions_uri, compared)
        window = _log(connection, predictions, predictions_uri, compared, (start, end))
        _keep_latest(connection, window, len(keys), 0)
        names = _shown(predictions)
        rows = _joined(window, names, as_of - spec.label.delay, len(keys), 0)
        found = connection.execute(
            f"SELECT _version, {', '.join(f'count(*) FILTER ({w})' for w in _COUNTED.values())} "
            f"FROM ({rows}) GROUP BY _version ORDER BY _version"
        )
        versions = {
            int(version): LabelCounts(**dict(zip(_COUNTED, numbers, strict=True)))
            for version, *numbers in found.fetchall()
        }
        unknown = _unknown(connection, received, (window, log), len(keys)) if arrived else 0
        counts = counts.model_copy(update={"unknown": unknown, "versions": versions})
        yield Joined(counts, connection, rows, tuple(names))


@contextmanager
def labelled_rows(
    spec: ModelSpec,
    predictions_uri: str,
    labels_uri: str,
    window: tuple[datetime, datetime],
    as_of: datetime,
    metrics: Sequence[str] = (),
) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """``join_labels`` for statistics that SQL can compute, without its counts: what is yielded
    gives the rows of a query over the relation ``joined``.

    That has the log's columns, ``_label``, ``_label_received_at``, ``_label_due`` and, for each of
    ``metrics``, ``_label_metric_0…``: the numbers of this name that came with the label which
    counts, null where none did. No query gives anything of a log that isn't there. Raises as
    ``join_labels``.
    """
    predictions, labels = open_log(predictions_uri), open_log(labels_uri)
    with _readable(predictions_uri), engine.connect(_spill(predictions_uri)) as connection:
        if predictions is None:
            yield lambda _: []
            return
        keys = _keep_labels(connection, spec, predictions, labels, labels_uri, as_of, metrics)
        compared = _compared(spec, predictions, keys)
        rows = _log(connection, predictions, predictions_uri, compared, window)
        _keep_latest(connection, rows, len(keys), len(metrics))
        joined = _joined(
            rows, _shown(predictions), as_of - spec.label.delay, len(keys), len(metrics)
        )
        yield lambda query: list(
            connection.execute(f"WITH joined AS ({joined}) {query}").fetchall()
        )


def _compared(spec: ModelSpec, predictions: Any, keys: Sequence[str]) -> dict[str, str]:
    """What is computed of the log's rows to find their labels by, in SQL."""
    by_key = {f"{_KEY}{i}": key for i, key in enumerate(keys)}
    return {_HAPPENED: _happened(spec, predictions), **by_key}


def _shown(predictions: Any) -> list[str]:
    """The log's columns that a reader of the join sees."""
    return [name for name in schema_of(predictions).names if name not in (DATE, *JOINED)]


def _keep_labels(
    connection: Any,
    spec: ModelSpec,
    predictions: Any,
    labels: Any,
    uri: str,
    as_of: datetime,
    metrics: Sequence[str],
) -> list[str]:
    """Put the labels known at a moment into the table ``given`` (id, k0…, value, received, m0…).

    Returns the columns of the log that ``k0…`` are compared with, in SQL; none when labels can't be
    told by them.
    """
    number = spec.objective == "regression"
    kind = "DOUBLE" if number else "VARCHAR"
    if labels is None:
        connection.execute(
            f"CREATE TEMP TABLE given (id VARCHAR, value {kind}, received TIMESTAMPTZ"
            + "".join(f", m{i} DOUBLE" for i in range(len(metrics)))
            + ")"
        )
        return []
    schema = schema_of(labels)
    value = _variants("label", schema, pa.types.is_floating if number else pa.types.is_string)
    theirs, ours = _keys(spec, schema), []
    if predictions is not None:
        ours = _keys(spec, schema_of(predictions))
    if len(theirs) != len(ours):
        theirs = ours = []
    keys = "".join(f", {key} AS k{i}" for i, key in enumerate(theirs))
    numbers = (_variants(f"{METRIC}{name}", schema, pa.types.is_floating) for name in metrics)
    more = "".join(f", {number}::DOUBLE AS m{i}" for i, number in enumerate(numbers))
    identity = "_id" if "_id" in schema.names else "NULL::VARCHAR"
    connection.execute(
        f"CREATE TEMP TABLE given AS SELECT {identity} AS id{keys}, {value}::{kind} AS value, "
        f"_received_at AS received{more} FROM {lake.relation(connection, labels, uri)} "
        f"WHERE _received_at < {engine.at(as_of)} AND {value} IS NOT NULL"
    )
    return ours


def _keys(spec: ModelSpec, schema: pa.Schema) -> list[str]:
    """The entity as text and the event time, in SQL; empty when a column is not in the table."""
    if not spec.source.entity:
        return []
    keys = [_variants(name, schema, lambda _: True, text=True) for name in spec.source.entity]
    if spec.source.event_time:
        keys.append(_variants(spec.source.event_time, schema, pa.types.is_timestamp))
    return [] if "NULL" in keys else keys


def _variants(
    name: str, schema: pa.Schema, fits: Callable[[pa.DataType], bool], text: bool = False
) -> str:
    """A column, whichever of its types a version or an older model.yaml gave it, in SQL."""
    found = [f for f in variants(name, schema) if fits(f.type)]
    values = [_text(f) if text else engine.name(f.name) for f in found]
    return f"coalesce({', '.join(values)})" if values else "NULL"


def _text(field: pa.Field) -> str:
    """A column's values as text, in SQL; a whole number's is the same as a float and an integer, as
    far as a float tells it from its neighbours."""
    name = engine.name(field.name)
    if not pa.types.is_floating(field.type):
        return f"{name}::VARCHAR"
    whole = f"{name} = trunc({name}) AND abs({name}) < {2**53}"
    return f"CASE WHEN {whole} THEN {name}::BIGINT::VARCHAR ELSE {name}::VARCHAR END"


def _happened(spec: ModelSpec, predictions: Any) -> str:
    """When a prediction's event was, in SQL: its event time, else when it was predicted."""
    if spec.source.event_time is None:
        return "_time"
    known = _variants(spec.source.event_time, schema_of(predictions), pa.types.is_timestamp)
    return f"coalesce({known}, _time)"


def _log(
    connection: Any,
    table: Any,
    uri: str,
    compared: Mapping[str, str],
    window: tuple[datetime, datetime] | None = None,
) -> str:
    """The log, or the predictions made in a window, with columns to compare labels with, in SQL."""
    more = "".join(f", {expression} AS {name}" for name, expression in compared.items())
    if window is None:
        return f"(SELECT *{more} FROM {lake.relation(connection, table, uri)})"
    rows = lake.relation(connection, table, uri, "_time", window)
    inside = f"_time >= {engine.at(window[0])} AND _time < {engine.at(window[1])}"
    return f"(SELECT *{more} FROM {rows} WHERE {inside})"


def _keep_latest(connection: Any, window: str, keys: int, metrics: int) -> None:
    """The label that counts of each prediction in the window: tables ``by_id`` and ``by_key``."""
    ways = {"by_id": (["id"], ["_id"], "true")}
    columns, compared = [f"k{i}" for i in range(keys)], [f"{_KEY}{i}" for i in range(keys)]
    ways["by_key"] = (columns, compared, "id IS NULL") if keys else (["id"], ["_id"], "false")
    kept = ", ".join(["value", "received", *(f"m{i}" for i in range(metrics))])
    for table, (own, theirs, which) in ways.items():
        key = ", ".join(own)
        connection.execute(
            f"CREATE TEMP TABLE {table} AS SELECT {key}, {kept}, copies, contradicts FROM "
            f"(SELECT *, row_number() OVER (every ORDER BY received DESC, value DESC) AS place, "
            f"count(*) OVER every AS copies, "
            f"min(value) OVER every <> max(value) OVER every AS contradicts "
            f"FROM given WHERE {which} AND {_in(own, theirs, window)} "
            f"WINDOW every AS (PARTITION BY {key})) WHERE place = 1"
        )


def _joined(window: str, names: Sequence[str], due_until: datetime, keys: int, metrics: int) -> str:
    """Every prediction of the window with its label, in SQL."""
    by_key = " AND ".join(f"k.k{i} = p.{_KEY}{i}" for i in range(keys)) or "false"
    later = "b.received IS NULL OR (k.received, k.value) > (b.received, b.value)"
    by_k = f"k.received IS NOT NULL AND ({later})"
    numbers = "".join(
        f"CASE WHEN {by_k} THEN k.m{i} ELSE b.m{i} END AS _label_metric_{i}, "
        for i in range(metrics)
    )
    return (
        f"SELECT {engine.names(names, 'p')}, p.{_HAPPENED}, "
        f"p.{_HAPPENED} <= {engine.at(due_until)} AS {DUE}, "
        f"CASE WHEN {by_k} THEN k.value ELSE b.value END AS {LABEL}, "
        f"CASE WHEN {by_k} THEN k.received ELSE b.received END AS {RECEIVED_AT}, {numbers}"
        f"coalesce(b.copies, 0) + coalesce(k.copies, 0) AS {_COPIES}, "
        f"coalesce(b.contradicts, false) OR coalesce(k.contradicts, false) "
        f"OR coalesce(b.value <> k.value, false) AS {_CONTRADICTS} "
        f"FROM {window} p LEFT JOIN by_id b ON b.id = p._id LEFT JOIN by_key k ON {by_key}"
    )


def _unknown(connection: Any, received: str, places: Sequence[str], keys: int) -> int:
    """How many labels are of no prediction in any of the places, which are looked through in turn
    for what is still missing."""
    connection.execute(f"CREATE TEMP TABLE stray AS SELECT * FROM given WHERE {received}")
    columns, compared = [f"k{i}" for i in range(keys)], [f"{_KEY}{i}" for i in range(keys)]
    for place in places:
        # Only keys that a stray label has are kept of the log, however many it holds.
        ids = f"(SELECT _id FROM {place} WHERE _id IN (SELECT id FROM stray))"
        known = f"({_in(['id'], ['_id'], ids)})"
        if keys:
            theirs = _in(compared, columns, "stray")
            found = f"(SELECT {', '.join(compared)} FROM {place} WHERE {theirs})"
            known += f" OR (id IS NULL AND {_in(columns, compared, found)})"
        connection.execute(f"DELETE FROM stray WHERE {known}")
        (left,) = engine.one(connection, "SELECT count(*) FROM stray")
        if not left:
            break
    return int(left)


def _in(own: Sequence[str], theirs: Sequence[str], rows: str) -> str:
    """That a row's columns are together in some other row, in SQL; missing values never are."""
    here = " AND ".join(f"{column} IS NOT NULL" for column in own)
    return f"{here} AND ({', '.join(own)}) IN (SELECT ({', '.join(theirs)}) FROM {rows})"


def _spill(uri: str) -> Path:
    place = engine.spill_place(uri)
    return place if place.is_dir() else Path(tempfile.gettempdir())


@contextmanager
def _readable(uri: str) -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        what = f"the log can't be joined with its labels: {str(error).splitlines()[0][:200]}"
        raise IntegrityError(Problem(uri, what, "restore the table from a backup")) from None
