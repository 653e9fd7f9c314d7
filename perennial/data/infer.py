"""A first model.yaml from a data file: good enough to train as it is, explained so as to be edited.

What decides, beside ``guesses`` (types, features, bounds) and ``identity`` (entity):

- *objective*: two values, or true and false: binary. Text of 3 to 50 values, or 3 to 20 whole
  numbers with 20 rows each: multiclass. Other numbers: regression.
- *positive*: true, yes, 1 or the like; else the rarer of two texts, the greater of two numbers.
- *split*: with a time about an eighth of the span each for validation and test, as a round
  duration that holds two classes and 50 labelled rows (of fewer than 400, an eighth); else a fifth
  of the rows each.
- *gates*: just above guessing, and better than the champion; slices by up to two categories whose
  levels have 200 rows each in the test part.
- *nullable: false* where none of at least 1,000 rows is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.metrics import Objective
from perennial.contracts.moments import AHEAD, EARLIEST, TOO_FAR_AHEAD, TOO_FAR_BACK
from perennial.data.drafting import (
    Draft,
    Gate,
    features_text,
    is_parameter,
    model_text,
    notes,
    quotes_needed,
    to_quarantine,
)
from perennial.data.guesses import Guess, guess, left_out, tells_label
from perennial.data.identity import find_entity
from perennial.data.notations import Decimal, comma_example, decimal_comma, described
from perennial.data.parsing import EXPECTED, parse
from perennial.data.samples import CELLS, Sample, read_sample
from perennial.spec.inputs import Quarantine
from perennial.spec.publish import NewModel
from perennial.spec.rules import twins, why_ours
from perennial.spec.values import check_name, nearest, shown

MIN_ROWS = 50
MAX_CLASSES = 50
_MAX_WHOLE_CLASSES = 20
_ROWS_A_CLASS = 20
_MAX_TIMELESS_SHARE = 0.02
_SLICE_ROWS = 200
_SLICE_LEVELS = 10
_SHARE = 0.2
_POSITIVE = ("true", "yes", "y", "t", "1", "positive", "pos")
_PARTS = [
    timedelta(**{unit: n})
    for unit, numbers in (
        ("minutes", (1, 5, 15)),
        ("hours", (1, 2, 4, 6, 12)),
        ("days", (1, 2, 3, 5)),
        ("weeks", (1, 2, 4, 8, 12, 26, 52, 104, 260, 520)),
    )
    for n in numbers
]


def infer(
    path: Path,
    name: str,
    label: str,
    time: str | None = None,
    project: Path | None = None,
    cells: int = CELLS,
) -> NewModel:
    """The model.yaml and features.py of a new model that predicts ``label`` from a data file.

    The file stays where it is: ``source.uri`` is relative to ``project`` where the file is inside
    it, else absolute. Of a file with more than ``cells`` values an even sample is looked at.

    Raises InputError with everything that is wrong: see ``read_sample``; a name that is none, a
    label or time that is no column, a time that doesn't parse, a label without two values, fewer
    than 50 labelled rows, no column to learn from.
    """
    sample = read_sample(path, cells)
    _check_request(path, sample, name, label, time)
    names = sample.table.column_names
    unfit = _unfit((label, *filter(None, [time]), *names))
    fit = [c for c in names if c not in unfit]
    comma = decimal_comma(sample.table[c] for c in fit) if sample.kind == "csv" else None
    decimal: Decimal = "." if comma is None else ","
    guesses = {c: left_out(c, unfit[c]) for c in unfit} | _guesses(sample, fit, label, decimal)
    guesses = {c: guesses[c] for c in names}
    moments = None if time is None else _moments(path, sample, time)
    if moments is not None:
        guesses[moments.name] = moments
    lost = _lost([g for column, g in guesses.items() if column != label], moments)
    target, objective = _label(path, sample, _kept(guesses[label], lost), decimal)
    others = [g for column, g in guesses.items() if column not in (label, time)]
    if not any(column.feature for column in others) and not (time and is_parameter(time)):
        left = "; ".join(f"{column.name}: {column.note or column.type}" for column in others[:20])
        raise InputError(Problem(str(path), f"no column to learn from ({left})"))

    numbers = _as_numbers(target, objective)
    classes = objective != "regression"
    for i, column in enumerate(others):
        if column.feature and tells_label(column, numbers, classes):
            note = "tells the label nearly alone: if known only afterwards, say feature: false"
            others[i] = replace(column, note="; ".join(filter(None, [column.note, note])))
    part, test_rows = _split(moments, numbers, classes, sample.every)
    draft = Draft(
        name=name,
        data=path,
        uri=_uri(path, project),
        sample=sample,
        objective=objective,
        label=target,
        positive=_positive(target) if objective == "binary" else None,
        unlabelled=target.missing * sample.every,
        time=moments,
        entity=find_entity(path, sample, others, moments),
        comma=comma,
        columns=tuple(others),
        part=part,
        gates=_gates(objective, numbers, others, test_rows),
        min_rows=None if test_rows >= 2 * MIN_ROWS else max(5, test_rows // 2),
    )
    return NewModel(name, model_text(draft), features_text(draft), notes(draft))


def _guesses(
    sample: Sample, columns: Sequence[str], label: str, decimal: Decimal
) -> dict[str, Guess]:
    """Columns by their names. Rows that would go to quarantine for placeholders in them are few all
    together: a column that would make them too many is text."""
    table, most = sample.table, Quarantine().max_share / 2  # what comes may hold more of them
    guesses = {c: guess(c, table[c], decimal, most) for c in columns}
    lost, limit = np.zeros(len(table), bool), most * len(table) - sample.broken / sample.every
    with_faults = [(column, c.faulty) for column, c in guesses.items() if c.faulty is not None]
    for column, faulty in sorted(with_faults, key=lambda c: (c[0] != label, int(c[1].sum()))):
        if int((lost | faulty).sum()) <= limit:
            lost |= faulty
        else:
            guesses[column] = guess(column, table[column], decimal)
    return guesses


def _check_request(path: Path, sample: Sample, name: str, label: str, time: str | None) -> None:
    columns = sample.table.column_names
    problems = []
    try:
        check_name(name)
    except ValueError as error:
        problems.append(Problem("name", str(error)))
    for column, role in ((label, "label"), (time, "time")):
        if column is not None and column not in columns:
            hint = nearest(column, columns)
            fix = "" if hint else f"its columns: {', '.join(columns[:30])}"
            problems.append(Problem(str(path), f"no {role} column {column!r}{hint}", fix))
    if time == label:
        problems.append(Problem(f"{path}, column {label!r}", "the label can't be the time"))
    for column, why in _unfit((label, *filter(None, [time]))).items():
        problems.append(Problem(f"{path}, column {column!r}", why, "rename it in the file"))
    if problems:
        raise InputError(problems)


def _unfit(names: Sequence[str]) -> dict[str, str]:
    """Columns that a model can't have beside those before them, and why: see ``spec.rules``."""
    found: dict[str, str] = {}
    other = twins(names)
    for name in names:
        if name in other:
            found[name] = f"differs from {shown(other[name])} in capitals only"
        elif why := why_ours(name):
            found[name] = why
    return found


