"""model.yaml as a schema: the public interface a user writes. Units are in the values ("14d").

``FORMAT`` counts incompatible changes of the file; ``reading.py`` upgrades older ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from perennial.contracts.metrics import Objective
from perennial.spec.compute import Compute
from perennial.spec.ensemble import Ensemble
from perennial.spec.gates import Beats, Floor, Gate, Latency, Slices, gate_kind
from perennial.spec.inputs import Column, Label, Quarantine, Source, Split
from perennial.spec.parameters import (
    DEFAULT_SPACE,
    TUNABLE,
    Range,
    Setting,
    number_mistakes,
    parameter_hint,
    setting_mistakes,
)
from perennial.spec.production import Drift, Guards, Log, Retrain, Rollout
from perennial.spec.rules import MODEL_RULES
from perennial.spec.values import (
    Device,
    Flag,
    MetricName,
    Mistake,
    Name,
    PositiveDuration,
    Section,
    Seed,
    Text,
    Whole,
    format_duration,
    nearest,
)

__all__ = [
    "DEFAULT_SPACE", "FORMAT", "TUNABLE", "Beats", "Column", "Compute", "Drift", "Ensemble",
    "Floor", "Gate", "Guards", "Label", "Latency", "Log", "ModelSpec", "Quarantine", "Range",
    "Retrain", "Rollout", "Section", "Slices", "Source", "Split", "Training", "Tuning",
    "format_duration", "gate_kind", "nearest",
]  # fmt: skip

FORMAT = 1


def _known_params(training: Training) -> Iterator[Mistake]:
    for name, value in training.params.items():
        for what in setting_mistakes(name, value):
            yield f"params.{name}", what


class Training(Section):
    """How one booster is trained."""

    device: Device = "cpu"
    """`cpu`, `cuda`, or `cuda:0` for the first of several."""
    rounds: Annotated[Whole, Field(ge=1, le=100_000)] = 400
    """Most boosting rounds; early stopping on the validation part finds the number."""
    early_stopping_rounds: Annotated[Whole, Field(ge=1)] = 25
    """How many rounds without a gain end the training."""
    refit: Flag = True
    """Train the final booster on training and validation rows, with the number of rounds found."""
    params: dict[str, Setting] = Field(default_factory=dict)
    """Fixed XGBoost parameters, taken out of the search."""
    seed: Seed = 7
    """Of the booster, for subsample and colsample."""

    rules = (_known_params,)

    def of_booster(self, found: Mapping[str, float | int | str]) -> dict[str, float | int | str]:
        """All that a booster was trained with beside constraints: what a study ``found``, and what
        ``params`` fix, which win."""
        fixed = {k: v for k, v in self.params.items() if isinstance(v, int | float | str)}
        return {**found, **fixed}


def _known_parameters(tuning: Tuning) -> Iterator[Mistake]:
    for name in tuning.space:
        if name not in TUNABLE:
            yield f"space.{name}", f"not a tunable parameter{parameter_hint(name, TUNABLE)}"


def _possible_values(tuning: Tuning) -> Iterator[Mistake]:
    for name, ends in tuning.space.items():
        for key, value in (("low", ends.low), ("high", ends.high)):
            for what in number_mistakes(name, value):
                yield f"space.{name}.{key}", what


class Tuning(Section):
    """The Optuna study."""

    trials: Annotated[Whole, Field(ge=1)] = 40
    """How many sets of parameters are tried."""
    timeout: PositiveDuration = timedelta(minutes=30)
    """No trial starts after it."""
    metric: MetricName | None = None
    """What trials are ranked by; by default logloss or rmse."""
    space: dict[str, Range] = DEFAULT_SPACE
    """`name: [low, high]` (whole numbers stay whole) or `name: {low, high, log}`."""
    batch: Annotated[Whole, Field(ge=1, le=256)] = 4
    """Trials asked for at a time and run side by side. Part of the result: the same batch gives the
    same study whatever the number of cores."""
    warm_start: Annotated[Whole, Field(ge=0)] = 3
    """How many former versions' best parameters are tried first."""
    prune: Flag = True
    """Stop trials whose learning curve does not lead to the best finished one."""

    rules = (_known_parameters, _possible_values)


class ModelSpec(Section):
    """A model: its data, features, training, gates and life in production."""

    format: Annotated[Whole, Field(ge=1, le=FORMAT)] = FORMAT
    """Version of this file format."""
    name: Name
    """What commands call the model."""
    description: str = ""
    """For people: what a service tells of the model, as its newest version has it."""
    objective: Objective
    """One of two classes, one of several classes, or a number."""
    source: Source
    label: Label
    columns: Annotated[dict[Text, Column], Field(min_length=1)]
    """Every column that is read. The label may be left out. Names differ in more than capitals;
    none begins with `_perennial_`, and none is called like a column of the prediction log's own."""
    features: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """What the booster reads; by default every column with `feature: true` and every public
    function of features.py."""
    ensemble: Ensemble | None = None
    """Makes this a model of other models."""
    quarantine: Quarantine = Quarantine()
    split: Split = Split()
    training: Training = Training()
    tuning: Tuning = Tuning()
    compute: Compute = Compute()
    gates: tuple[Gate, ...] = ()
    """All must pass for a version to be registered."""
    drift: Drift = Drift()
    retrain: Retrain = Retrain()
    rollout: Rollout = Rollout()
    log: Log = Log()

    rules = MODEL_RULES

    @property
    def metric(self) -> str:
        """The metric trials are ranked by."""
        return self.tuning.metric or ("rmse" if self.objective == "regression" else "logloss")

    @property
    def identity(self) -> tuple[str, ...]:
        """Columns that identify a row: event time + entity, or every column but the label.

        Without event time the entity alone; without both empty (a snapshot)."""
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
