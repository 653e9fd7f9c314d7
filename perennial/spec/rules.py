"""Rules across the sections of a model.yaml: what one section names must exist in another.

Each rule reads as few sections as it can: a file with other mistakes is checked by those rules
whose sections are right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from perennial.contracts.metrics import metrics_for
from perennial.spec.ensemble import member_of
from perennial.spec.gates import Latency, Slices
from perennial.spec.values import Mistake, format_duration, nearest, repeated

if TYPE_CHECKING:
    from perennial.spec.schema import ModelSpec


OURS = "_perennial_"
"""What the names begin with that we put beside a model's columns; no column's does."""
LOG_COLUMNS = frozenset(
    {
        "_id", "_request_id", "_time", "_version", "_arm", "_latency_ms", "_compute_ms",
        "_prediction", "_class", "_probabilities", "_date", "_received_at", "_label",
        "_label_metric_0", "_happened",
    }
)  # fmt: skip
"""Columns of the prediction log, of its labels and of both together that inputs lie beside: one of
the same name would be taken for them, so no column of a model has it."""


def why_ours(name: str) -> str:
    """Why no column has this name, in whatever capitals; "" when one may."""
    if name.casefold().startswith(OURS):
        return f"names that begin with {OURS} are Perennial's own"
    if name.casefold() in LOG_COLUMNS:
        return f"{name.casefold()!r} is a column of the prediction log's own"
    return ""


def twins(names: Iterable[str]) -> dict[str, str]:
    """The names that differ from an earlier one in capitals only, which tables and SQL don't tell
    apart, and that earlier one."""
    first: dict[str, str] = {}
    found = {name: first.setdefault(name.casefold(), name) for name in names}
    return {name: other for name, other in found.items() if other != name}


def _names(spec: ModelSpec) -> Iterator[Mistake]:
    named = {name: f"columns.{name}" for name in spec.columns}
    named.setdefault(spec.label.column, "label.column")
    if spec.source.event_time is not None:
        named.setdefault(spec.source.event_time, "source.event_time")
    other = twins(named)
    for name, key in named.items():
        if name in other:
            yield (
                key,
                f"{name!r} and {other[name]!r} differ in capitals only, which tables don't tell "
                "apart; rename one of them, or leave it out",
            )
        if why := why_ours(name):
            yield key, f"{why}; rename {name!r} in the data and in model.yaml, and train"


def _unknown(spec: ModelSpec, key: str, column: str) -> Iterator[Mistake]:
    known = {*spec.columns, spec.label.column, spec.source.event_time or spec.label.column}
    if column not in known:
        yield key, f"no column {column!r}{nearest(column, sorted(known))}"


def _entity(spec: ModelSpec) -> Iterator[Mistake]:
    for i, column in enumerate(spec.source.entity):
        if column == spec.label.column:
            yield f"source.entity.{i}", "the label can't identify a row: it is not known at first"
        else:
            yield from _unknown(spec, f"source.entity.{i}", column)


def _event_time(spec: ModelSpec) -> Iterator[Mistake]:
    time = spec.source.event_time
    column = spec.columns.get(time or "")
    if time is None or column is None:
        return
    if column.type != "datetime":
        yield f"columns.{time}.type", f"the event time is a datetime, not {column.type}"
    if column.nullable and "nullable" in column.model_fields_set:
        yield f"columns.{time}.nullable", "the event time is never missing"


def _label_is_no_input(spec: ModelSpec) -> Iterator[Mistake]:
    label = spec.label.column
    if label == spec.source.event_time:
        yield "label.column", "the label can't be the event time"
    column = spec.columns.get(label)
    if column is not None and column.feature and "feature" in column.model_fields_set:
        yield f"columns.{label}.feature", "the label can't be a feature"


def _label_type(spec: ModelSpec) -> Iterator[Mistake]:
    column = spec.columns.get(spec.label.column)
    if column is None:
        return
    key = f"columns.{spec.label.column}.type"
    if spec.objective == "regression" and column.type not in ("float", "integer"):
        yield key, f"a regression predicts a float or an integer, not a {column.type}"
    if spec.objective != "regression" and column.type == "datetime":
        yield key, "the label of a classifier can't be a datetime"


def _label_delay(spec: ModelSpec) -> Iterator[Mistake]:
    if spec.label.delay and spec.source.event_time is None:
        yield "label.delay", "a label is late only after an event; name source.event_time"


def _positive(spec: ModelSpec) -> Iterator[Mistake]:
    positive = spec.label.positive
    if positive is None:
        return
    if spec.objective != "binary":
        yield "label.positive", f"only a binary model has a positive class, not a {spec.objective}"
        return
    column = spec.columns.get(spec.label.column)
    allowed = column.allowed if column is not None else None
    if allowed and str(positive) not in allowed:
        yield (
            "label.positive",
            f"{positive!r} is none of the label's allowed values {', '.join(allowed)}",
        )


def _features(spec: ModelSpec) -> Iterator[Mistake]:
    features = spec.features or ()
    yield from repeated(features, "features")
    for i, name in enumerate(features):
        column = spec.columns.get(name)
        if name == spec.label.column:
            yield f"features.{i}", "the label can't be a feature"
        elif name == spec.source.event_time:
            yield f"features.{i}", "the event time can't be a feature; use features.py"
        elif column is not None and column.type in ("string", "datetime"):
            yield (
                f"features.{i}",
                f"a {column.type} column can't be a feature; make it a category, "
                "or use features.py",
            )
        elif column is not None and not column.feature:
            yield f"features.{i}", f"columns.{name} says feature: false"


def _split(spec: ModelSpec) -> Iterator[Mistake]:
    if spec.split.kind == "time" and spec.source.event_time is None:
        yield (
            "split.kind",
            "a time split needs source.event_time; use stratified, group or random",
        )
    if spec.split.kind == "stratified" and spec.objective == "regression":
        yield "split.kind", "a regression has no classes to stratify by; use random or group"


def _group(spec: ModelSpec) -> Iterator[Mistake]:
    group = spec.split.group
    if group is not None and group == spec.label.column:
        yield "split.group", "groups of equal labels would leave classes out of a part"
    elif group is not None:
        yield from _unknown(spec, "split.group", group)


def _tuning_metric(spec: ModelSpec) -> Iterator[Mistake]:
    ranking = [name for name, m in metrics_for(spec.objective).items() if m.xgboost]
    metric = spec.tuning.metric
    if metric and metric not in ranking:
        yield (
            "tuning.metric",
            f"{metric!r} can't rank trials of a {spec.objective} model; "
            f"use one of {', '.join(ranking)}",
        )


def _class_weight(spec: ModelSpec) -> Iterator[Mistake]:
    if spec.objective == "binary":
        return
    for key, names in (
        ("tuning.space", spec.tuning.space),
        ("training.params", spec.training.params),
    ):
        if "scale_pos_weight" in names:
            yield (
                f"{key}.scale_pos_weight",
                f"only a binary model has a positive class, not a {spec.objective}",
            )


def _base_score(spec: ModelSpec) -> Iterator[Mistake]:
    """XGBoost takes the logit of a classifier's; for several classes it reads none."""
    value = spec.training.params.get("base_score")
    if not isinstance(value, int | float):
        return
    if spec.objective == "multiclass":
        yield "training.params.base_score", "a multiclass model has none; leave it out"
    elif spec.objective == "binary" and (value <= 0 or value >= 1):
        yield "training.params.base_score", f"a probability, above 0 and below 1, not {value:g}"


