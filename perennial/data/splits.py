"""Divide a dataset's rows into training, validation and test, so that nothing leaks between them.

A row whose label is missing, or not yet known at ``as_of``, is in no part. Windows are half open:
``start <= t < end``. The choice depends on the rows, the spec's split section and its seed only.

- *time*: counted back from the last labelled row. Before the validation and the test part lies a
  gap of at least the label's delay: at the moment a part begins, every label of the parts before
  it was already known, as it would have been in production.
- *group*: a group goes where a hash of its value and the seed falls, so its rows stay together,
  and in their part when the data grows. Shares are of groups, in expectation. Rows without a group
  form one group.
- *random*: the same with the row's identity. In a snapshot without entity that is all it holds but
  the label, wherever it lies. Equal rows are numbered, so they may part: a few distinct rows that
  come often are in each part. Name an entity or a group to keep rows together.
- *stratified*: within each class the rows are put in the order of that hash and cut at the exact
  shares, rounded to the nearest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import PARTS, Part, RowsBy
from perennial.spec import ModelSpec
from perennial.spec.rules import OURS
from perennial.spec.values import format_duration

UNUSED = -1
_CODES: dict[Part, int] = {part: code for code, part in enumerate(PARTS)}

_KEY = f"{OURS}key"
_WHERE = "model.yaml, split"
_HASHED_AT_ONCE = 1_000_000  # rows; bounds the memory that hashing text takes
_ODD = np.uint64(0x9E3779B97F4A7C15)


def split_columns(spec: ModelSpec, rows_by: RowsBy = "content") -> tuple[str, ...]:
    """The columns ``assign`` reads, each once."""
    return tuple(dict.fromkeys((*_narrow_columns(spec), *drawn_by(spec, rows_by))))


def narrowed(frame: pd.DataFrame, spec: ModelSpec, rows_by: RowsBy = "content") -> pd.DataFrame:
    """What ``assign`` needs of some of its rows in as few bytes: a hash in place of the columns
    that it draws by."""
    narrow = frame[_narrow_columns(spec)]
    columns = drawn_by(spec, rows_by)
    return narrow.assign(**{_KEY: row_hashes(frame, columns)}) if columns else narrow


def assign(
    frame: pd.DataFrame, spec: ModelSpec, as_of: datetime | None, rows_by: RowsBy = "content"
) -> np.ndarray:
    """int8 a row of the frame (``split_columns`` in canonical dtypes, or ``narrowed``): 0 train,
    1 validation, 2 test, -1 unused.

    ``as_of`` is the moment of knowledge (naive: UTC): a label is known when
    ``event time + label.delay <= as_of``. None, or a source without event time: every label that is
    there is known. ``rows_by`` position is how versions of before were drawn (see ``DatasetRef``).
    Raises InputError when a part would be empty, saying what it would have held.
    """
    known = frame[spec.label.column].notna().to_numpy()
    if spec.source.event_time is not None and as_of is not None:
        moment = as_of.replace(tzinfo=UTC) if as_of.tzinfo is None else as_of
        early = frame[spec.source.event_time] <= moment - spec.label.delay
        known = known & early.to_numpy()
    if not known.any():
        raise InputError(_nothing_known(frame, spec, as_of))
    parts = np.full(len(frame), UNUSED, dtype=np.int8)
    if spec.split.kind == "time":
        parts[known] = _by_time(frame.loc[known, spec.source.event_time], spec)
        return parts
    draws = _draws(frame, spec, known, rows_by)
    if spec.split.kind == "stratified":
        draws = _rank_in_class(draws, frame.loc[known, spec.label.column])
    parts[known] = _by_share(draws, spec)
    return parts


def unlearned(spec: ModelSpec, at: datetime) -> datetime:
    """From when on events are new to a version that was trained ``as_of`` this moment: none of
    their labels was known then. A label that comes with its event is, at that very moment."""
    return max(at, at - spec.label.delay + timedelta(microseconds=1))


def _by_time(times: pd.Series, spec: ModelSpec) -> np.ndarray:
    """Parts of labelled rows by their event times."""
    moments = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]")
    validation, test = spec.split.validation, spec.split.test
    assert isinstance(validation, timedelta)
    assert isinstance(test, timedelta)
    gap = np.timedelta64(max(spec.split.gap, spec.label.delay))
    end = moments.max() + np.timedelta64(1, "us")  # the last row is inside
    test_start = end - np.timedelta64(test)
    validation_start = test_start - gap - np.timedelta64(validation)
    train_end = validation_start - gap
    first = moments.min()
    train_start = train_end - np.timedelta64(spec.split.window) if spec.split.window else first
    windows: dict[Part, tuple[Any, Any]] = {
        "train": (train_start, train_end),
        "validation": (validation_start, test_start - gap),
        "test": (test_start, end),
    }
    parts = np.full(len(moments), UNUSED, dtype=np.int8)
    problems = []
    for part, (start, stop) in windows.items():
        inside = (moments >= start) & (moments < stop)
        parts[inside] = _CODES[part]
        if not inside.any():
            since = "" if part == "train" and not spec.split.window else f"from {_minute(start)} "
            what = (
                f"no row for the {part} part ({since}to {_minute(stop)}): labelled rows span "
                f"{_minute(first)} to {_minute(moments.max())}; counted back from the last are "
                f"test {format_duration(test)}, validation {format_duration(validation)} and two "
                f"gaps of {format_duration(gap.astype(timedelta))}"
            )
            problems.append(Problem(_WHERE, what, "shorten the parts or wait for more data"))
    if problems:
        raise InputError(problems)
    return parts


def _minute(moment: np.datetime64) -> str:
    return f"{pd.Timestamp(moment):%Y-%m-%d %H:%M}"


def _by_share(draws: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Parts of labelled rows by a number in [0, 1) each: test lowest, then validation, then
    train."""
    validation, test = spec.split.validation, spec.split.test
    assert isinstance(validation, float)
    assert isinstance(test, float)
    parts = np.full(len(draws), _CODES["train"], dtype=np.int8)
    parts[draws < test + validation] = _CODES["validation"]
    parts[draws < test] = _CODES["test"]
    counts = np.bincount(parts, minlength=len(PARTS))
    empty = [part for part in PARTS if counts[_CODES[part]] == 0]
    if empty:
        groups = f"; groups: {len(np.unique(draws)):,}" if spec.split.kind == "group" else ""
        what = (
            f"no row for the {' and the '.join(empty)} part with validation {validation:g} and "
            f"test {test:g}; labelled rows: {len(draws):,}{groups}"
        )
        fix = f"{'lower' if 'train' in empty else 'raise'} the shares"
        more = ", bring more groups, or try another seed" if groups else " or bring more data"
        raise InputError(Problem(_WHERE, what, fix + more))
    return parts


