"""Rows counted in the bins of a reference: one pass, memory for the bins and one batch.

Sorting a batch and looking the edges up in it is several times quicker than looking every value up
among the edges.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.drift import Bins, ColumnCounts, WindowStatistics


def count_window(bins: Mapping[str, Bins], batches: Iterable[Any]) -> WindowStatistics:
    """Count the rows of Arrow record batches (or tables), which may have further columns.

    Null and NaN are missing values. A column that a batch doesn't have, or has in a type of another
    kind (text for a number), is counted as such; nothing is raised for what is in the data.
    """
    total = empty_window(bins)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for batch in batches:  # Arrow and NumPy leave Python's lock to others while they sort
            total = merged(total, _counted(bins, batch, pool))
    return total


def empty_window(bins: Mapping[str, Bins]) -> WindowStatistics:
    return WindowStatistics(rows=0, columns={name: _counts(each) for name, each in bins.items()})


def merged(a: WindowStatistics, b: WindowStatistics) -> WindowStatistics:
    """The statistics of both windows' rows together. Associative and commutative (the sums of
    values to their rounding). Both must have been counted in the same bins."""
    columns = {name: _sum(counts, b.columns[name]) for name, counts in a.columns.items()}
    return WindowStatistics(rows=a.rows + b.rows, columns=columns)


def text_hash(text: str) -> int:
    """32 bits that are the same in every process and version."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def kind_of(values: Any) -> str:
    """The kind of an Arrow type: number, text, time, null, or the type's own name."""
    if pa.types.is_dictionary(values):
        return kind_of(values.value_type)
    if pa.types.is_null(values):
        return "null"
    if (
        pa.types.is_integer(values)
        or pa.types.is_floating(values)
        or pa.types.is_boolean(values)
        or pa.types.is_decimal(values)
    ):
        return "number"
    if (
        pa.types.is_string(values)
        or pa.types.is_large_string(values)
        or pa.types.is_string_view(values)
    ):
        return "text"
    if pa.types.is_timestamp(values) or pa.types.is_date(values):
        return "time"
    return str(values)


def _counted(bins: Mapping[str, Bins], batch: Any, pool: Executor) -> WindowStatistics:
    rows, names = batch.num_rows, batch.schema.names

    def counted(item: tuple[str, Bins]) -> tuple[str, ColumnCounts]:
        name, column = item
        if names.count(name) != 1:
            return name, _counts(column, absent=rows)
        return name, _count(column, batch.column(names.index(name)))

    return WindowStatistics(rows=rows, columns=dict(pool.map(counted, bins.items())))


def _count(bins: Bins, values: Any) -> ColumnCounts:
    if isinstance(values, pa.ChunkedArray):
        parts = (_count(bins, chunk) for chunk in values.chunks)
        return reduce(_sum, parts, _counts(bins))
    kind = kind_of(values.type)
    if kind == "null":
        return _counts(bins, missing=len(values))
    if kind != bins.kind:
        return _counts(bins, mistyped=len(values), types=(str(values.type),))
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    match bins.kind:
        case "number":
            return _count_numbers(bins, values)
        case "text":
            return _count_texts(bins, values)
        case "time":
            return _count_times(bins, values)


def _count_numbers(bins: Bins, values: Any) -> ColumnCounts:
    numbers = np.sort(values.drop_null().cast(pa.float64(), safe=False).to_numpy())
    numbers = numbers[: np.searchsorted(numbers, np.inf, "right")]  # NaN comes last
    if not len(numbers):
        return _counts(bins, missing=len(values))
    inner = np.searchsorted(numbers, bins.edges)
    counts = np.diff(inner, prepend=0, append=len(numbers))
    first, last = np.searchsorted(numbers, -np.inf, "right"), np.searchsorted(numbers, np.inf)
    with np.errstate(over="ignore"):
        finite = numbers[first:last] - (bins.edges[0] if bins.edges else 0.0)
        total, squares = float(finite.sum()), float(np.square(finite).sum())
    return _counts(
        bins,
        (*counts.tolist(), len(values) - len(numbers)),
        impossible=len(numbers) - _possible(bins, numbers),
        infinite=len(numbers) - len(finite),
        total=total,
        squares=squares,
        least=float(numbers[0]),
        greatest=float(numbers[-1]),
    )


def _possible(bins: Bins, numbers: np.ndarray) -> int:
    """How many of these sorted numbers model.yaml allows."""
    if bins.allowed is not None:
        allowed = np.array([float(value) for value in bins.allowed])
        ends = np.searchsorted(numbers, allowed, "right") - np.searchsorted(numbers, allowed)
        return int(ends.sum())
    first = 0 if bins.least is None else np.searchsorted(numbers, bins.least, "left")
    last = len(numbers)
    if bins.greatest is not None:
        last = int(np.searchsorted(numbers, bins.greatest, "right"))
    return max(int(last - first), 0)


def _count_texts(bins: Bins, values: Any) -> ColumnCounts:
    counted = pc.value_counts(values.cast(pa.string()).drop_null())
    texts, each = counted.field("values"), counted.field("counts").to_numpy()
    missing = values.null_count
    if not len(texts):
        return _counts(bins, missing=missing)
    levels = len(bins.levels)
    hashes = np.fromiter(map(text_hash, texts.to_pylist()), np.int64, len(texts))
    places = np.array(pc.index_in(texts, pa.array(bins.levels, pa.string())).fill_null(-1))
    places = np.where(places >= 0, places, levels + hashes % max(bins.buckets, 1))
    counts = np.zeros(bins.size, np.int64)
    np.add.at(counts, places, each)
    counts[-1] += missing
    impossible = 0
    if bins.allowed is not None:
        possible = np.array(pc.is_in(texts, pa.array(bins.allowed, pa.string())))
        impossible = int(each[~possible].sum())
    return _counts(
        bins,
        tuple(counts.tolist()),
        impossible=impossible,
        unseen=int(each[~np.isin(hashes, np.array(bins.known, np.int64))].sum()),
        least=float(hashes.min()),
        greatest=float(hashes.max()),
    )


def _count_times(bins: Bins, values: Any) -> ColumnCounts:
    present = len(values) - values.null_count
    if not present:
        return _counts(bins, missing=len(values))
    if pa.types.is_date32(values.type):
        values = values.cast(pa.int32())
    ends = pc.min_max(values.cast(pa.int64()))
    least, greatest = float(ends["min"].as_py()), float(ends["max"].as_py())
    return _counts(bins, (present, values.null_count), least=least, greatest=greatest)


def _counts(
    bins: Bins, counts: tuple[int, ...] | None = None, missing: int = 0, **others: Any
) -> ColumnCounts:
    if counts is None:
        counts = (*(0,) * (bins.size - 1), missing)
    return ColumnCounts.model_construct(counts=counts, **others)


def _sum(a: ColumnCounts, b: ColumnCounts) -> ColumnCounts:
    leasts = [each.least for each in (a, b) if each.least is not None]
    greatests = [each.greatest for each in (a, b) if each.greatest is not None]
    return ColumnCounts.model_construct(
        counts=tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)),
        absent=a.absent + b.absent,
        mistyped=a.mistyped + b.mistyped,
        types=tuple(sorted({*a.types, *b.types})),
        impossible=a.impossible + b.impossible,
        unseen=a.unseen + b.unseen,
        infinite=a.infinite + b.infinite,
        total=a.total + b.total,
        squares=a.squares + b.squares,
        least=min(leasts, default=None),
        greatest=max(greatests, default=None),
    )