def _gate_metrics(spec: ModelSpec) -> Iterator[Mistake]:
    valid = metrics_for(spec.objective)
    for i, gate in enumerate(spec.gates):
        metric = None if isinstance(gate, Latency) else getattr(gate, "metric", None)
        if metric is not None and metric not in valid:
            yield (
                f"gates.{i}.metric",
                f"{metric!r} is no metric of a {spec.objective} model; "
                f"use one of {', '.join(valid)}",
            )


def _slice_columns(spec: ModelSpec) -> Iterator[Mistake]:
    for i, gate in enumerate(spec.gates):
        for k, name in enumerate(getattr(gate, "slices", ()) if isinstance(gate, Slices) else ()):
            key = f"gates.{i}.slices.{k}"
            column = spec.columns.get(name)
            if name == spec.label.column:
                yield key, "a slice of one label has nothing to tell apart"
            elif name == spec.source.event_time:
                yield key, "nearly every event time is a slice of its own"
            elif column is not None and getattr(column, "type", "") in ("float", "datetime"):
                yield key, f"a {column.type} column has no levels to slice by"
            else:
                yield from _unknown(spec, key, name)


def _log_columns(spec: ModelSpec) -> Iterator[Mistake]:
    for key in ("hash", "omit"):
        for i, name in enumerate(getattr(spec.log, key)):
            place, column = f"log.{key}.{i}", spec.columns.get(name)
            if name == spec.label.column:
                yield place, "the label is no input of a prediction"
            elif name == spec.source.event_time:
                yield place, "the event time is kept as it is: labels find their rows by it"
            elif key == "omit" and name in spec.source.entity:
                yield place, "labels find their rows by the entity; hash it instead"
            elif key == "hash" and column is not None and column.type not in _HASHED:
                yield place, f"a {column.type} column can't be hashed; leave it out with log.omit"
            else:
                yield from _unknown(spec, place, name)


