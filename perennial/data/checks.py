"""Row checks: a batch from a source becomes typed good rows, and bad rows with their reasons."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.moments import AHEAD, EARLIEST, TOO_FAR_AHEAD, TOO_FAR_BACK
from perennial.data.frames import arrow_schema, table_columns
from perennial.data.parsing import EXPECTED, inexact, parse
from perennial.spec.inputs import Column
from perennial.spec.schema import ModelSpec
from perennial.spec.values import shown

Rule = Literal[
    "type", "missing", "min", "max", "allowed", "past", "future", "malformed", "features"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """The rows of a batch that break one rule of one column.

    ``rows`` are positions in the batch, ``told`` an Arrow array with a sentence for each.
    """

    column: str
    rule: Rule
    rows: np.ndarray
    told: Any


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks made of one batch.

    ``good`` holds the table's columns in its types. ``good_rows`` and ``bad_rows`` are positions in
    the batch, ascending; rows outside the window are in neither. ``reasons`` and ``times`` (the
    event times as far as they are known, or None) belong to ``bad_rows``; ``time`` is the column
    they are from. ``wanted`` marks the rows inside the window; None: all are.
    """

    good: Any
    good_rows: np.ndarray
    bad_rows: np.ndarray
    reasons: Any
    time: str | None
    times: Any | None
    faults: tuple[Fault, ...]
    before: int
    after: int
    wanted: np.ndarray | None

    def inside(self, position: int) -> bool:
        """Whether a row of the batch is inside the window."""
        return self.wanted is None or not len(self.wanted) or bool(self.wanted[position])

    def without(self, unfit: Mapping[int, str]) -> Checked:
        """The same with some good rows bad: those whose features can't be computed.

        ``unfit`` are their positions in ``good``, ascending, with the reason of each.
        """
        at = np.fromiter(unfit, np.int64, len(unfit))
        kept = np.ones(self.good.num_rows, bool)
        kept[at] = False
        rows, told = self.good_rows[at], pa.array(list(unfit.values()), pa.string())
        bad_rows = np.concatenate([self.bad_rows, rows])
        order = pa.array(np.argsort(bad_rows))
        times = self.times
        if times is not None and self.time is not None:
            also = self.good[self.time].combine_chunks().take(pa.array(at))
            times = pa.concat_arrays([times, also]).take(order)
        return replace(
            self,
            good=self.good.filter(pa.array(kept)),
            good_rows=self.good_rows[kept],
            bad_rows=np.sort(bad_rows),
            reasons=pa.concat_arrays([self.reasons, told]).take(order),
            times=times,
            faults=(*self.faults, Fault("", "features", rows, told)),
        )


