"""The label as the booster reads it: 0/1, a class's number, or the value."""

from __future__ import annotations

import numpy as np
import pandas as pd

from perennial.contracts.errors import InputError, Problem
from perennial.spec import ModelSpec

MAX_CLASSES = 1_000
"""Most classes of a multiclass model; a label with more is a number to regress."""


def label_classes(values: pd.Series, spec: ModelSpec) -> tuple[str, ...] | None:
    """The classes in a label's values: binary (negative, positive); multiclass in order (numbers by
    value, text by code point); None for a regression.

    Booleans are ``false`` and ``true``, whole numbers are written without a point. Raises
    InputError for a missing value, a single class, more than two of a binary label, or a
    ``label.positive`` that doesn't occur.
    """
    if spec.objective == "regression":
        return None
    _refuse_missing(values, spec)
    distinct = sorted(values.unique().tolist())
    classes = tuple(_class_name(value, spec) for value in distinct)
    counts = f"{len(values):,} labelled rows"
    if len(classes) < 2:
        what = f"one class only: {classes[0]!r} in all {counts}" if classes else "no labelled row"
        raise _refused(spec, what, "a classifier needs rows of at least two classes")
    if spec.objective == "multiclass":
        if len(classes) > MAX_CLASSES:
            what = f"{len(classes):,} classes in {counts}"
            raise _refused(spec, what, f"at most {MAX_CLASSES:,}; or use objective: regression")
        return classes
    if len(classes) > 2:
        shown = ", ".join(repr(name) for name in classes[:5])
        more = ", …" if len(classes) > 5 else ""
        what = f"{len(classes):,} classes in a binary label: {shown}{more}"
        raise _refused(spec, what, "use objective: multiclass")
    if spec.label.positive is None:
        return classes
    positive = _positive_name(classes, spec)
    negative = next(name for name in classes if name != positive)
    return (negative, positive)


def check_classes(values: pd.Series, spec: ModelSpec, classes: tuple[str, ...]) -> None:
    """Refuse labels that the members of an ensemble don't predict.

    A multiclass label may lack some of their ``classes``; a binary one has both, and the same one
    is positive. Raises InputError.
    """
    found = label_classes(values, spec) or ()
    known = ", ".join(repr(name) for name in classes[:20])
    if spec.objective == "binary" and found != classes:
        what = f"its classes are {found[0]!r} and, positive, {found[1]!r}; the members' are {known}"
        raise _refused(spec, what, "the label and label.positive must be those of the members")
    strange = [name for name in found if name not in classes]
    if strange:
        shown = ", ".join(repr(name) for name in strange[:5])
        what = f"classes that no member predicts: {shown}"
        raise _refused(spec, what, f"the members know {known}; train them again first")


def encode_label(values: pd.Series, spec: ModelSpec, classes: tuple[str, ...] | None) -> np.ndarray:
    """float32 (rows,): the label's position in ``classes`` (for binary 1 is positive), or the value
    itself for a regression.

    Raises InputError for missing or infinite values and for a class that ``classes`` lacks: rows
    without a label are in no part of a split.
    """
    _refuse_missing(values, spec)
    if spec.objective == "regression" or classes is None:
        if isinstance(values.dtype, pd.StringDtype) or values.dtype == object:
            what = f"a regression's label is a number, this is text such as {values.iloc[0]!r}"
            raise _refused(spec, what, "use objective: multiclass")
        with np.errstate(over="ignore"):
            encoded = values.to_numpy(dtype=np.float32)
        infinite = np.isinf(encoded)
        if infinite.any():
            row = values.index[int(np.argmax(infinite))]
            what = f"{int(infinite.sum()):,} values float32 can't hold, first in row {row}"
            raise _refused(spec, what, "")
        return encoded
    numbers = {name: i for i, name in enumerate(classes)}
    codes, distinct = pd.factorize(values)
    names = [_class_name(value, spec) for value in distinct.tolist()]
    strange = [name for name in names if name not in numbers]
    if strange:
        rows = int(np.isin(codes, [names.index(name) for name in strange]).sum())
        shown = ", ".join(repr(name) for name in strange[:5])
        what = f"{rows:,} rows have a class that the training rows lack: {shown}"
        raise _refused(spec, what, f"known: {', '.join(repr(name) for name in classes[:20])}")
    positions = np.array([numbers[name] for name in names], dtype=np.float32)
    return positions[codes] if len(values) else np.empty(0, dtype=np.float32)


def _class_name(value: object, spec: ModelSpec) -> str:
    column = spec.columns.get(spec.label.column)
    if column is not None and column.type == "boolean":
        value = bool(value)  # a nullable boolean is kept as 0.0 and 1.0
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _positive_name(classes: tuple[str, ...], spec: ModelSpec) -> str:
    """The class that ``label.positive`` means; true also means 1, and 1 true."""
    positive = spec.label.positive
    names = [str(positive)]
    if not isinstance(positive, str) and positive in (0, 1):
        names = [str(int(positive)), str(bool(positive)).lower(), str(bool(positive))]
    found = next((name for name in names if name in classes), None)
    if found is None:
        what = f"label.positive is {positive!r}, the classes are {classes[0]!r} and {classes[1]!r}"
        raise _refused(spec, what, "name one of them")
    return found


def _refuse_missing(values: pd.Series, spec: ModelSpec) -> None:
    missing = int(values.isna().sum())
    if missing:
        what = f"{missing:,} of {len(values):,} rows have no label"
        raise _refused(spec, what, "rows without a label can't be trained on or judged")


def _refused(spec: ModelSpec, what: str, fix: str) -> InputError:
    return InputError(Problem(f"label {spec.label.column!r}", what, fix))