def _rank_in_class(draws: np.ndarray, labels: pd.Series) -> np.ndarray:
    """For each row the middle of its place among its class in order of the draws: (i + 1/2) / n.
    Cut at a share, a class of n rows then gives that share of n to the nearest row."""
    classes = pd.factorize(labels)[0]
    order = np.lexsort((draws, classes))
    sizes = np.bincount(classes)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    ranks = np.empty(len(draws))
    ranks[order] = np.arange(len(draws)) - np.repeat(starts, sizes)
    return (ranks + 0.5) / sizes[classes]


def drawn_by(spec: ModelSpec, rows_by: RowsBy = "content") -> tuple[str, ...]:
    """The columns that decide where a row falls; none in a split by time or by position."""
    if spec.split.kind == "group":
        assert spec.split.group is not None
        return (spec.split.group,)
    if spec.split.kind == "time":
        return ()
    if spec.identity or rows_by == "position":
        return spec.identity
    return tuple(sorted(name for name in spec.columns if name != spec.label.column))


def row_hashes(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """uint64 a row, equal for equal values of these columns in this order."""
    keys = frame[list(columns)]
    floats = [name for name in keys if keys[name].dtype.kind == "f"]
    hashes = np.empty(len(frame), dtype=np.uint64)
    for start in range(0, len(frame), _HASHED_AT_ONCE):
        rows = slice(start, start + _HASHED_AT_ONCE)
        some = keys.iloc[rows]
        equal = {name: some[name] + 0.0 if name in floats else some[name] for name in keys}
        alike = pd.DataFrame(equal, index=some.index)  # -0.0 as 0.0
        hashes[rows] = pd.util.hash_pandas_object(alike, index=False).to_numpy()
    return hashes


def numbered(hashes: np.ndarray, labels: pd.Series) -> np.ndarray:
    """Hashes of labelled rows in which equal ones are told apart: by their number among them, in
    the order of their labels, so that it makes no difference where they lie."""
    if pd.Series(hashes).is_unique:
        return hashes
    order = np.lexsort((pd.factorize(labels, sort=True)[0], hashes))
    ordered = hashes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    sizes = np.diff(np.append(starts, len(ordered)))
    numbers = (np.arange(len(ordered)) - np.repeat(starts, sizes)).astype(np.uint64)
    apart = np.empty_like(hashes)
    apart[order] = ordered + numbers * _ODD
    return apart


def _draws(frame: pd.DataFrame, spec: ModelSpec, known: np.ndarray, rows_by: RowsBy) -> np.ndarray:
    """A number in [0, 1) a labelled row, from the seed and the hash of what keeps rows together."""
    columns = drawn_by(spec, rows_by)
    if not columns:
        hashes = np.arange(len(frame), dtype=np.uint64)[known]
    elif _KEY in frame:
        hashes = frame[_KEY].to_numpy(np.uint64)[known]
    else:
        hashes = row_hashes(frame[known], columns)
    if columns and spec.split.kind != "group" and not spec.identity:
        hashes = numbered(hashes, frame.loc[known, spec.label.column])
    seed = _mixed(np.array([spec.split.seed % 2**64], dtype=np.uint64))
    draws: np.ndarray = (_mixed(hashes ^ seed) >> np.uint64(11)) * 2.0**-53
    return draws


def _narrow_columns(spec: ModelSpec) -> list[str]:
    time = spec.source.event_time
    return [spec.label.column] if time is None else [spec.label.column, time]


def _mixed(values: np.ndarray) -> np.ndarray:
    """A bijection of uint64 in which each input bit changes half of the output's: splitmix64
    (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators")."""
    values = values + _ODD
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


def _nothing_known(frame: pd.DataFrame, spec: ModelSpec, as_of: datetime | None) -> Problem:
    labelled = int(frame[spec.label.column].notna().sum())
    what = f"no row has a known label: {len(frame):,} rows, {labelled:,} with a label"
    if labelled and spec.source.event_time is not None:
        first = frame[spec.source.event_time].min()
        delay = format_duration(spec.label.delay)
        what += f", the first event at {first:%Y-%m-%d %H:%M}, known {delay} later, as of {as_of}"
    return Problem(f"label {spec.label.column!r}", what, "check label.column or wait for labels")
