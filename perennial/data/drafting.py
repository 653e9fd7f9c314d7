"""The text of an inferred model.yaml, each choice with its reason, and of its features.py."""

from __future__ import annotations

import keyword
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from perennial.contracts.metrics import Objective
from perennial.data.guesses import Guess, bounds
from perennial.data.identity import Entity
from perennial.data.parsing import EXPECTED
from perennial.data.samples import Sample
from perennial.spec.documents import inline_text
from perennial.spec.publish import SCHEMA_FILE
from perennial.spec.values import format_duration, shown

_SURE_ROWS = 1_000
"""When none of so many rows is missing, more than 0.3 % missing would be news (p = 0.05)."""

_WIDE = 88


@dataclass(frozen=True, slots=True)
class Gate:
    keys: dict[str, Any]
    why: str


@dataclass(frozen=True, slots=True)
class Draft:
    """All that was decided. ``part`` is the size of the validation and of the test part: a duration
    for a time split, else a share of rows."""

    name: str
    data: Path
    uri: str
    sample: Sample
    objective: Objective
    label: Guess
    positive: Any
    unlabelled: int
    time: Guess | None
    entity: Entity
    comma: str | None
    """A number with the decimal comma that the file has; None where it has points."""
    columns: tuple[Guess, ...]
    part: timedelta | float
    gates: tuple[Gate, ...]
    min_rows: int | None


def model_text(draft: Draft) -> str:
    """The YAML text."""
    blocks = [_head(draft), _source(draft), _columns(draft), _training(draft)]
    return "\n".join(line for block in blocks for line in [*block, ""]).rstrip("\n") + "\n"


def notes(draft: Draft) -> tuple[str, ...]:
    """What of the comments no one should miss: a decimal comma, columns that are not learnt from,
    rows that will go to quarantine or have no label, and what in the file may not be meant so."""
    said = [] if draft.comma is None else [f"source.decimal is a comma: {_as_read(draft.comma)}"]
    if draft.time is not None and draft.time.note:
        said.append(f"{draft.time.name}: {draft.time.note}")
    for column in (*draft.columns, draft.label):
        told = "; ".join(filter(None, [_quarantined(column, draft.sample), column.note]))
        if column.values is None:
            said.append(f"{column.name} is left out: {told}")
        elif not column.feature and column is not draft.label:
            said.append(f"{column.name} is no feature: {told or 'a time'}")
        elif told:
            said.append(f"{column.name}: {told}")
    if draft.unlabelled:
        said.append(f"{draft.label.name}: {_unlabelled(draft)}")
    return tuple(said)


def _head(draft: Draft) -> list[str]:
    sample = draft.sample
    file, columns = " ".join(draft.data.name.split()), len(sample.table.column_names)
    lines = [
        f"# yaml-language-server: $schema=../{SCHEMA_FILE}",
        f"# Inferred from {file}: {sample.rows:,} rows, {columns} columns.",
        f"# Every line may be edited; then run: perennial check {draft.name}",
    ]
    if sample.every > 1:
        lines.append(f"# Only every {sample.every}th row was looked at: rarer values may differ.")
    if sample.broken:
        lines.append(
            f"# {sample.broken:,} rows have too many or too few values; they go to quarantine."
        )
    if sample.unnamed:
        lines.append(f"# {sample.unnamed} of the file's columns have no name and are left out.")
    lines.append(f"name: {draft.name}")
    label = draft.label
    values = "numbers" if draft.objective == "regression" else "values"
    why = f"{shown(label.name)} has {label.distinct:,} different {values}"
    return [*lines, _line("objective", draft.objective, why)]


def _as_read(comma: str) -> str:
    return f"{shown(comma)} is read as {comma.replace(',', '.')}"


def _source(draft: Draft) -> list[str]:
    sample = draft.sample
    lines = ["source:", f"  kind: {sample.kind}", f"  uri: {inline_text(draft.uri)}"]
    if sample.delimiter != ",":
        lines.append(f"  delimiter: {inline_text(sample.delimiter)}")
    if draft.comma is not None:
        lines.append(_line("  decimal", ",", _as_read(draft.comma)))
    if draft.time is not None:
        about = "; ".join(filter(None, [_span(draft.time), draft.time.note]))
        lines.append(_line("  event_time", draft.time.name, about))
    lines += _entity(draft)
    lines += ["label:", f"  column: {inline_text(draft.label.name)}"]
    if draft.positive is not None:
        share = draft.label.shares()[draft.positive]
        lines.append(_line("  positive", draft.positive, f"{share:.1%} of the labelled rows"))
    if draft.time is not None:
        lines.append(_line("  delay", "0d", "how long after its event a label becomes known"))
    if draft.unlabelled:
        lines.append(f"  # {_unlabelled(draft)}")
    return lines