def _lost(columns: Sequence[Guess], moments: Guess | None) -> np.ndarray | None:
    """The rows that go to quarantine for what these columns or the event time hold; None when there
    are none."""
    masks = [column.faulty for column in columns if column.faulty is not None]
    if moments is not None and moments.values.null_count:
        masks.append(moments.values.is_null().to_numpy(zero_copy_only=False))
    return np.logical_or.reduce(masks) if masks else None


def _kept(found: Guess, lost: np.ndarray | None) -> Guess:
    """A column without what it has in the rows that are lost, and without them in its counts."""
    if found.values is None or lost is None:
        return found
    values = pc.if_else(pa.array(~lost), found.values, None)
    missing = found.values.is_null().to_numpy(zero_copy_only=False) & ~lost
    if found.faulty is not None:
        missing &= ~found.faulty
    distinct = pc.count_distinct(values).as_py()
    return replace(found, values=values, distinct=distinct, missing=int(missing.sum()))


def _label(path: Path, sample: Sample, found: Guess, decimal: Decimal) -> tuple[Guess, Objective]:
    """The label in the type that suits its objective."""
    where = f"{path}, column {found.name!r}"
    if found.values is None:
        raise InputError(Problem(where, f"can't be predicted: it {_verb(found.note)}"))
    if found.type == "float" and found.faulty is None:
        whole = parse(sample.table[found.name], "integer", decimal)
        there = found.values.is_valid()
        if whole.faulty is None or not (whole.faulty & there.to_numpy(zero_copy_only=False)).any():
            values = pc.if_else(there, whole.values, None)
            found = replace(found, type="integer", values=values)
    rows, distinct = found.rows * sample.every, found.distinct
    if distinct == 1:
        only = shown(found.values.drop_null()[0].as_py())
        what = f"one value only, {only}, in all {rows:,} rows that have one"
        fix = "there is nothing to tell apart"
        hint = quotes_needed(found, sample)
        if found.missing and hint:
            fix += f"; {found.missing * sample.every:,} rows have no label; {hint}"
        raise InputError(Problem(where, what, fix))
    if rows < MIN_ROWS:
        what = f"{rows:,} rows have a label; to train, tune and test takes at least {MIN_ROWS}"
        raise InputError(Problem(where, what))
    if found.type == "datetime":
        raise InputError(Problem(where, "a time can't be predicted", "use a number or classes"))
    if found.type in ("category", "string"):
        _check_classes(where, found, rows)
        note = _in_capitals_only(found) or (found.note if found.type == "category" else "")
        found = replace(found, type="category", note=note)
        return found, "binary" if distinct == 2 else "multiclass"
    if found.type == "boolean" or (found.type == "integer" and distinct == 2):
        return found, "binary"
    few = distinct <= _MAX_WHOLE_CLASSES and rows >= _ROWS_A_CLASS * distinct
    if found.type == "integer" and few:
        return found, "multiclass"
    size = max(map(abs, found.range_seen()))
    if size > float(np.finfo(np.float32).max):
        raise InputError(Problem(where, f"a label of size {size:g} is beyond 32-bit floats"))
    return replace(found, type="float"), "regression"


