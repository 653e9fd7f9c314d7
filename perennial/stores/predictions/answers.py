"""A version's own answers of a window, as the log has them: no shadow copies, one column a name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.features import InputColumn
from perennial.data.parsing import TYPES
from perennial.stores.predictions.columns import variants
from perennial.stores.predictions.reading import predictions
from perennial.stores.predictions.tables import open_log, schema_of

_KNOWN = ("_id", "_time", "_version", "_arm", "_prediction", "_class", "_probabilities")


class Columns:
    """Which columns of the log hold a version's inputs: a column whose type has changed lies beside
    its former self (``predictions.columns.Layout``)."""

    def __init__(self, log: pa.Schema, inputs: Iterable[InputColumn]) -> None:
        self._places: dict[str, tuple[list[str], list[str]]] = {}
        for column in inputs:
            found = variants(column.name, log)
            right = [f.name for f in found if f.type == TYPES[column.type]]
            wrong = [f.name for f in found if f.type != TYPES[column.type]]
            if found:
                self._places[column.name] = (right, wrong)

    @property
    def names(self) -> list[str]:
        """All that must be read of the log."""
        return [name for places in self._places.values() for part in places for name in part]

    def of(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        """The inputs by name. One that the log has never had is not among them; one that only has
        values in another type comes in that type."""
        found = {}
        for name, (right, wrong) in self._places.items():
            arrays = [batch.column(each) for each in right]
            strays = [batch.column(each) for each in wrong]
            values = pc.coalesce(*arrays) if len(arrays) > 1 else next(iter(arrays), None)
            if values is None or values.null_count == len(values):
                stray = next((s for s in strays if s.null_count < len(s)), None)
                values = stray if stray is not None else values if arrays else strays[0]
            found[name] = values
        return found


def answers(
    uri: str, version: int, inputs: Iterable[InputColumn], start: datetime, end: datetime
) -> Iterator[pa.RecordBatch]:
    """What the version answered in ``start <= _time < end``, in no order, at most 65,536 rows at a
    time: ``_id``, ``_time``, the outputs, and the inputs as ``Columns.of`` finds them.

    Nothing comes of a log that isn't there. Raises as ``predictions``.
    """
    log = open_log(uri)
    if log is None:
        return
    columns = Columns(schema_of(log), inputs)
    for batch in predictions(uri, start, end, [*_KNOWN, *dict.fromkeys(columns.names)]):
        mine = own(batch, version)
        if mine.num_rows:
            known = {n: mine.column(n) for n in _KNOWN if n not in ("_version", "_arm")}
            yield pa.RecordBatch.from_pydict(known | columns.of(mine))


def own(batch: pa.RecordBatch, version: int) -> pa.RecordBatch:
    """The rows with which the version answered somebody."""
    mine = pc.and_(
        pc.equal(batch.column("_version"), version), pc.not_equal(batch.column("_arm"), "shadow")
    )
    return batch.filter(mine)


@dataclass
class Sample:
    """Up to ``most`` rows, drawn at random but always the same in whatever order batches come:
    those whose ids have the least hashes. ``rows`` counts all that came, ``digest`` tells them from
    others.
    """

    most: int
    rows: int = 0
    digest: int = 0
    _kept: list[tuple[np.ndarray, pa.Table]] = field(default_factory=list)
    _waiting: int = 0

    def through(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches as they come, sampled on their way."""
        for batch in batches:
            self.add(batch)
            yield batch

    def add(self, batch: pa.RecordBatch) -> None:
        hashes = hashes_of(batch.column("_id"))
        self.rows += len(hashes)
        self.digest = (self.digest + int(hashes.sum(dtype=np.uint64))) % 2**64
        if len(hashes) > self.most:
            batch, hashes = _least(pa.table(batch), hashes, self.most)
        self._kept.append((hashes, pa.table(batch)))
        self._waiting += len(hashes)
        if self._waiting > 4 * self.most:
            self._settle()

    def merge(self, other: Sample) -> None:
        """Take in the sample, of as many rows at most, of other batches."""
        self.rows += other.rows
        self.digest = (self.digest + other.digest) % 2**64
        self._kept += other._kept
        self._waiting += other._waiting
        if self._waiting > 4 * self.most:
            self._settle()

    def settled(self) -> Sample:
        """This, holding no more rows than it keeps."""
        self._settle()
        return self

    def table(self) -> pa.Table | None:
        """The sampled rows in the order of their ids' hashes; None when no batch came. Columns of
        batches that differ in type come in that of the first."""
        self._settle()
        return self._kept[0][1] if self._kept else None

    def _settle(self) -> None:
        if not self._kept:
            return
        hashes = np.concatenate([each for each, _ in self._kept])
        together = _together([table for _, table in self._kept])
        table, hashes = _least(together, hashes, self.most)
        self._kept, self._waiting = [(hashes, table)], len(hashes)


def _least(rows: pa.Table, hashes: np.ndarray, most: int) -> tuple[pa.Table, np.ndarray]:
    order = np.argsort(hashes, kind="stable")[:most]
    return rows.take(pa.array(order)), hashes[order]


def _together(tables: list[pa.Table]) -> pa.Table:
    """Tables one after another; a column that some have in another type is null there."""
    types: dict[str, pa.DataType] = {}
    for table in tables:
        for f in table.schema:
            types.setdefault(f.name, f.type)
    schema = pa.schema(list(types.items()))
    return pa.concat_tables([_fitted(table, schema) for table in tables]).combine_chunks()


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns: Mapping[str, pa.ChunkedArray] = dict(
        zip(table.column_names, table.columns, strict=True)
    )
    arrays = [
        columns[f.name]
        if f.name in columns and columns[f.name].type == f.type
        else pa.nulls(table.num_rows, f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def hashes_of(values: pa.Array) -> np.ndarray:
    """64 bits of each value as text, the same in every process."""
    import pandas as pd

    texts = pc.cast(values, pa.string()).fill_null("").to_numpy(zero_copy_only=False)
    return pd.util.hash_array(np.asarray(texts, dtype=object), categorize=False)
