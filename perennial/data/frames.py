"""The canonical frame: the one form in which rows reach feature code, checks and prediction.

It depends on model.yaml alone, so a batch of one row looks like a whole table: float → float64,
integer → int64 (float64 where missing values are allowed), boolean → bool (likewise), category and
string → ``str``, datetime → datetime64[us, UTC]; NaN or NaT where a value is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.features import ColumnType
from perennial.data.parsing import EXPECTED, TYPES, parse
from perennial.spec.inputs import Column
from perennial.spec.schema import ModelSpec
from perennial.spec.values import nearest, shown


class Typed(Protocol):
    """What decides a column's canonical form: a Column of model.yaml, or an InputColumn."""

    @property
    def type(self) -> ColumnType: ...
    @property
    def nullable(self) -> bool: ...


def table_columns(spec: ModelSpec) -> dict[str, Column]:
    """Every column of a model's table, in its order: event time, entity, the others, the label.

    The event time is a datetime and never missing. A label that model.yaml doesn't declare is a
    float in a regression and a category otherwise (a class is then the text its source shows:
    ``1``, ``true``, ``late``); it may be missing as long as it isn't known.
    """
    time, label = spec.source.event_time, spec.label.column
    columns = dict(spec.columns)
    if time is not None:
        declared = columns.get(time, Column(type="datetime"))
        columns[time] = declared.model_copy(update={"nullable": False})
    if label not in columns:
        columns[label] = Column(type="float" if spec.objective == "regression" else "category")
    first = [c for c in (time, *spec.source.entity) if c is not None and c != label]
    order = dict.fromkeys((*first, *(c for c in columns if c != label), label))
    return {name: columns[name] for name in order}


def arrow_schema(columns: Mapping[str, Typed]) -> Any:
    """The Arrow schema in which a table stores these columns (float64, int64, bool, string,
    timestamp[us, UTC]; all may be null)."""
    return pa.schema([(name, TYPES[column.type]) for name, column in columns.items()])


def schema_digest(columns: Mapping[str, Typed]) -> str:
    """16 hexadecimal digits that change when the canonical frame of these columns would."""
    parts = [(name, column.type, column.nullable) for name, column in columns.items()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def canonical_frame(rows: pa.Table | pd.DataFrame, columns: Mapping[str, Typed]) -> pd.DataFrame:
    """Rows as a canonical frame with exactly these columns, in their order.

    ``rows`` may have more columns, in any Arrow or pandas type whose values parse. A DataFrame
    keeps its index. Raises InputError with every column that is absent, has a value that doesn't
    parse, or misses one where ``nullable`` is false.
    """
    names = rows.column_names if isinstance(rows, pa.Table) else list(rows.columns)
    problems: list[Problem] = []
    series: dict[str, Any] = {}
    for name, column in columns.items():
        if name not in names:
            what = f"no such column{nearest(name, (str(n) for n in names))}"
            problems.append(Problem(f"column {name!r}", what))
            continue
        values = rows[name] if isinstance(rows, pa.Table) else _to_arrow(rows[name])
        parsed = parse(values, column.type)
        if parsed.faulty is not None:
            first = int(np.flatnonzero(parsed.faulty)[0])
            count = int(parsed.faulty.sum())
            what = f"{shown(values[first].as_py())} {EXPECTED[column.type]}"
            where = f"column {name!r}, row {first + 1}"
            problems.append(
                Problem(where, what if count == 1 else f"{what}; so are {count} values")
            )
        elif not column.nullable and parsed.values.null_count:
            what = f"{parsed.values.null_count} of {len(rows)} values are missing"
            problems.append(Problem(f"column {name!r}", what, "model.yaml says nullable: false"))
        else:
            series[name] = to_pandas(parsed.values, column)
    if problems:
        raise InputError(problems)
    index = pd.RangeIndex(len(rows)) if isinstance(rows, pa.Table) else rows.index
    return pd.DataFrame(series, index=index)


def to_pandas(values: Any, column: Typed) -> Any:
    """An array that is already in its table type as the array of a canonical frame."""
    if column.type in ("category", "string"):
        return pd.array(values, dtype="str")
    if column.type == "datetime":
        return values.to_pandas().array
    if column.type == "float" or column.nullable:
        return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values.to_numpy(zero_copy_only=False)


def _to_arrow(series: pd.Series) -> Any:
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # values of several types: each as its text
        texts = [None if _missing(value) else _text(value) for value in series]
        return pa.array(texts, pa.string())


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value != value  # noqa: PLR0124


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
