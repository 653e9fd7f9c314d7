"""Keep versions from being judged by what they have seen: a version is best where it was fitted.

An ensemble's rows by event time: a version's training and validation rows end before its test part
begins. Gates have looked at the test part too, but once for a version, where a booster learns its
rows by heart. A champion's beside a candidate by event time, or row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
import pandas as pd

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import PARTS, Part, RowsBy
from perennial.data.frames import same_form, same_values, table_columns
from perennial.data.splits import UNUSED, drawn_by, numbered, row_hashes
from perennial.spec import ModelSpec
from perennial.spec.values import format_duration

_MOMENT = timedelta(microseconds=1)


def fitted_before(spec: ModelSpec, as_of: datetime | None) -> datetime | None:
    """The event time before which all rows lie that a version was fitted or tuned on (exclusive).

    ``spec`` and ``as_of`` are what it was trained by. A time split counts back from the last known
    label, which is no later than ``as_of`` less the label's delay; with other splits any row up to
    that one may have been used. None without event times: nothing can be told.
    """
    if spec.source.event_time is None or as_of is None:
        return None
    end = as_of - spec.label.delay + _MOMENT
    if spec.split.kind != "time":
        return end
    assert isinstance(spec.split.test, timedelta)
    return end - spec.split.test - max(spec.split.gap, spec.label.delay)


def maybe_fitted(
    version: ModelSpec, as_of: datetime | None, rows_by: RowsBy, spec: ModelSpec, test: pd.DataFrame
) -> np.ndarray:
    """bool a row of the test part that ``spec`` drew: whether a version may have been fitted or
    tuned on it, as far as that can be told without the version's own rows.

    The first three are what the version was trained by. None is where the two draw alike and the
    test part didn't grow: a row falls where its hash does, whatever other rows there are.
    """
    if _drawn_alike(version, rows_by, spec):
        return np.zeros(len(test), dtype=bool)
    since, time = fitted_before(version, as_of), timed_by(version, spec)
    if since is None or time is None:
        return np.ones(len(test), dtype=bool)
    earlier: np.ndarray = (test[time] < since).to_numpy()
    return earlier


def timed_by(version: ModelSpec, spec: ModelSpec) -> str | None:
    """The version's event time, if rows of today's model.yaml have it as one."""
    time = version.source.event_time
    column = None if time is None else table_columns(spec).get(time)
    return time if column is not None and column.type == "datetime" else None


@dataclass(frozen=True)
class RowKey:
    """By what the rows of two datasets are told to be the same: the group where rows of one must
    stay together, else an identity both have, else all they share but the labels, ``numbered`` as
    in a split. ``loose`` columns are in another form in one of them."""

    columns: tuple[str, ...]
    numbered: bool
    loose: frozenset[str]

    @classmethod
    def of(cls, version: ModelSpec, spec: ModelSpec) -> RowKey:
        theirs, mine = table_columns(version), table_columns(spec)
        shared = [name for name in mine if name in theirs and same_values(mine[name], theirs[name])]
        loose = frozenset(name for name in shared if not same_form(mine[name], theirs[name]))
        group = (spec.split.group,) if spec.split.group is not None else ()
        for key in (group, spec.identity, version.identity):
            if key and set(key) <= set(shared):
                return cls(tuple(key), False, loose)
        labels = {spec.label.column, version.label.column}
        return cls(tuple(sorted(set(shared) - labels)), True, loose)

    def hashes(self, frame: pd.DataFrame) -> np.ndarray:
        """uint64 a row, the same for the same row of either dataset, before it is numbered."""
        loose = [name for name in self.columns if name in self.loose and name in frame]
        numbers = [name for name in loose if frame[name].dtype.kind in "iubf"]
        return row_hashes(frame.astype(dict.fromkeys(numbers, np.float64)), self.columns)

    def keys(self, hashes: np.ndarray, labels: pd.Series) -> np.ndarray:
        """The keys of all rows of a dataset, by their hashes; of a row without a label 0."""
        if not self.numbered:
            return hashes
        known = labels.notna().to_numpy()
        keys = np.zeros_like(hashes)
        keys[known] = numbered(hashes[known], labels[known])
        return keys


def _drawn_alike(version: ModelSpec, rows_by: RowsBy, spec: ModelSpec) -> bool:
    """Whether a row that ``spec`` puts into the test part would be put there by the version."""
    mine, theirs = table_columns(spec), table_columns(version)
    columns, ours, then = drawn_by(spec), spec.split, version.split
    return (
        ours.kind == then.kind
        and ours.kind in ("random", "group")
        and ours.seed == then.seed
        and columns == drawn_by(version, rows_by)
        and all(same_form(mine[name], theirs[name]) for name in columns)
        and isinstance(ours.test, float)
        and isinstance(then.test, float)
        and ours.test <= then.test
    )


def drop_seen(
    parts: np.ndarray,
    times: pd.Series,
    since: datetime,
    combine: Literal["mean", "stacking"],
    spec: ModelSpec,
) -> np.ndarray:
    """The parts (int8 a row) without rows of event times before ``since``.

    A mean is fitted to the validation part: its training rows, which are only what drift is
    compared with, stay. Raises InputError when a part would be empty, with what it would hold.
    """
    seen = (times < since).to_numpy()
    freed = parts.copy()
    problems = []
    for number, part in enumerate(PARTS):
        if part == "train" and combine == "mean":
            continue
        inside = parts == number
        freed[inside & seen] = UNUSED
        if inside.any() and not (inside & ~seen).any():
            problems.append(_nothing_left(part, times[inside], since, spec))
    if problems:
        raise InputError(problems)
    return freed


def _nothing_left(part: Part, times: pd.Series, since: datetime, spec: ModelSpec) -> Problem:
    what = (
        f"all {len(times):,} rows of the {part} part, {times.min():%Y-%m-%d %H:%M} to "
        f"{times.max():%Y-%m-%d %H:%M}, lie before {since:%Y-%m-%d %H:%M}: members may have been "
        "fitted on them"
    )
    fix = "pin earlier versions of the members (NAME@V), or wait for more data"
    if isinstance(spec.split.test, timedelta) and isinstance(spec.split.validation, timedelta):
        mine = format_duration(spec.split.validation + spec.split.test)
        fix = f"let the members' test parts be longer than this model's last {mine}, {fix}"
    return Problem("model.yaml, split", what, fix)