def _check_classes(where: str, found: Guess, rows: int) -> None:
    """Refuse texts that are meant as numbers, or are too many to be classes."""
    comma = comma_example(pc.unique(found.values).drop_null())
    if comma is not None:
        what = f"numbers with a decimal comma, such as {shown(comma)}, are text here"
        fix = "write a decimal point; a CSV may have commas if no number of it has a point"
        raise InputError(Problem(where, what, fix))
    if found.distinct > MAX_CLASSES:
        what = f"{found.distinct:,} different texts in {rows:,} rows, neither classes nor numbers"
        fix = described(found.values) or f"at most {MAX_CLASSES} classes"
        raise InputError(Problem(where, what, fix))


def _in_capitals_only(classes: Guess) -> str:
    alike = twins(classes.shares())
    if not alike:
        return ""
    pairs = ", ".join(f"{shown(other)} and {shown(one)}" for one, other in alike.items())
    return f"{pairs} differ in capitals only and are classes of their own: write them alike"


def _verb(note: str) -> str:
    return note if note.startswith("holds") else f"is empty, {note}"


def _moments(path: Path, sample: Sample, time: str) -> Guess:
    """The event times; those that ingestion refuses as too far back or ahead are missing."""
    where = f"{path}, column {time!r}"
    values = sample.table[time].combine_chunks()
    parsed = parse(values, "datetime")
    if parsed.faulty is not None:
        at = int(np.argmax(parsed.faulty))
        what = (
            f"{int(parsed.faulty.sum()) * sample.every:,} of {sample.rows:,} values are no time: "
            f"row {sample.numbers[at]} has {shown(values[at].as_py())}, which "
            f"{EXPECTED['datetime']}"
        )
        raise InputError(Problem(where, what))
    missing, kind = parsed.values.null_count, parsed.values.type
    if missing > _MAX_TIMELESS_SHARE * len(values):
        what = f"{missing * sample.every:,} of {sample.rows:,} rows have no time"
        raise InputError(Problem(where, what, "every row needs its event time"))
    since = pc.if_else(pc.less(parsed.values, pa.scalar(EARLIEST, kind)), None, parsed.values)
    back = since.null_count - missing
    if missing + back > _MAX_TIMELESS_SHARE * len(values):
        what = f"{back * sample.every:,} of {sample.rows:,} rows are {TOO_FAR_BACK}"
        raise InputError(Problem(where, what, "every row needs the time of its event"))
    found = pc.if_else(pc.greater(since, pa.scalar(datetime.now(UTC) + AHEAD, kind)), None, since)
    ahead = found.null_count - since.null_count
    if found.null_count > _MAX_TIMELESS_SHARE * len(values):
        what = f"{ahead * sample.every:,} of {sample.rows:,} rows are {TOO_FAR_AHEAD}"
        raise InputError(Problem(where, what, "leave out what hasn't happened yet"))
    lost = ((missing, "without a time"), (back, TOO_FAR_BACK), (ahead, TOO_FAR_AHEAD))
    note = "; ".join(f"{to_quarantine(rows, sample)}, {why}" for rows, why in lost if rows)
    distinct = pc.count_distinct(found).as_py()
    return Guess(time, "datetime", found, distinct, missing, feature=False, note=note)


