"""The profile of a table: what each column holds, built from batches, kept with every run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.features import ColumnType
from perennial.data.frames import Typed
from perennial.data.histogram import Histogram

LEVELS = 1000
"""Distinct texts counted one by one; of more, the commonest are kept and the rest are lumped."""

_SKETCH = 256
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


class Profile:
    """Streaming profile of typed rows. Adding batches one by one, or merging profiles of them,
    gives the same but for the rounding of mean and std, as long as no text column has more than
    ``LEVELS`` distinct values."""

    def __init__(self, columns: Mapping[str, Typed]) -> None:
        self._types = {name: column.type for name, column in columns.items()}
        self._parts = {name: _part(kind) for name, kind in self._types.items()}
        self.rows = 0

    def add(self, table: Any) -> None:
        """Count the rows of an Arrow table that has the columns in their table types."""
        self.rows += table.num_rows
        with ThreadPoolExecutor(max_workers=4) as pool:  # Arrow leaves Python's lock to others
            list(pool.map(lambda item: item[1].add(table[item[0]]), self._parts.items()))

    def merge(self, other: Profile) -> None:
        """Take in the profile of other rows of the same columns."""
        self.rows += other.rows
        for name, part in self._parts.items():
            part.merge(other._parts[name])

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: ``rows``, and for each of ``columns`` its type, how many values are missing,
        and numbers: min, max, mean, std (n − 1), quantiles, histogram; texts: distinct (an estimate
        beyond ``LEVELS``), levels and their counts, other; times: min and max."""
        columns = {
            name: {"type": self._types[name], "missing": part.missing, **part.as_dict()}
            for name, part in self._parts.items()
        }
        return {"rows": self.rows, "columns": columns}


@dataclass
class _Numbers:
    """Mean and variance are joined as by Chan, Golub and LeVeque (1979)."""

    missing: int = 0
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf
    histogram: Histogram = field(default_factory=Histogram.empty)

    def add(self, column: Any) -> None:
        values = column.drop_null().cast(pa.float64(), safe=False).to_numpy()
        self.missing += column.null_count
        if not len(values):
            return
        mean = float(values.mean())
        part = _Numbers(
            count=len(values),
            mean=mean,
            squares=float(np.square(values - mean).sum()),
            least=float(values.min()),
            greatest=float(values.max()),
        )
        self.histogram = self.histogram.add(values)
        self.merge(part)

    def merge(self, other: Self) -> None:
        self.missing += other.missing
        self.histogram = self.histogram.merge(other.histogram)
        total = self.count + other.count
        if not other.count:
            return
        gap = other.mean - self.mean
        self.squares += other.squares + gap * gap * self.count * other.count / total
        self.mean += gap * other.count / total
        self.count = total
        self.least = min(self.least, other.least)
        self.greatest = max(self.greatest, other.greatest)

    def as_dict(self) -> dict[str, Any]:
        if not self.count:
            return {"count": 0}
        quantiles = ((q, self.histogram.quantile(q)) for q in _QUANTILES)
        return {
            "count": self.count,
            "min": self.least,
            "max": self.greatest,
            "mean": self.mean,
            "std": math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0,
            "quantiles": {
                f"{q:g}": min(max(value, self.least), self.greatest)
                for q, value in quantiles
                if value is not None
            },
            "histogram": self.histogram.as_dict(),
        }


@dataclass
class _Texts:
    """Counts of levels; the number of distinct ones beyond ``LEVELS`` by the k least hashes (Bar-
    Yossef et al. 2002)."""

    missing: int = 0
    levels: dict[str, int] = field(default_factory=dict)
    other: int = 0
    sketch: np.ndarray = field(default_factory=lambda: np.array([], np.uint64))

    def add(self, column: Any) -> None:
        counted = pc.value_counts(column.drop_null())
        values, counts = counted.field("values"), counted.field("counts")
        hashes = pd.util.hash_array(values.to_numpy(zero_copy_only=False))
        part = _Texts(missing=column.null_count, sketch=_least(hashes))
        if len(values) > LEVELS:  # ties by the text itself, so that the result is the same again
            table = pa.table({"v": values, "c": counts})
            order = pc.sort_indices(table, [("c", "descending"), ("v", "ascending")])[:LEVELS]
            part.other = pc.sum(counts).as_py() - pc.sum(counts.take(order)).as_py()
            values, counts = values.take(order), counts.take(order)
        part.levels = dict(zip(values.to_pylist(), counts.to_pylist(), strict=True))
        self.merge(part)

    def merge(self, other: Self) -> None:
        self.missing += other.missing
        self.other += other.other
        self.sketch = _least(np.concatenate([self.sketch, other.sketch]))
        for level, count in other.levels.items():
            self.levels[level] = self.levels.get(level, 0) + count
        if len(self.levels) > LEVELS:
            kept = sorted(self.levels.items(), key=lambda item: (-item[1], item[0]))
            self.other += sum(count for _, count in kept[LEVELS:])
            self.levels = dict(kept[:LEVELS])

    def as_dict(self) -> dict[str, Any]:
        return {
            "count": sum(self.levels.values()) + self.other,
            "distinct": self._distinct(),
            "levels": dict(sorted(self.levels.items(), key=lambda item: (-item[1], item[0]))),
            "other": self.other,
        }

    def _distinct(self) -> int:
        if not self.other:
            return len(self.levels)
        share = (float(self.sketch[-1]) + 1) / 2.0**64
        return max(round((len(self.sketch) - 1) / share), len(self.levels))


@dataclass
class _Times:
    missing: int = 0
    count: int = 0
    least: datetime | None = None
    greatest: datetime | None = None

    def add(self, column: Any) -> None:
        ends = pc.min_max(column).as_py()
        present = len(column) - column.null_count
        self.merge(_Times(column.null_count, present, ends["min"], ends["max"]))

    def merge(self, other: Self) -> None:
        self.missing += other.missing
        self.count += other.count
        self.least = min((t for t in (self.least, other.least) if t), default=None)
        self.greatest = max((t for t in (self.greatest, other.greatest) if t), default=None)

    def as_dict(self) -> dict[str, Any]:
        if self.least is None or self.greatest is None:
            return {"count": 0}
        ends = {"min": self.least.isoformat(), "max": self.greatest.isoformat()}
        return {"count": self.count, **ends}


def _part(kind: ColumnType) -> Any:
    if kind in ("category", "string"):
        return _Texts()
    return _Times() if kind == "datetime" else _Numbers()


def _least(hashes: np.ndarray) -> np.ndarray:
    return np.unique(hashes)[:_SKETCH]