def ruled(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns in which not every value of their type, or no missing one, is let in."""
    free = (None, None, None, True)
    return {n: c for n, c in columns.items() if (c.min, c.max, c.allowed, c.nullable) != free}


def rules_digest(columns: Mapping[str, Column]) -> int:
    """A number above 0 and below 2**62 that changes when what ``columns`` let in does."""
    rules = [
        (name, column.min, column.max, sorted(column.allowed or ()), column.nullable)
        for name, column in sorted(ruled(columns).items())
    ]
    digest = hashlib.sha256(json.dumps(rules).encode()).digest()
    return (int.from_bytes(digest[:8]) >> 2) or 1


class RowChecks:
    """The rules of a model.yaml for single rows, and the window of event times that is wanted.

    The window is half open, ``since <= event time < until``; None is no bound. Rows outside it are
    counted and dropped: they are not bad. The label may be missing unless its column says
    ``nullable: false``. ``columns`` are checked in place of those of the model's table. A row whose
    event time is more than a day after ``now``, or before the year 300, is bad; with None any time
    is good, as it is in rows to be scored.
    """

    def __init__(
        self,
        spec: ModelSpec,
        since: datetime | None = None,
        until: datetime | None = None,
        columns: Mapping[str, Column] | None = None,
        now: datetime | None = None,
    ) -> None:
        self.columns = dict(table_columns(spec) if columns is None else columns)
        self._schema = arrow_schema(self.columns)
        self._decimal = spec.source.decimal
        self._float_keys = [
            name
            for name in spec.source.entity
            if name in self.columns and self.columns[name].type == "float"
        ]
        time = spec.source.event_time
        self._time = time if time in self.columns else None
        self._since = since
        self._until = until
        self._latest = None if now is None else now + AHEAD

    def check(self, batch: Any) -> Checked:
        """Check an Arrow table with the declared columns, each in any type: text as the
        source has it, its numbers with the decimal mark of ``source.decimal`` (see ``parse``).

        Every fault of a row is found, not just the first. Raises InputError when a float of the
        entity would lose digits of whole numbers, and take different keys for one.
        """
        wanted, before, after = self._inside(batch)
        rows = np.arange(batch.num_rows) if wanted is None else np.flatnonzero(wanted)
        if wanted is not None:
            batch = batch.filter(pa.array(wanted))
        self._refuse_inexact_keys(batch)
        with ThreadPoolExecutor(max_workers=4) as pool:  # Arrow leaves Python's lock to others
            results = pool.map(
                lambda c: parse(batch[c[0]], c[1].type, self._decimal), self.columns.items()
            )
            parsed_columns = dict(zip(self.columns, results, strict=True))
        typed = {name: parsed.values for name, parsed in parsed_columns.items()}
        faults: list[Fault] = []
        for name, column in self.columns.items():
            parsed = parsed_columns[name]
            if parsed.faulty is not None:
                faults.append(_fault(batch, name, "type", parsed.faulty, EXPECTED[column.type]))
            if not column.nullable and parsed.values.null_count:
                missing = parsed.values.is_null().to_numpy(zero_copy_only=False)
                if parsed.faulty is not None:
                    missing &= ~parsed.faulty
                if missing.any():
                    faults.append(self._missing(name, missing))
        faults.extend(self._broken_rules(batch, typed))
        if self._time is not None and self._latest is not None:
            faults.extend(_untimely(batch, self._time, typed[self._time], self._latest))
        return self._divided(rows, typed, faults, (wanted, before, after))

    def _refuse_inexact_keys(self, batch: Any) -> None:
        problems = []
        for name in self._float_keys:
            if found := inexact(batch[name]):
                what = (
                    f"names rows by source.entity, but as a float it loses digits of {found[0]}"
                    f"{f' and {len(found) - 1:,} more' if len(found) > 1 else ''}, and different "
                    "keys would become one"
                )
                problems.append(Problem(f"column {name!r}", what, "write type: string for it"))
        if problems:
            raise InputError(problems)

    def _inside(self, batch: Any) -> tuple[np.ndarray | None, int, int]:
        """Which rows lie inside the window (None: all), and how many before and after it.

        A row without a readable event time goes with the row before it: a source is read again and
        again from its watermark, and its old faults must not count in each new batch."""
        if self._time is None or (self._since is None and self._until is None):
            return None, 0, 0
        times = parse(batch[self._time], "datetime").values
        known = times.is_valid().to_numpy(zero_copy_only=False)
        if not known.any():
            return None, 0, 0
        nearest = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))
        times = times.take(pa.array(np.where(nearest < 0, np.argmax(known), nearest)))
        early, late = np.zeros(len(known), bool), np.zeros(len(known), bool)
        if self._since is not None:
            early = _mask(pc.less(times, pa.scalar(self._since, times.type)))
        if self._until is not None:
            late = _mask(pc.greater_equal(times, pa.scalar(self._until, times.type)))
        wanted = ~(early | late)
        return (None if wanted.all() else wanted), int(early.sum()), int(late.sum())

    def _missing(self, name: str, missing: np.ndarray) -> Fault:
        why = "every row needs its event time" if name == self._time else "nullable is false"
        rows = np.flatnonzero(missing)
        told = pa.array([f"column {name}: empty, but {why}"]).take(pa.array(np.zeros_like(rows)))
        return Fault(name, "missing", rows, told)

    def _broken_rules(self, batch: Any, typed: dict[str, Any]) -> Iterator[Fault]:
        """Ranges and allowed values, by pandera: lazily, all columns in one pass."""
        if not self._ruled:
            return
        from pandera.errors import SchemaErrors

        frame = pd.DataFrame({name: _values(typed[name], c) for name, c in self._ruled.items()})
        try:
            self._rules.validate(frame, lazy=True)
        except SchemaErrors as errors:
            for error in errors.schema_errors:
                name, rule = error.schema.name, error.check.name
                kept = error.check_output
                broken = np.zeros(len(frame), bool)
                broken[kept.index.to_numpy()[~kept.to_numpy(dtype=bool)]] = True
                yield _fault(batch, name, rule, broken, _expected(rule, self.columns[name]))

    @cached_property
    def _ruled(self) -> dict[str, Column]:
        return {
            name: column
            for name, column in self.columns.items()
            if (column.min, column.max, column.allowed) != (None, None, None)
        }

    @cached_property
    def _rules(self) -> Any:
        from pandera.pandas import Check, DataFrameSchema
        from pandera.pandas import Column as Rules

        def checks(column: Column) -> Iterator[Any]:
            # The rows are read from each check's output: listing every failure would cost seconds.
            if column.min is not None:
                yield Check.ge(column.min, name="min", n_failure_cases=1)
            if column.max is not None:
                yield Check.le(column.max, name="max", n_failure_cases=1)
            if column.allowed is not None:
                whole = column.type == "integer"
                values = [int(v) for v in column.allowed] if whole else list(column.allowed)
                yield Check.isin(values, name="allowed", n_failure_cases=1)

        return DataFrameSchema(
            {name: Rules(None, list(checks(c)), nullable=True) for name, c in self._ruled.items()}
        )

    def _divided(
        self,
        rows: np.ndarray,
        typed: dict[str, Any],
        faults: list[Fault],
        window: tuple[np.ndarray | None, int, int],
    ) -> Checked:
        table = pa.table(typed, schema=self._schema)
        bad = np.zeros(len(rows), bool)
        for fault in faults:
            bad[fault.rows] = True
        order = list(self.columns)
        faults.sort(key=lambda fault: order.index(fault.column))
        at = np.flatnonzero(bad)
        times = None if self._time is None else typed[self._time].take(pa.array(at))
        return Checked(
            good=table if not len(at) else table.filter(pa.array(~bad)),
            good_rows=rows[~bad],
            bad_rows=rows[at],
            reasons=_reasons(faults, at, len(rows)),
            time=self._time,
            times=times,
            faults=tuple(Fault(f.column, f.rule, rows[f.rows], f.told) for f in faults),
            wanted=window[0],
            before=window[1],
            after=window[2],
        )


def texts_of(batch: Any, rows: np.ndarray, decimal: Literal[".", ","] = ".") -> list[str]:
    """Rows of a batch as JSON objects of texts (null where missing), as they came from the source;
    what is no text there gets the ``decimal`` mark of the source's texts.

    ``RowChecks.check`` reads such texts back to the same values.
    """
    some = batch.take(pa.array(rows))
    texts = {name: parse(some[name], "string").values for name in some.column_names}
    for name in texts if decimal == "," else ():
        if pa.types.is_floating(some[name].type):
            texts[name] = pc.replace_substring(texts[name], ".", ",")
    return [json.dumps(row, ensure_ascii=False) for row in pa.table(texts).to_pylist()]


def _values(values: Any, column: Column) -> Any:
    if column.type in ("category", "string"):
        return values.to_pandas().array
    return values.to_numpy(zero_copy_only=False)  # whole numbers stay exact where none is missing


def _untimely(batch: Any, name: str, times: Any, latest: datetime) -> Iterator[Fault]:
    """Events too far back or ahead for anything to be reckoned from them."""
    past = _mask(pc.less(times, pa.scalar(EARLIEST, times.type)).fill_null(False))
    if past.any():
        yield _fault(batch, name, "past", past, f"is {TOO_FAR_BACK}")
    future = _mask(pc.greater(times, pa.scalar(latest, times.type)).fill_null(False))
    if future.any():
        yield _fault(batch, name, "future", future, f"is {TOO_FAR_AHEAD}")


def _fault(batch: Any, name: str, rule: Rule, broken: np.ndarray, expected: str) -> Fault:
    rows = np.flatnonzero(broken)
    texts = parse(batch[name].take(pa.array(rows)), "string").values
    show: Callable[[str], str] = str if rule in ("min", "max") else shown
    distinct = texts.dictionary_encode()
    told = [f"column {name}: {show(text)} {expected}" for text in distinct.dictionary.to_pylist()]
    nested = pa.scalar(f"column {name}: {batch[name].type} {expected}")
    sentences = pa.array(told, pa.string()).take(distinct.indices)
    return Fault(name, rule, rows, pc.fill_null(sentences, nested))


def _expected(rule: Rule, column: Column) -> str:
    if rule == "min":
        return f"is below min {column.min:.15g}"
    if rule == "max":
        return f"is above max {column.max:.15g}"
    return "is not an allowed value"


def _reasons(faults: list[Fault], bad: np.ndarray, rows: int) -> Any:
    """For each bad row the sentences of all its faults, joined."""
    if not faults:
        return pa.array([], pa.string())
    sentences = []
    for fault in faults:
        slots = np.full(rows, -1)
        slots[fault.rows] = np.arange(len(fault.rows))
        slots = slots[bad]
        sentences.append(fault.told.take(pa.array(slots, mask=slots < 0)))
    return pc.binary_join_element_wise(*sentences, "; ", null_handling="skip")


def _mask(values: Any) -> np.ndarray:
    mask: np.ndarray = values.to_numpy(zero_copy_only=False)
    return mask