def _unlabelled(draft: Draft) -> str:
    rows = _about(draft.unlabelled, draft.sample)
    said = f"{rows} rows have no label: kept, but not learnt from"
    return "; ".join(filter(None, [said, quotes_needed(draft.label, draft.sample)]))


def quotes_needed(label: Guess, sample: Sample) -> str:
    """What to do if labels that are missing were meant as a class."""
    if sample.kind == "csv" and label.type in ("category", "string"):
        return "a class that is called NA, null, none or nan needs quotes in the file"
    return ""


def _entity(draft: Draft) -> list[str]:
    names, alone = draft.entity.columns, draft.entity.time_alone
    if names:
        why = "with the event time different in every row" if draft.time else "names a row"
        if alone:
            why += ", though so is the time alone"
        return [_line("  entity", list(names), why)]
    if draft.time is None:
        return []
    found = "none found beside the time, which differs in every row" if alone else "none found"
    few = "; one that never changes will do" if alone else ", if any do"
    return [
        f"  # entity: {found}.",
        "  # So all columns but the label tell rows apart: a corrected row counts as a new one,",
        "  # and no column can be added or taken out after the first run. Name those that identify",
        f"  # a row{few}.",
    ]


def _quarantined(column: Guess, sample: Sample) -> str:
    """How many rows go to quarantine for what they hold in a column, and an example."""
    if column.faulty is None:
        return ""
    example = sample.table[column.name][int(column.faulty.argmax())].as_py()
    rows = to_quarantine(int(column.faulty.sum()), sample)
    return f"{rows}, as {shown(example)} {EXPECTED[column.type]}"


def to_quarantine(rows: int, sample: Sample) -> str:
    """How many rows go there; ``rows`` are those of the sample."""
    rows *= sample.every
    return f"{_about(rows, sample)} row{'s' if rows > 1 else ''} to quarantine"


def _about(rows: int, sample: Sample) -> str:
    """A number of the file's rows, which a sample of them tells only about."""
    return f"{'about ' if sample.every > 1 else ''}{rows:,}"


def _columns(draft: Draft) -> list[str]:
    lines = [
        "# A row outside these rules goes to quarantine. The bounds are far from what was seen, to",
        "# catch broken values and not rare ones; new levels of a category are let in.",
        "columns:",
    ]
    if draft.time is not None:
        lines.append(f"  {_declared(draft.time.name, {'type': 'datetime', 'nullable': False})}")
    for column in draft.columns:
        if column.values is None:
            lines.append(f"  # {_name(column.name)} is left out: {column.note}")
            continue
        missing = column.missing / len(column.values)
        about = [
            _seen(column),
            f"{missing:.1%} missing" if missing else "",
            _quarantined(column, draft.sample),
            column.note,
        ]
        keys = _rules(column, draft)
        lines.append(_line(f"  {_name(column.name)}", keys, "; ".join(filter(None, about))))
    label: dict[str, Any] = {"type": draft.label.type}
    if draft.objective != "regression" and draft.label.type != "boolean":
        label["allowed"] = list(draft.label.shares())
    about = [
        "the label",
        _seen(draft.label),
        _quarantined(draft.label, draft.sample),
        draft.label.note,
    ]
    return [
        *lines,
        _line(f"  {_name(draft.label.name)}", label, "; ".join(filter(None, about))),
    ]


def _rules(column: Guess, draft: Draft) -> dict[str, Any]:
    rules: dict[str, Any] = {"type": column.type}
    if column.type in ("float", "integer") and column.feature:
        low, high = bounds(*column.range_seen())
        rules |= {"min": _short(low), "max": _short(high)}
    if not column.missing and (
        draft.sample.rows >= _SURE_ROWS or column.name in draft.entity.columns
    ):
        rules["nullable"] = False
    if not column.feature and column.type not in ("string", "datetime"):
        rules["feature"] = False
    return rules