def _as_numbers(target: Guess, objective: Objective) -> np.ndarray:
    """float64 a row: the label, or its class's position; NaN where it is missing."""
    values = target.values
    if objective != "regression":
        values = values.dictionary_encode().indices
    numbers: np.ndarray = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return numbers


def _positive(target: Guess) -> Any:
    shares = target.shares()
    for word in _POSITIVE:
        for value in shares:
            if str(value).lower() == word:
                return value
    if target.type == "integer":
        return max(shares)
    return min(shares, key=lambda value: (shares[value], str(value)))


def _split(
    moments: Guess | None, numbers: np.ndarray, classes: bool, every: int
) -> tuple[timedelta | float, int]:
    """The size of the validation and of the test part, and about how many rows the test has.

    Tried are the duration nearest to an eighth of the span, longer ones up to a quarter, then
    shorter ones. A share where there is no time, or no duration gives parts that serve.
    """
    labelled = ~np.isnan(numbers)
    if moments is not None:
        times = moments.values.to_numpy(zero_copy_only=False).astype("datetime64[us]")
        known = labelled & ~np.isnat(times)
        ages, kinds = times[known].max() - times[known], numbers[known]
        span = ages.max().astype(timedelta)
        enough = min(MIN_ROWS, int(known.sum()) * every // 8)
        shorter = [part for part in _PARTS if 8 * part <= span]
        longer = [part for part in _PARTS if 4 * part <= span < 8 * part]
        for part in [*shorter[-1:], *longer, *reversed(shorter[:-1])]:
            size = np.timedelta64(part)
            parts = [kinds[ages < size], kinds[(ages >= size) & (ages < 2 * size)]]
            if all(
                len(p) * every >= enough and (not classes or len(np.unique(p)) > 1) for p in parts
            ):
                return part, len(parts[0]) * every
    return _SHARE, round(int(labelled.sum()) * every * _SHARE)


def _gates(
    objective: Objective,
    numbers: np.ndarray,
    columns: list[Guess],
    test_rows: int,
) -> tuple[Gate, ...]:
    known = numbers[~np.isnan(numbers)]
    shares = np.bincount(known.astype(np.int64)) / len(known) if objective != "regression" else None
    metric = "rmse" if shares is None else "logloss"
    if shares is None:
        floor = Gate({"metric": "r2", "min": 0.01}, "0 is always naming the mean")
        doubt = float(np.std(known))
    else:
        doubt = float(-np.sum(shares * np.log(shares)))
        if objective == "binary" or shares.min() * test_rows >= _ROWS_A_CLASS:
            floor = Gate({"metric": "roc_auc", "min": 0.55}, "0.5 is guessing")
        else:
            common = float(shares.max())
            least = round(common + (1 - common) / 20, 2)
            why = f"{common:.2f} is always naming the commonest class"
            floor = Gate({"metric": "accuracy", "min": least}, why)
    beats = Gate(
        {"beats": "champion", "metric": metric, "first_version": "passed"},
        "the first version is judged by the other gates",
    )
    sliced = [
        column
        for column in columns
        if column.type == "category"
        and 1 < column.distinct <= _SLICE_LEVELS
        and min(column.shares().values()) * test_rows >= _SLICE_ROWS
    ]
    sliced = sorted(sliced, key=lambda column: column.distinct)[:2]
    if not sliced:
        return floor, beats
    names = [column.name for column in sliced]
    limit = float(f"{doubt / 20:.1g}")
    slices = {"slices": names, "metric": metric, "max_regression": limit}
    return floor, beats, Gate(slices, "a twentieth of the doubt that guessing leaves")


def _uri(path: Path, project: Path | None) -> str:
    whole = path.expanduser().absolute()
    root = None if project is None else project.absolute()
    return str(whole.relative_to(root) if root and whole.is_relative_to(root) else whole)
