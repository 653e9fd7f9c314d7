"""model.yaml as a schema: the public interface a user writes. Units are in the values ("14d").

``FORMAT`` counts incompatible changes of the file; ``reading.py`` upgrades older ones.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    WithJsonSchema,
    model_validator,
)

from perennial.contracts.features import ColumnType
from perennial.contracts.metrics import METRICS, Objective, metrics_for

FORMAT = 1

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d|w)$")


def _parse_duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{value!r} is not a duration; write a number and a unit: 90s, 10m, 6h, 2d, 1w"
        )
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def format_duration(value: timedelta) -> str:
    """The shortest way to write a duration in model.yaml: ``timedelta(days=14)`` is ``2w``."""
    seconds = value.total_seconds()
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{seconds:g}s"


Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_duration),
    PlainSerializer(format_duration),
    WithJsonSchema(
        {"type": "string", "pattern": _DURATION.pattern, "examples": ["90s", "10m", "6h", "14d"]}
    ),
]
Share = Annotated[float, Field(ge=0, le=1)]


def _parse_extent(value: object) -> timedelta | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 < value < 1:
            raise ValueError(f"a share of rows lies between 0 and 1, not {value:g}")
        return float(value)
    parsed = _parse_duration(value)
    assert isinstance(parsed, timedelta)
    if not parsed:
        raise ValueError("this part is empty; the gates and early stopping need rows")
    return parsed


Extent = Annotated[
    timedelta | float,
    PlainValidator(_parse_extent),
    PlainSerializer(lambda v: format_duration(v) if isinstance(v, timedelta) else v),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _DURATION.pattern},
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            ]
        }
    ),
]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
MetricName = Annotated[str, Field(json_schema_extra={"enum": sorted(METRICS)})]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values don't change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Source(Section):
    """Where rows come from."""

    kind: Literal["csv", "parquet", "delta", "sql"]
    uri: str
    """A file, folder or glob, relative to the project; `s3://…`; for sql an SQLAlchemy URL without
    a password, or `env:NAME` to read it from the environment."""
    query: str | None = None
    """sql only: the table's name or a SELECT statement."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """csv only."""
    event_time: str | None = None
    """Column with the time of the event; naive times are UTC. Without it every ingestion is a
    snapshot of the whole source."""
    entity: tuple[str, ...] = ()
    """Columns that identify a row together with the event time. Without them a row is identified by
    the event time and all its columns but the label."""
    lateness: Duration = timedelta(days=30)
    """How far behind the newest row already ingested a late row may come and still be read."""


class Label(Section):
    """What is predicted."""

    column: str
    delay: Duration = timedelta(0)
    """How long after the event its label becomes known."""
    positive: str | int | bool | None = None
    """binary only: the value that counts as positive; by default the greater of the two."""


