"""The reference of a version: bins chosen by some of its training rows, counts of the others.

Bins that fit the rows they are counted on make those rows look special: the commonest of many rare
levels were common by luck, and are rarer in any later window; levels that were never seen come up.
That alone can look like drift. So a random quarter of the rows chooses the bins and knows the
levels, and the others are counted: they and a window's rows are then strangers to the bins alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.drift import Bins, Kind, ReferenceStatistics, WindowStatistics
from perennial.contracts.features import ColumnType
from perennial.data.drift.counting import count_window, text_hash
from perennial.spec.inputs import Column

BINS = 64
"""Of equal share, for a number."""
LEVELS = 64
"""Texts that have a bin of their own, at most."""
BUCKETS = 16
"""Into which the others are hashed."""
CHOOSING_ROWS = 25_000
"""That choose the bins, at most; more would not make them better."""

BLOCKS = 24
"""Stretches of the training time that are counted, at most; of more, every n-th."""

_BLOCK_ROWS = 100
_BATCH_ROWS = 65_536
_KNOWN = 1000
_LEVEL_SHARE = 0.005
_KINDS: dict[ColumnType, Kind] = {
    "float": "number",
    "integer": "number",
    "boolean": "number",
    "category": "text",
    "string": "text",
    "datetime": "time",
}


def reference_statistics(
    table: Any,
    columns: Mapping[str, Column],
    seed: int = 0,
    time: str | None = None,
    window: timedelta | None = None,
) -> ReferenceStatistics:
    """The statistics of an Arrow table of training rows, for these of its columns.

    With the column of the rows' ``time`` and the length of the windows to come, stretches of that
    length with 100 rows or more are counted as blocks. The same table and seed give the same; the
    rows should be a random sample, or all of them. Raises KeyError for a column that the table
    doesn't have.
    """
    rows = table.num_rows
    chosen = np.random.default_rng(seed).permutation(rows)[: min(-(-rows // 4), CHOOSING_ROWS)]
    choosing = table.select(list(columns)).take(pa.array(np.sort(chosen)))
    bins = {name: _bins(choosing[name], column) for name, column in columns.items()}
    kept = np.ones(rows, bool)
    kept[chosen] = False
    others = table.filter(pa.array(kept))
    return ReferenceStatistics(
        bins=bins,
        window=count_window(bins, others.to_batches(_BATCH_ROWS)),
        blocks=_blocks(bins, others, time, window) if time and window else (),
    )


def combined(a: ReferenceStatistics, b: ReferenceStatistics) -> ReferenceStatistics:
    """The columns of both, which may come from different rows: a model's inputs from its training,
    its predictions from rows that it was not trained on. ``rows`` are those of ``a``."""
    columns = {**a.window.columns, **b.window.columns}
    window = WindowStatistics(rows=a.window.rows, columns=columns)
    return ReferenceStatistics(bins={**a.bins, **b.bins}, window=window, blocks=a.blocks)


def _blocks(
    bins: Mapping[str, Bins], rows: Any, time: str, window: timedelta
) -> tuple[WindowStatistics, ...]:
    moments = rows[time].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    if not len(moments) or rows[time].null_count:
        return ()
    numbers = (moments - moments.min()) // (window // timedelta(microseconds=1))
    found, sizes = np.unique(numbers, return_counts=True)
    found = found[sizes >= _BLOCK_ROWS]
    found = found[:: -(-len(found) // BLOCKS) or 1]
    if len(found) < 2:  # the whole has nothing to be compared with
        return ()
    blocks = (rows.filter(pa.array(numbers == number)) for number in found)
    return tuple(count_window(bins, block.to_batches(_BATCH_ROWS)) for block in blocks)


def _bins(values: Any, column: Column) -> Bins:
    kind = _KINDS[column.type]
    match kind:
        case "number":
            return Bins(
                kind=kind,
                edges=_edges(values),
                least=column.min,
                greatest=column.max,
                allowed=column.allowed,
            )
        case "text":
            levels, known = _levels(values)
            return Bins(
                kind=kind, levels=levels, buckets=BUCKETS, known=known, allowed=column.allowed
            )
        case "time":
            return Bins(kind=kind)


def _edges(values: Any) -> tuple[float, ...]:
    """The least value, the quantiles, and what follows the greatest; of a few distinct values, each
    begins a bin."""
    numbers = values.drop_null().cast(pa.float64(), safe=False).to_numpy()
    numbers = np.sort(numbers[np.isfinite(numbers)])
    if not len(numbers):
        return ()
    starts = np.unique(numbers)
    if len(starts) > BINS:
        starts = np.unique(numbers[np.arange(BINS) * len(numbers) // BINS])
    return (*starts.tolist(), float(np.nextafter(numbers[-1], np.inf)))


def _levels(values: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The levels that are common enough, the commonest first, and the hashes of those that are
    known."""
    texts = values.cast(pa.string()).drop_null()
    counted = pc.value_counts(texts)
    ranked = pa.table({"text": counted.field("values"), "count": counted.field("counts")}).sort_by(
        [("count", "descending"), ("text", "ascending")]
    )
    names = ranked["text"][:_KNOWN].to_pylist()
    common = int(pc.sum(pc.greater_equal(ranked["count"], _LEVEL_SHARE * len(texts))).as_py() or 0)
    return tuple(names[: min(common, LEVELS)]), tuple(sorted({text_hash(name) for name in names}))
