"""The model matrix as XGBoost reads it: quantised once, and shared by all who train on it."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xgboost as xgb

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.features import FeatureSchema
from perennial.learning.memory import usable_memory
from perennial.learning.pages import PageFolder

Fitting = Literal["train", "train+validation"]

Batch = tuple[np.ndarray, np.ndarray]
"""float32 rows and their labels."""

MAX_BIN = 256
"""XGBoost's own default number of bins a feature."""

_PAGES = 16
"""Of a matrix that just exceeds its memory; XGBoost holds a few at a time."""

_SPARE = 2**24
"""Bytes that stay free beside pages, for whatever else writes there."""

_FORBIDDEN_IN_NAMES = str.maketrans("[]<", "()‹")
"""XGBoost refuses these three in a feature's name."""


@dataclass(frozen=True)
class Matrices:
    """The training and the validation part.

    ``x_*`` float32 (rows, features): a category is its position in the feature's levels, NaN is
    missing. ``y_*`` float32 (rows,): 0/1, the position of the class, or the value. Arrays may be
    mapped from disk (np.memmap): they are read, never copied or changed. A part of more than
    ``memory`` bytes is trained on in pages; see ``quantile_matrix``.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    schema: FeatureSchema
    memory: int | None = None


def feature_names(schema: FeatureSchema) -> list[str]:
    """As the booster keeps them: the schema's, with brackets and ``<`` replaced; numbered, where
    that makes two of them equal."""
    names = [f.name.translate(_FORBIDDEN_IN_NAMES) for f in schema.features]
    if len(set(names)) == len(names):
        return names
    return [f"{i}:{name}" for i, name in enumerate(names)]


def feature_types(schema: FeatureSchema) -> list[str]:
    """XGBoost's type of each feature: ``c`` has levels, ``q`` is a quantity."""
    return ["q" if f.levels is None else "c" for f in schema.features]


def quantised(
    matrices: Matrices, max_bin: int, threads: int
) -> tuple[xgb.QuantileDMatrix, xgb.QuantileDMatrix]:
    """The training part in bins, and the validation part in the same bins.

    Both may be shared by boosters that train side by side in threads; their trees are the same as
    alone, whatever ``threads`` is.
    """
    schema, memory = matrices.schema, matrices.memory
    train = [(matrices.x_train, matrices.y_train)]
    validation = [(matrices.x_validation, matrices.y_validation)]
    rows = quantile_matrix(schema, train, max_bin, threads, memory=memory)
    return rows, quantile_matrix(schema, validation, max_bin, threads, memory=memory, ref=rows)


def quantised_for_fitting(
    matrices: Matrices, part: Fitting, max_bin: int, threads: int
) -> xgb.QuantileDMatrix:
    """The rows a final booster is fitted to, in bins, without a copy of both parts together."""
    batches = [(matrices.x_train, matrices.y_train)]
    if part == "train+validation":
        batches.append((matrices.x_validation, matrices.y_validation))
    return quantile_matrix(matrices.schema, batches, max_bin, threads, memory=matrices.memory)


def quantile_matrix(
    schema: FeatureSchema,
    batches: Sequence[Batch],
    max_bin: int,
    threads: int,
    *,
    memory: int | None = None,
    ref: xgb.QuantileDMatrix | None = None,
) -> xgb.QuantileDMatrix:
    """Rows in bins of their own, or in those of ``ref``.

    Rows of more than ``memory`` bytes as float32 (by default half of what the process may use) lie
    in pages on disk while they are trained on, below the system's temporary folder: XGBoost's
    external memory. Boosters are the same to the byte. Raises InputError when the disk has no room
    for them, before anything is written.
    """
    settings = {"max_bin": max_bin, "ref": ref, "nthread": threads, "enable_categorical": True}
    most = memory or usable_memory() // 2
    if sum(x.nbytes for x, _ in batches) <= most:
        return xgb.QuantileDMatrix(_Batches(batches, schema), **settings)
    paged = [page for batch in batches for page in _pages(batch, most // _PAGES)]
    folder = PageFolder()
    try:
        _claim_room(folder, paged, schema, max_bin)
    except InputError:
        folder.remove()
        raise
    rows = xgb.ExtMemQuantileDMatrix(_Batches(paged, schema, f"{folder.path}/rows"), **settings)
    folder.claim(0)
    weakref.finalize(rows, folder.remove)  # after XGBoost has closed them
    return rows


def _pages(batch: Batch, size: int) -> Iterator[Batch]:
    x, y = batch
    rows = max(size // max(x.shape[1] * x.itemsize, 1), 1)
    for start in range(0, len(x), rows):
        yield x[start : start + rows], y[start : start + rows]


def _claim_room(
    folder: PageFolder, pages: Sequence[Batch], schema: FeatureSchema, max_bin: int
) -> None:
    """XGBoost writes pages in threads of its own, where a full disk ends the whole process."""
    most = _most_bytes(pages, schema, max_bin, gaps=True)
    folder.claim(most)
    if folder.room() - _SPARE >= most:
        return
    needed = _most_bytes(pages, schema, max_bin, any(np.isnan(x).any() for x, _ in pages))
    folder.claim(needed)
    room = folder.room()
    if room - _SPARE < needed:
        raise InputError(
            Problem(
                str(folder.path.parent),
                f"pages of {sum(len(x) for x, _ in pages):,} rows by {len(schema.features):,} "
                f"features may take {_mib(needed + _SPARE)}, and {_mib(max(0, room))} are free",
                "free some space, or name a folder on a larger disk in TMPDIR, and run again: "
                "finished stages are not repeated",
            )
        )


def _most_bytes(pages: Sequence[Batch], schema: FeatureSchema, max_bin: int, gaps: bool) -> int:
    """Bytes that XGBoost 3.2 writes for these pages at most; ``gaps``: where values are missing.

    It writes a value's bin twice, in rows and in columns: in as few bytes as hold the largest, but
    in 4 in rows with gaps, and a bit for whether it is missing. Beside it a row's start, and in
    each page the bins with their counts.
    """
    bins = [max_bin if f.levels is None else len(f.levels) for f in schema.features]
    width = np.min_scalar_type(max(bins) - 1).itemsize
    value = width + (4 if gaps else width) + 1 / 8
    rows = sum(len(x) for x, _ in pages)
    return math.ceil(rows * (len(bins) * value + 8) + len(pages) * (9 * sum(bins) + 2**10))


def _mib(size: int) -> str:
    return f"{math.ceil(size / 2**20):,} MiB"


class _Batches(xgb.DataIter):  # type: ignore[misc]  # xgboost has no types
    """Hands XGBoost the parts one after the other, as often as it asks."""

    def __init__(
        self, batches: Sequence[Batch], schema: FeatureSchema, cache: str | None = None
    ) -> None:
        super().__init__(cache_prefix=cache, on_host=False)
        self._batches = batches
        names, types = feature_names(schema), feature_types(schema)
        self._columns = {"feature_names": names, "feature_types": types}
        self._next = 0

    def next(self, input_data: Callable[..., Any]) -> bool:
        if self._next == len(self._batches):
            return False
        x, y = self._batches[self._next]
        input_data(data=x, label=y, **self._columns)
        self._next += 1
        return True

    def reset(self) -> None:
        self._next = 0
