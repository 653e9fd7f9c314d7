"""Late labels of one request, checked, as rows of the label log."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from perennial.bundle.outputs import all_classes
from perennial.contracts.errors import InputError, Problem
from perennial.contracts.features import InputColumn
from perennial.data.frames import table_columns, table_rows
from perennial.data.row_numbers import called
from perennial.serving.models import LiveModel, Loaded
from perennial.serving.replies import Refusal
from perennial.serving.rows import objects
from perennial.spec.values import nearest, shown
from perennial.stores.predictions.columns import METRIC

_ID, _LABEL, _METRICS = "prediction_id", "label", "metrics"
METRIC_NAME = r"[a-z][a-z0-9_]{0,39}"
"""What a number that comes with a label may be called."""
MAX_METRICS = 20
_MAX_ID = 64
_MAX_PROBLEMS = 20


def label_classes(model: LiveModel) -> tuple[str, ...] | None:
    """The classes that a label may name, None for a number: those of every version that is loaded
    or in shadow, for what only a challenger knows is what its rollout needs to see."""
    own = model.champion().schema.classes
    if own is None:
        return None
    others = (model.loaded[number].schema.classes for number in sorted(model.loaded))
    return all_classes((own, *others, model.shadow_classes))


def read_labels(document: object, model: LiveModel, most: int) -> pa.RecordBatch:
    """Labels of ``{…}``, ``[{…}]`` or ``{"labels": [{…}]}``.

    Each has ``label``, and says what it is of: ``prediction_id``, or every entity column and the
    event time. It may have ``metrics``, further numbers by name (``{"revenue": 12.5}``; null is no
    number): each name is a column ``metric_<name>``, null for labels without it. Raises InputError
    naming each label that is wrong, Refusal for another form, no or too many labels.
    """
    if isinstance(document, dict) and document.keys() == {"labels"}:
        document = document["labels"]
    rows = objects(document, "label")
    if not 0 < len(rows) <= most:
        what = f"{len(rows):,} labels; a request has 1 to {most:,}"
        raise Refusal(413 if rows else 422, "too_many_rows" if rows else "no_rows", what)
    version = model.champion()
    keys = key_columns(version)
    mistakes = (problem for i, row in enumerate(rows) for problem in _mistakes(row, i, keys))
    problems = list(islice(mistakes, _MAX_PROBLEMS))
    labels, wrong = _values(rows, label_classes(model))
    if problems or wrong:
        raise InputError([*problems, *wrong])
    given = {name: [row.get(name) for row in rows] for name in keys}
    with_metrics = [] if _METRICS in keys else rows
    metrics = sorted({name for row in with_metrics for name in row.get(_METRICS) or ()})
    try:
        known = table_rows(given, keys)
    except InputError as error:
        raise InputError([called(problem, "label") for problem in error.problems]) from None
    missing = list(islice(_missing(rows, known), _MAX_PROBLEMS))
    if missing:
        raise InputError(missing)
    kind = pa.float64() if version.spec.objective == "regression" else pa.string()
    now = pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))
    return pa.RecordBatch.from_arrays(
        [
            pa.repeat(now, len(rows)),
            pa.array([row.get(_ID) for row in rows], pa.string()),
            *known.columns,
            pa.array(labels, kind),
            *(_numbers(rows, name) for name in metrics),
        ],
        names=["_received_at", "_id", *keys, "label", *(f"{METRIC}{name}" for name in metrics)],
    )


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> pa.Array:
    values = [(row.get(_METRICS) or {}).get(name) for row in rows]
    return pa.array([None if value is None else float(value) for value in values], pa.float64())


def key_columns(version: Loaded) -> dict[str, InputColumn]:
    """What tells a row without its prediction's id; empty where nothing does. A time alone tells
    none apart, and a column that is called as the label or the id can't be given beside it."""
    spec = version.spec
    names = (*spec.source.entity, *([spec.source.event_time] if spec.source.event_time else []))
    if not spec.source.entity or {_ID, _LABEL} & {*names}:
        return {}
    declared = table_columns(spec)
    return {name: InputColumn(name=name, type=declared[name].type, nullable=True) for name in names}


def _mistakes(
    row: Mapping[str, Any], place: int, keys: Mapping[str, InputColumn]
) -> Iterator[Problem]:
    where = f"label {place + 1}"
    known = (_ID, _LABEL, _METRICS, *keys)
    for name in row:
        if name not in known:
            yield Problem(where, f"unknown key {shown(name)}{nearest(name, known)}")
    identity = row.get(_ID)
    if identity is not None:
        if not isinstance(identity, str) or not 0 < len(identity) <= _MAX_ID:
            yield Problem(where, f"prediction_id is {shown(identity)}", "send its text")
    elif not keys or any(row.get(name) is None for name in keys):
        ways = f"prediction_id, or {', '.join(keys)}" if keys else "prediction_id"
        yield Problem(where, "doesn't say what it is the label of", f"give {ways}")
    if row.get(_LABEL) is None:
        yield Problem(where, "has no label")
    if _METRICS not in keys:
        yield from _metric_mistakes(row.get(_METRICS), where)


def _missing(rows: Sequence[Mapping[str, Any]], known: pa.RecordBatch) -> Iterator[Problem]:
    """Values that mean a missing one, such as "", of labels that nothing else says the row of."""
    names = known.schema.names
    for name, column in zip(names, known.columns, strict=True):
        for place in np.flatnonzero(column.is_null()) if column.null_count else ():
            row = rows[int(place)]
            if row.get(_ID) is None:
                what = f"{name} is {shown(row[name])}, which means a missing value"
                fix = f"give prediction_id, or {', '.join(names)}"
                yield Problem(f"label {place + 1}", what, fix)


def _metric_mistakes(metrics: object, where: str) -> Iterator[Problem]:
    if metrics is None:
        return
    if not isinstance(metrics, dict):
        yield Problem(where, f"metrics is {shown(metrics)}", "send numbers by their names")
        return
    if len(metrics) > MAX_METRICS:
        yield Problem(where, f"has {len(metrics):,} metrics, {MAX_METRICS} at most")
    for name, value in metrics.items():
        if not re.fullmatch(METRIC_NAME, name):
            fix = "begin with a small letter; small letters, digits and _ follow, 40 in all"
            yield Problem(where, f"metric {shown(name)} is no name for one", fix)
        if value is not None and _finite(value) is None:
            yield Problem(where, f"metric {shown(name)}: {shown(value)} is not a finite number")


def _values(
    rows: Sequence[Mapping[str, Any]], classes: tuple[str, ...] | None
) -> tuple[list[Any], list[Problem]]:
    values: list[Any] = []
    problems = []
    for place, row in enumerate(rows):
        label = row.get(_LABEL)
        if label is None:
            continue
        if classes is None:
            value: Any = _finite(label)
            expected = "a finite number"
        else:
            text = _text(label)
            value = text if text in classes else None
            expected = f"one of {', '.join(classes[:10])}"
        if value is None:
            problems.append(Problem(f"label {place + 1}", f"{shown(label)} is not {expected}"))
        values.append(value)
    return values, problems


def _finite(label: object) -> float | None:
    if isinstance(label, bool) or not isinstance(label, int | float):
        return None
    try:
        number = float(label)
    except OverflowError:  # a whole number beyond all floats
        return None
    return number if math.isfinite(number) else None


def _text(label: object) -> str:
    """A class as the text its source shows."""
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label) if isinstance(label, str | int | float) else ""