def _guard_metric(spec: ModelSpec) -> Iterator[Mistake]:
    metric = spec.rollout.guards.metric
    valid = _LOSSES[spec.objective]
    if metric is not None and metric.name not in valid:
        yield (
            "rollout.guards.metric.name",
            f"{metric.name!r} is no loss of a {spec.objective} model; use {' or '.join(valid)}",
        )


def _guard_business(spec: ModelSpec) -> Iterator[Mistake]:
    for i, guard in enumerate(spec.rollout.guards.business):
        key, name = f"rollout.guards.business.{i}.column", guard.column
        column = spec.columns.get(name)
        if name == spec.label.column:
            if spec.objective != "regression":
                yield (
                    key,
                    f"the label of a {spec.objective} model is a class, not a number; send the "
                    "number with the labels, under another name",
                )
        elif name == spec.source.event_time:
            yield key, "the event time is not a number"
        elif column is not None and column.type not in _NUMBERS:
            yield (
                key,
                f"a {column.type} column is not a number; name a float, integer or boolean "
                "column, or a number that comes with the labels",
            )
        elif column is not None:
            for left_out in ("hash", "omit"):
                if name in getattr(spec.log, left_out):
                    yield key, f"log.{left_out} keeps the column's numbers out of the log"


def _guard_labels(spec: ModelSpec) -> Iterator[Mistake]:
    delay, timeout = spec.label.delay, spec.rollout.timeout
    if spec.rollout.guards.by_labels and delay >= timeout:
        yield (
            "rollout.timeout",
            f"labels come {format_duration(delay)} after the event (label.delay), but a step ends "
            f"after {format_duration(timeout)}, before a guard by labels has any; make it longer",
        )


def _guard_log(spec: ModelSpec) -> Iterator[Mistake]:
    if spec.rollout.guards.given and not spec.log.enabled:
        yield "log.enabled", "rollout.guards are measured on the log; without it none ever is"


_LOSSES = {
    "binary": ("logloss", "brier"),
    "multiclass": ("logloss",),
    "regression": ("absolute_error", "squared_error"),
}


def _ensemble(spec: ModelSpec) -> Iterator[Mistake]:
    ensemble = spec.ensemble
    if ensemble is None:
        return
    for i, name in enumerate(ensemble.of):
        if member_of(name)[0] == spec.name:
            yield f"ensemble.of.{i}", "a model can't be made of itself"
    if spec.features is not None:
        yield "features", "an ensemble's features are its members' predictions; leave this out"
    if ensemble.overlap == "drop" and spec.source.event_time is None:
        yield (
            "ensemble.overlap",
            "rows that members were fitted on are told by their event time; name "
            "source.event_time, or write keep and take the figures for flattering",
        )


_HASHED = ("category", "string", "integer")
_NUMBERS = ("float", "integer", "boolean")

MODEL_RULES = (
    _names,
    _entity,
    _event_time,
    _label_is_no_input,
    _label_type,
    _label_delay,
    _positive,
    _features,
    _split,
    _group,
    _tuning_metric,
    _class_weight,
    _base_score,
    _gate_metrics,
    _slice_columns,
    _log_columns,
    _guard_metric,
    _guard_business,
    _guard_labels,
    _guard_log,
    _ensemble,
)