class Column(Section):
    """What a column may hold; a row that breaks it goes to quarantine with the reason."""

    type: ColumnType
    min: float | None = None
    """Inclusive."""
    max: float | None = None
    """Inclusive."""
    nullable: bool = True
    allowed: tuple[str, ...] | None = None
    """The allowed values of a category, string or integer column."""
    feature: bool = True
    """Whether the column itself is given to the booster; features.py may read it either way."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        if self.type not in ("float", "integer") and (self.min is not None or self.max is not None):
            raise ValueError(f"min and max need a numeric column, this is {self.type}")
        if self.type in ("float", "boolean", "datetime") and self.allowed is not None:
            raise ValueError(
                f"allowed values need a category, string or integer column, this is {self.type}"
            )
        if (
            self.feature
            and self.type in ("string", "datetime")
            and "feature" in self.model_fields_set
        ):
            raise ValueError(
                f"a {self.type} column can't be a feature; make it a category, or use features.py"
            )
        return self


class Quarantine(Section):
    """What happens to rows that break a rule."""

    max_share: Share = 0.02
    """Above this share of bad rows in a batch nothing is ingested and the run fails."""


class Split(Section):
    """How rows are divided into training, validation (tuning) and test (gates)."""

    kind: Literal["time", "group", "stratified", "random"] = "time"
    validation: Extent = timedelta(days=14)
    """A duration for a time split, a share of rows (of groups) otherwise."""
    test: Extent = timedelta(days=14)
    gap: Duration = timedelta(0)
    """time only: rows left out before the validation and before the test part."""
    group: str | None = None
    """group only: rows with equal values stay in one part."""
    window: Duration | None = None
    """time only: train on at most this much time before the validation part; by default on all."""
    seed: int = 7

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key in ("validation", "test"):
            value = getattr(self, key)
            if self.kind == "time" and not isinstance(value, timedelta):
                raise ValueError(f"{key} of a time split is a duration such as 14d, not {value}")
            if self.kind != "time" and isinstance(value, timedelta):
                raise ValueError(f"{key} of a {self.kind} split is a share of rows such as 0.2")
        if (
            isinstance(self.validation, float)
            and isinstance(self.test, float)
            and self.validation + self.test >= 1
        ):
            raise ValueError("validation and test leave nothing to train on")
        if (self.kind == "group") != (self.group is not None):
            raise ValueError("group names the column of a group split, and only of one")
        if self.kind != "time" and (self.window is not None or self.gap):
            raise ValueError("gap and window belong to a time split")
        return self


class Range(Section):
    """What a parameter is searched over, both ends included: `[low, high]` or the keys."""

    low: int | float
    high: int | float
    log: bool = False
    """Search the logarithm."""

    @property
    def whole(self) -> bool:
        """Both ends are whole numbers, so every value tried is."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) == 2:
            return {"low": value[0], "high": value[1]}
        if not isinstance(value, dict | Range):
            raise ValueError(f"{value!r} is not a range; write [low, high] or {{low, high, log}}")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, not at {self.low:g}")
        return self


TUNABLE = (
    "learning_rate", "max_depth", "max_leaves", "min_child_weight", "subsample", "colsample_bytree",
    "colsample_bylevel", "colsample_bynode", "reg_alpha", "reg_lambda", "gamma", "max_bin",
    "max_delta_step", "max_cat_to_onehot", "max_cat_threshold", "scale_pos_weight",
)  # fmt: skip

DEFAULT_SPACE: dict[str, Range] = {
    "learning_rate": Range(low=0.03, high=0.3, log=True),
    "max_depth": Range(low=3, high=10),
    "min_child_weight": Range(low=1, high=100, log=True),
    "subsample": Range(low=0.5, high=1.0),
    "colsample_bytree": Range(low=0.4, high=1.0),
    "reg_lambda": Range(low=0.1, high=30, log=True),
}


class Training(Section):
    """How one booster is trained."""

    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    rounds: Annotated[int, Field(ge=1, le=100_000)] = 400
    """Most boosting rounds; early stopping on the validation part finds the number."""
    early_stopping_rounds: Annotated[int, Field(ge=1)] = 25
    refit: bool = True
    """Train the final booster on training and validation rows, with the number of rounds found."""
    params: dict[str, float | int | str] = {}
    """Fixed XGBoost parameters, taken out of the search."""
    seed: int = 7


class Tuning(Section):
    """The Optuna study."""

    trials: Annotated[int, Field(ge=1)] = 40
    timeout: Duration = timedelta(minutes=30)
    metric: MetricName = ""
    """What trials are ranked by; by default logloss or rmse."""
    space: dict[str, Range] = DEFAULT_SPACE
    """`name: [low, high]` (whole numbers stay whole) or `name: {low, high, log}`."""
    batch: Annotated[int, Field(ge=1, le=256)] = 4
    """Trials asked for at a time and run side by side. Part of the result: the same batch gives the
    same study whatever the number of cores."""
    warm_start: Annotated[int, Field(ge=0)] = 3
    """How many former versions' best parameters are tried first."""
    prune: bool = True
    """Stop trials that are worse than the median of the finished ones at the same round."""