def _training(draft: Draft) -> list[str]:
    if isinstance(draft.part, timedelta):
        size = format_duration(draft.part)
        split: dict[str, Any] = {"kind": "time", "validation": size, "test": size}
        why = "the newest rows test, those before them tune"
    else:
        kind = "random" if draft.objective == "regression" else "stratified"
        split = {"kind": kind, "validation": draft.part, "test": draft.part}
        why = "" if draft.time is None else "no duration gives parts by time with enough rows"
    rows = draft.sample.rows
    trials = 30 if rows < 100_000 else 20 if rows < 1_000_000 else 10
    lines = [
        _line("split", split, why),
        _line("tuning", {"trials": trials, "timeout": "10m"}, "more trials may find a little more"),
        "gates:  # a candidate must pass them all to take over",
    ]
    for gate in draft.gates:
        few = (
            {} if draft.min_rows is None or "slices" in gate.keys else {"min_rows": draft.min_rows}
        )
        lines.append(_line("  -", gate.keys | few, gate.why, colon=False))
    return [*lines, '# retrain: {schedule: "0 6 * * 1"}  # on Mondays at 6, UTC; by hand for now']


def _line(key: str, value: object, why: str = "", *, colon: bool = True) -> str:
    text = f"{key}{':' if colon else ''} {inline_text(value)}"
    return f"{text}  # {why}" if why else text


def _declared(name: str, rules: dict[str, Any]) -> str:
    return f"{_name(name)}: {inline_text(rules)}"


def _name(column: str) -> str:
    return inline_text(column)


def _short(number: float) -> float | int:
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _seen(column: Guess) -> str:
    """What the column holds, in a few words."""
    if column.type in ("float", "integer"):
        low, high = column.range_seen()
        return "" if low == high else f"{low:.6g} to {high:.6g}"
    if column.type == "datetime":
        return _span(column)
    if column.type == "string":
        return ""
    levels = ", ".join(f"{_level(v)} {share:.0%}" for v, share in column.shares().items())
    return levels if column.distinct <= 6 and len(levels) < _WIDE else f"{column.distinct:,} levels"


def _level(value: object) -> str:
    return shown(value) if isinstance(value, str) else str(value).lower()


def _span(column: Guess) -> str:
    ends = pc.min_max(column.values)
    first, last = (ends[end].as_py() for end in ("min", "max"))
    return f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"


_FEATURES_HEAD = '''\
"""Features of {name} beside its columns.

Each function is a feature. Its parameters name the columns or features that it reads, each a pandas
Series of the rows at hand, and it returns one value a row. What must be learnt from other rows goes
into a function marked @fitted (from perennial.data.features import fitted), which sees training
rows only.
"""
'''


def features_text(draft: Draft) -> str:
    """The Python text: the hour and the weekday of the event time, or only an example in a comment
    where there is no time that a function could name."""
    head = _FEATURES_HEAD.format(name=draft.name)
    time = draft.time
    if time is None or not is_parameter(time.name):
        return head + _example(draft)
    taken = {draft.label.name, time.name, *(column.name for column in draft.columns)}
    functions = []
    if pc.count_distinct(pc.hour(time.values)).as_py() > 1:
        functions.append((_free("hour_of_day", taken), "dt.hour", "0 to 23, UTC."))
    functions.append((_free("day_of_week", taken), "dt.dayofweek", "Monday is 0."))
    body = "".join(
        f"\n\ndef {name}({time.name}: pd.Series) -> pd.Series:\n"
        f'    """{meaning}"""\n'
        f"    return {time.name}.{attribute}\n"
        for name, attribute, meaning in functions
    )
    return f"{head}\nfrom __future__ import annotations\n\nimport pandas as pd\n{body}"


def _example(draft: Draft) -> str:
    numeric = [
        column.name
        for column in draft.columns
        if column.feature and column.type in ("float", "integer") and is_parameter(column.name)
    ]
    first, second = [*numeric, "one", "other"][:2]
    return (
        "\n# import pandas as pd\n#\n#\n"
        f"# def ratio({first}: pd.Series, {second}: pd.Series) -> pd.Series:\n"
        f"#     return {first} / {second}\n"
    )


def is_parameter(name: str) -> bool:
    """Whether a function of features.py can read a column of this name."""
    return name.isidentifier() and not keyword.iskeyword(name) and name != "pd"


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
