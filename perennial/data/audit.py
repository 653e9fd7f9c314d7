"""The audit of a staged batch: may it be published? Every check reports, passed or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import pandas as pd

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import Value
from perennial.data.frames import table_columns
from perennial.data.histogram import Histogram
from perennial.data.labels import MAX_CLASSES, label_classes
from perennial.data.shift import shift
from perennial.spec import ModelSpec
from perennial.spec.values import some

_SHOWN = 5
_IMPROBABLE = 1e-6
_MOVED = "distribution"


class FaultCount(Value):
    """How many rows break one rule of one column; ``examples`` say where and what.

    ``column`` is "" for rows that could not be divided into columns (rule ``malformed``)."""

    column: str
    rule: str
    rows: int
    examples: tuple[str, ...]


class BatchStats(Value):
    """What was counted while a batch was staged.

    ``full``: the source was read from its beginning, ``whole``: and to its end. ``before``/
    ``after``: rows outside the window of event times, left out. ``start``/``end``: first and last
    event time of the good rows, which are ``ordered`` if they came by event time. ``repeats``: good
    rows whose identity comes again later in the batch, of which ``conflicts`` differ in content
    from the last, which is kept. ``undeclared`` are columns of the source that model.yaml doesn't
    name.
    """

    source: str
    full: bool
    whole: bool
    rows: int
    bad_rows: int
    before: int
    after: int
    start: datetime | None
    end: datetime | None
    ordered: bool
    repeats: int
    conflicts: int
    conflict_examples: tuple[str, ...]
    undeclared: tuple[str, ...]
    faults: tuple[FaultCount, ...]
    profile: dict[str, Any]


class Finding(Value):
    """What one check came to. A failed one keeps the batch from being published."""

    check: str
    outcome: Literal["passed", "warned", "failed"]
    what: str
    fix: str = ""


class ValidationReport(Value):
    """All findings on one batch, with what was counted."""

    model: str
    passed: bool
    findings: tuple[Finding, ...]
    stats: BatchStats

    @property
    def warnings(self) -> tuple[str, ...]:
        """What somebody may have to mend. That columns moved is not of it: that the world changes
        is what retraining is for."""
        told = [
            f"{finding.what} ({finding.fix})" if finding.fix else finding.what
            for finding in self.findings
            if finding.outcome == "warned" and finding.check != _MOVED
        ]
        more = [f"and {len(told) - _SHOWN} more warnings"] if len(told) > _SHOWN else []
        return (*told[:_SHOWN], *more)

    def raise_failures(self) -> None:
        """Raise an InputError that names every failed check; nothing when all passed."""
        failed = [f for f in self.findings if f.outcome == "failed"]
        if failed:
            raise InputError([Problem(self.stats.source, f.what, f.fix) for f in failed])


def audit(
    spec: ModelSpec, stats: BatchStats, reference: Mapping[str, Any] | None, bad_place: str
) -> ValidationReport:
    """Judge a staged batch.

    ``reference`` is the profile of the rows the champion was trained on (None: there is none).
    ``bad_place`` is where a person finds the bad rows. A whole source that lacks something is
    refused; an increment, which may be small, is refused only for what can't be chance.
    """
    findings = [*_rows(stats), *_quarantine(spec, stats, bad_place)]
    if stats.rows:
        findings += [
            *_repeats(spec, stats),
            *_label(spec, stats),
            *_empty_columns(spec, stats, reference),
            *_shifts(spec, stats, reference),
        ]
    passed = all(finding.outcome != "failed" for finding in findings)
    return ValidationReport(model=spec.name, passed=passed, findings=tuple(findings), stats=stats)


def _rows(stats: BatchStats) -> Iterator[Finding]:
    outside = f"; {stats.after:,} rows lie after the moment asked for" if stats.after else ""
    if stats.rows or stats.bad_rows:
        what = f"{stats.rows + stats.bad_rows:,} rows read{outside}"
        yield Finding(check="rows", outcome="passed", what=what)
    elif stats.full:
        what = f"no rows{outside}"
        fix = "ask for a later moment" if stats.after else "look at source in model.yaml"
        yield Finding(check="rows", outcome="failed", what=what, fix=fix)
    else:
        yield Finding(check="rows", outcome="passed", what=f"nothing new{outside}")
    if stats.undeclared:
        names = some(stats.undeclared, 20)
        what = f"{len(stats.undeclared)} columns that model.yaml doesn't name: {names}"
        yield Finding(check="undeclared columns", outcome="passed", what=what)


def _quarantine(spec: ModelSpec, stats: BatchStats, bad_place: str) -> Iterator[Finding]:
    total, limit = stats.rows + stats.bad_rows, spec.quarantine.max_share
    if total:
        yield bad_share(total, stats.bad_rows, stats.faults, limit, bad_place)


def bad_share(
    total: int, bad_rows: int, faults: Sequence[FaultCount], limit: float, bad_place: str
) -> Finding:
    """Whether too many of ``total`` rows (above 0) are bad: a share above ``limit`` is."""
    share = bad_rows / total
    what = f"{bad_rows:,} of {_rows_of(total)} ({_percent(share)}) break a rule"
    worst = sorted(faults, key=lambda fault: -fault.rows)
    for fault in worst[:_SHOWN]:
        examples = "; ".join(_grouped(fault.examples[:3]))
        rule = f"column {fault.column}, {fault.rule}" if fault.column else fault.rule
        what += f"\n  {rule}: {_rows_of(fault.rows)}, such as {examples}"
    if len(worst) > _SHOWN:
        what += f"\n  and {len(worst) - _SHOWN} more rules"
    if share <= limit:
        return Finding(check="quarantine.max_share", outcome="passed", what=what)
    head, _, rest = what.partition("\n")
    fix = f"mend the source or the rules of these columns; the rows, as Parquet: {bad_place}"
    return Finding(
        check="quarantine.max_share",
        outcome="failed",
        what=f"{head}, above quarantine.max_share ({_percent(limit)})"
        + (f"\n{rest}" if rest else ""),
        fix=fix,
    )


def _grouped(examples: Sequence[str]) -> Iterator[str]:
    """``place (what)`` for each, with the places of one ``what`` together."""
    places: dict[str, list[str]] = {}
    for example in examples:
        place, _, what = example.partition(" (")
        places.setdefault(what, []).append(place)
    for what, found in places.items():
        yield f"{', '.join(found)} ({what}"


def _rows_of(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _repeats(spec: ModelSpec, stats: BatchStats) -> Iterator[Finding]:
    if not spec.identity:
        return
    by = ", ".join(spec.identity)
    if not stats.repeats:
        yield Finding(check="uniqueness", outcome="passed", what=f"each row is one of {by}")
        return
    what = f"{stats.repeats:,} rows come again later by {by}; the last of each is kept"
    by_chance = spec.source.kind in ("sql", "delta")
    if not by_chance:
        what += ", files being read in the order they were written in"
    if not stats.conflicts:
        yield Finding(check="uniqueness", outcome="passed", what=f"{what}; all are alike")
        return
    examples = "; ".join(stats.conflict_examples)
    what += f"; {stats.conflicts:,} differ from the last, such as {examples}"
    if by_chance:
        where = "query" if spec.source.kind == "sql" else "table"
        fix = f"which comes last is chance: let the {where} give each once, or"
    else:
        fix = "a row of a file that was appended to or touched replaces its correction;"
    fix += " if these are different events, name more columns in source.entity"
    yield Finding(check="uniqueness", outcome="warned", what=what, fix=fix)


def _label(spec: ModelSpec, stats: BatchStats) -> Iterator[Finding]:
    name = spec.label.column
    column = stats.profile["columns"][name]
    known, missing = column["count"], column["missing"]
    lacking: Literal["failed", "warned"] = "failed" if stats.full else "warned"
    if not known:
        what = f"label {name} is missing in all {missing:,} rows"
        yield Finding(check="label", outcome=lacking, what=what, fix="look at label.column")
        return
    unknown = f"; {missing:,} not known yet" if missing else ""
    if spec.objective == "regression":
        if column["min"] == column["max"]:
            what = f"label {name} is {column['min']:.15g} in all {known:,} rows"
            fix = "a regression needs different values"
            yield Finding(check="label", outcome=lacking, what=what, fix=fix)
        else:
            what = f"label {name}: {known:,} values, {column['min']:.6g} to {column['max']:.6g}"
            yield Finding(check="label", outcome="passed", what=what + unknown)
        return
    counts = class_counts(column)
    if counts is None:
        what = f"label {name} has more than {MAX_CLASSES:,} classes in {known:,} rows"
        yield Finding(check="label", outcome="failed", what=what, fix="use objective: regression")
        return
    shown = some((f"{c!r} {n:,} ({n / known:.1%})" for c, n in counts.items()), 10)
    if len(counts) == 1:
        what = f"label {name} has one class only: {shown}"
        fix = "a classifier needs rows of at least two classes"
        yield Finding(check="label", outcome=lacking, what=what, fix=fix)
    elif spec.objective == "binary" and len(counts) > 2:
        what = f"label {name} has {len(counts)} classes, a binary label two: {shown}"
        yield Finding(check="label", outcome="failed", what=what, fix="use objective: multiclass")
    else:
        yield _with_positive(spec, column, f"label {name}: {shown}{unknown}")


def _with_positive(spec: ModelSpec, column: Mapping[str, Any], what: str) -> Finding:
    values = list(column["levels"]) if "levels" in column else _values(column)
    try:
        label_classes(pd.Series(values), spec)
    except InputError as error:
        problem = error.problems[0]
        return Finding(check="label", outcome="failed", what=problem.what, fix=problem.fix)
    return Finding(check="label", outcome="passed", what=what)


def class_counts(column: Mapping[str, Any]) -> dict[str, int] | None:
    """The classes in a profiled column and how many rows have each, the commonest first; None when
    there are too many to have been counted one by one."""
    if "levels" in column:
        counts = column["levels"]
        return dict(counts) if not column["other"] else None
    histogram = Histogram.read(column["histogram"])
    if histogram.shift:
        return None
    values = _values(column)
    if column["type"] == "boolean":
        names = ["true" if value else "false" for value in values]
    else:
        names = [f"{value:.15g}" for value in values]
    pairs = sorted(zip(histogram.counts.tolist(), names, strict=True), key=lambda p: (-p[0], p[1]))
    return {name: count for count, name in pairs}


def _values(column: Mapping[str, Any]) -> list[float]:
    """The distinct values of a number column that has few."""
    histogram = Histogram.read(column["histogram"])
    return [histogram.edges(bucket)[0] for bucket in range(len(histogram.keys))]


def _empty_columns(
    spec: ModelSpec, stats: BatchStats, reference: Mapping[str, Any] | None
) -> Iterator[Finding]:
    known = {} if reference is None else reference["columns"]
    for name in table_columns(spec):
        column = stats.profile["columns"][name]
        if column["count"] or name == spec.label.column:
            continue
        what = f"column {name} is empty in all {stats.rows:,} rows"
        fix = "mend the source, or take the column out of model.yaml"
        before = known.get(name)
        if stats.full:
            yield Finding(check="empty column", outcome="failed", what=what, fix=fix)
        elif (
            before
            and (before["missing"] / max(before["missing"] + before["count"], 1)) ** (stats.rows)
            < _IMPROBABLE
        ):
            was = before["missing"] / (before["missing"] + before["count"])
            what += f"; {was:.1%} of the rows last trained on lacked it"
            yield Finding(check="empty column", outcome="failed", what=what, fix=fix)
        else:
            yield Finding(check="empty column", outcome="warned", what=what)


def _shifts(
    spec: ModelSpec, stats: BatchStats, reference: Mapping[str, Any] | None
) -> Iterator[Finding]:
    """Warnings only."""
    if reference is None:
        return
    compared = 0
    for name in table_columns(spec):
        before, now = reference["columns"].get(name), stats.profile["columns"][name]
        found = None if before is None else shift(before, now)
        if found is None:
            continue
        compared += 1
        if found.notable:
            what = (
                f"column {name} differs from the rows last trained on: stability index "
                f"{found.psi:.2f}, limit {found.limit:.2f}; {_change(before, now)}"
            )
            yield Finding(check=_MOVED, outcome="warned", what=what)
    what = f"{compared} columns compared with the {reference['rows']:,} rows last trained on"
    yield Finding(check=_MOVED, outcome="passed", what=what)


def _change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if "mean" in now:
        return f"mean {now['mean']:.4g}, was {before['mean']:.4g}"
    shares = {
        level: (count / now["count"], before["levels"].get(level, 0) / before["count"])
        for level, count in now["levels"].items()
    }
    level = max(shares, key=lambda name: abs(shares[name][0] - shares[name][1]))
    return f"{level!r} {shares[level][0]:.1%}, was {shares[level][1]:.1%}"