class Floor(Section):
    """The metric on the test part must reach an absolute value."""

    metric: MetricName
    min: float | None = None
    max: float | None = None
    confidence: Annotated[float, Field(gt=0.5, lt=1)] | None = None
    """Ask that the whole one-sided interval clears the limit, not just the estimate."""
    min_rows: Annotated[int, Field(ge=1)] = 50
    """With fewer test rows the gate is inconclusive."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.min is None) == (self.max is None):
            raise ValueError("give either min or max")
        return self


class Beats(Section):
    """The candidate must beat the champion on the same rows (paired bootstrap)."""

    beats: Literal["champion"]
    metric: MetricName
    min_gain: float = 0.0
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    min_rows: Annotated[int, Field(ge=1)] = 50
    first_version: Literal["passed", "inconclusive"] = "inconclusive"
    """The verdict without a champion: `passed` lets the first version in on the other gates."""


class Slices(Section):
    """No level of these columns may get clearly worse than under the champion."""

    slices: Annotated[tuple[str, ...], Field(min_length=1)]
    metric: MetricName
    max_regression: Annotated[float, Field(ge=0)]
    """In the metric's unit; a slice fails when the whole interval of its loss is beyond it."""
    min_rows: Annotated[int, Field(ge=1)] = 200
    """Smaller slices are reported, not judged."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    first_version: Literal["passed", "inconclusive"] = "passed"


class Latency(Section):
    """One-row prediction in a fresh process must be quick enough."""

    p99_ms: Annotated[float, Field(gt=0)]


def gate_kind(value: object) -> str:
    """Which gate a mapping means, told by its key, so that only that one's mistakes are shown."""
    if isinstance(value, Section):
        return type(value).__name__.lower()
    keys = value if isinstance(value, dict) else {}
    return next(
        (
            k
            for t, k in (("beats", "beats"), ("slices", "slices"), ("p99_ms", "latency"))
            if t in keys
        ),
        "floor",
    )


Gate = Annotated[
    Annotated[Floor, Tag("floor")]
    | Annotated[Beats, Tag("beats")]
    | Annotated[Slices, Tag("slices")]
    | Annotated[Latency, Tag("latency")],
    Discriminator(gate_kind),
]


class Drift(Section):
    """When the world counts as changed."""

    window: Duration = timedelta(days=7)
    max_drifted_share: Share = 0.3
    false_alarm_rate: Annotated[float, Field(gt=0, lt=1)] = 0.01


class Retrain(Section):
    """What starts a retraining."""

    schedule: str | None = None
    """Cron, UTC."""
    on: tuple[Literal["drift", "performance", "data"], ...] = ()
    cooldown: Duration = timedelta(hours=6)

    @model_validator(mode="after")
    def _cron(self) -> Self:
        if self.schedule is not None and len(self.schedule.split()) != 5:
            raise ValueError(f"{self.schedule!r} is not a cron expression of five fields")
        return self


class Guards(Section):
    error_rate: Share | None = None
    p99_ms: Annotated[float, Field(gt=0)] | None = None


class Rollout(Section):
    """How a registered version takes over traffic."""

    strategy: Literal["shadow", "canary", "blue_green", "ab_test"] = "canary"
    steps: tuple[Annotated[int, Field(ge=1, le=100)], ...] = (5, 25, 50, 100)
    bake: Duration = timedelta(minutes=10)
    guards: Guards = Guards()


class ModelSpec(Section):
    """A model: its data, features, training, gates and life in production."""

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    """Version of this file format."""
    name: Name
    description: str = ""
    objective: Objective
    source: Source
    label: Label
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    """Every column that is read. The label may be left out."""
    features: tuple[str, ...] | None = None
    """What the booster reads; by default every column with `feature: true` and every public
    function of features.py."""
    quarantine: Quarantine = Quarantine()
    split: Split = Split()
    training: Training = Training()
    tuning: Tuning = Tuning()
    gates: tuple[Gate, ...] = ()
    drift: Drift = Drift()
    retrain: Retrain = Retrain()
    rollout: Rollout = Rollout()

    @property
    def metric(self) -> str:
        """The metric trials are ranked by."""
        return self.tuning.metric or ("rmse" if self.objective == "regression" else "logloss")

    @property
    def identity(self) -> tuple[str, ...]:
        """Columns that identify a row: entity + event time, or every column but the label.

        Empty for a source without event time and entity (a snapshot)."""
        if self.source.event_time is None:
            return self.source.entity
        entity = self.source.entity or tuple(
            c for c in self.columns if c not in (self.label.column, self.source.event_time)
        )
        return (self.source.event_time, *entity)

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """Raw columns that are features themselves, in the order of the file."""
        skip = {self.label.column, self.source.event_time}
        return tuple(
            name
            for name, column in self.columns.items()
            if column.feature and column.type not in ("string", "datetime") and name not in skip
        )

    @model_validator(mode="after")
    def _references(self) -> Self:
        """Names that one section uses must exist in another; all mistakes together."""
        problems = list(_reference_problems(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _reference_problems(spec: ModelSpec) -> Iterator[str]:
    known = {*spec.columns, spec.label.column}
    if spec.source.event_time:
        known.add(spec.source.event_time)

    def missing(path: str, column: str) -> Iterator[str]:
        if column not in known:
            yield f"{path}: no column {column!r}{nearest(column, known)}"

    for i, column in enumerate(spec.source.entity):
        yield from missing(f"source.entity.{i}", column)
    if spec.split.group is not None:
        yield from missing("split.group", spec.split.group)
    if spec.split.kind == "time" and spec.source.event_time is None:
        yield "split.kind: a time split needs source.event_time; use stratified, group or random"
    if spec.split.kind == "stratified" and spec.objective == "regression":
        yield "split.kind: a regression has no classes to stratify by; use random or group"
    if spec.label.positive is not None and spec.objective != "binary":
        yield f"label.positive: only a binary model has a positive class, this is {spec.objective}"
    if spec.label.column == spec.source.event_time:
        yield "label.column: the label can't be the event time"
    if spec.source.kind == "sql" and not spec.source.query:
        yield "source.query: an sql source needs a table's name or a SELECT"
    if spec.source.kind != "sql" and spec.source.query:
        yield f"source.query: only an sql source has a query, this is {spec.source.kind}"
    if spec.label.column in (spec.features or ()):
        yield "features: the label can't be a feature"
    time_column = spec.columns.get(spec.source.event_time or "")
    if time_column is not None and time_column.type != "datetime":
        yield (
            f"columns.{spec.source.event_time}.type: "
            f"the event time is a datetime, not {time_column.type}"
        )

    valid = metrics_for(spec.objective)
    tunable = {name for name, m in valid.items() if m.xgboost}
    if spec.tuning.metric and spec.tuning.metric not in tunable:
        yield (
            f"tuning.metric: {spec.tuning.metric!r} can't rank trials of a {spec.objective} model; "
            f"use one of {', '.join(sorted(tunable))}"
        )
    for name in spec.tuning.space:
        if name not in TUNABLE:
            yield f"tuning.space.{name}: not a tunable parameter{nearest(name, TUNABLE)}"
    for i, gate in enumerate(spec.gates):
        if isinstance(gate, Latency):
            continue
        if gate.metric not in valid:
            yield (
                f"gates.{i}.metric: {gate.metric!r} is no metric of a {spec.objective} model; "
                f"use one of {', '.join(valid)}"
            )
        if isinstance(gate, Slices):
            for column in gate.slices:
                yield from missing(f"gates.{i}.slices", column)


def nearest(key: str, valid: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the valid key most like ``key``, or nothing."""
    close = difflib.get_close_matches(key, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
