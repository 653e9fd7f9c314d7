"""Train one booster: the same inputs give the same bytes, whatever the number of threads.

The trees come out of sums of float32 gradients in float64, which are exact for all but labels of a
very wide range, so threads don't change them: equal to the byte for 1, 2, 3 and 4 threads on 300k
rows of each objective, heavy-tailed labels included. A metric over many rows may differ in its last
digits; see ``Watch``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xgboost as xgb

from perennial.contracts.errors import PerennialError
from perennial.contracts.features import FeatureSchema
from perennial.contracts.metrics import METRICS
from perennial.learning.constraints import check_constraints, positional
from perennial.learning.matrices import MAX_BIN, Fitting, Matrices, quantised_for_fitting
from perennial.learning.metrics import OneAgainstRest
from perennial.spec import ModelSpec
from perennial.spec.parameters import Parameter

_OBJECTIVES = {
    "binary": "binary:logistic",
    "multiclass": "multi:softprob",
    "regression": "reg:squarederror",
}

_PLACES = re.compile(r"^(?:(?:- )?\[[^]]*\].*?:(?:\s+|$))+")
"""Where XGBoost's errors come from, such as ``[time] file:line:`` or ``- [file:line|time]:``."""


def train_booster(
    matrices: Matrices,
    spec: ModelSpec,
    params: Mapping[str, Parameter],
    rounds: int,
    threads: int,
    part: Fitting = "train",
) -> xgb.Booster:
    """A booster of exactly ``rounds`` rounds, fitted to one part or to two.

    ``params`` are what tuning found; ``training.params`` win over them. Raises PerennialError with
    XGBoost's reason when it can't train.
    """
    settings = booster_params(matrices.schema, spec, params, threads)
    try:
        rows = quantised_for_fitting(matrices, part, settings["max_bin"], threads)
        return xgb.train(settings, rows, rounds, verbose_eval=False)
    except xgb.core.XGBoostError as error:
        raise PerennialError(f"XGBoost can't train: {first_line(error)}") from None


def booster_params(
    schema: FeatureSchema, spec: ModelSpec, params: Mapping[str, Parameter], threads: int
) -> dict[str, Any]:
    """All of XGBoost's parameters for a model; ``base_score`` and the rest are its own defaults.

    Raises InputError when constraints are not of the schema's features.
    """
    check_constraints(spec, schema)
    settings: dict[str, Any] = {
        "max_bin": MAX_BIN,
        **params,
        **positional(spec.training.params, schema),
        "objective": _OBJECTIVES[spec.objective],
        "tree_method": "hist",
        "device": spec.training.device,
        "seed": spec.training.seed,
        "nthread": threads,
        "verbosity": 0,
    }
    if spec.objective == "multiclass":
        assert schema.classes is not None
        settings["num_class"] = len(schema.classes)
    if settings.get("sampling_method") == "gradient_based" and spec.training.device == "cpu":
        settings["nthread"] = 1  # each thread draws rows of its own: other threads, other trees
    if own_metric(spec) is None:
        settings["eval_metric"] = eval_metric(spec)
    else:
        settings["disable_default_eval_metric"] = True
    return settings


def eval_metric(spec: ModelSpec) -> str:
    """XGBoost's name for the metric that trials are ranked by."""
    name = METRICS[spec.metric].xgboost
    assert name is not None, f"{spec.metric} can't rank trials; the spec refuses it"
    return "mlogloss" if (spec.objective, name) == ("multiclass", "logloss") else name


def own_metric(spec: ModelSpec) -> Callable[[np.ndarray, xgb.DMatrix], tuple[str, float]] | None:
    """What XGBoost is to rank trials by where it means another thing by the metric's name, else
    None: its AUC of several classes weighs each by its rows, so that rare ones hardly count.
    XGBoost hands the value on with six decimals."""
    if (spec.objective, spec.metric) != ("multiclass", "roc_auc"):
        return None

    def metric(predictions: np.ndarray, rows: xgb.DMatrix) -> tuple[str, float]:
        if not np.isfinite(predictions).all():
            return "roc_auc", float("nan")
        labels = rows.get_label()
        auc = OneAgainstRest(labels, predictions.astype(np.float64))
        return "roc_auc", float(auc(np.ones((1, len(labels))))[0, 0])

    return metric


def booster_bytes(booster: xgb.Booster) -> bytes:
    """The trees in XGBoost's binary JSON: no parameter of the machine is in it."""
    return bytes(booster.save_raw("ubj"))


def load_booster(content: bytes) -> xgb.Booster:
    """A booster from ``booster_bytes``, on the CPU."""
    booster = xgb.Booster({"device": "cpu", "verbosity": 0})
    booster.load_model(bytearray(content))
    return booster


def predict(booster: xgb.Booster, x: np.ndarray, schema: FeatureSchema) -> np.ndarray:
    """float32 predictions for a float32 matrix (rows, features).

    Binary (rows,) probability of the positive class, multiclass (rows, classes), regression (rows,)
    values.
    """
    if not len(x):
        missing = np.full((1, len(schema.features)), np.nan, dtype=np.float32)
        return predict(booster, missing, schema)[:0]
    values: np.ndarray = booster.inplace_predict(x, missing=np.nan)
    return values


def importance(booster: xgb.Booster, schema: FeatureSchema) -> dict[str, float]:
    """Each feature's share of the gain of all splits, the largest first; features without a split
    are 0. The shares sum to 1 unless there is no split at all."""
    gains = booster.get_score(importance_type="total_gain")
    names = booster.feature_names or [f"f{i}" for i in range(len(schema.features))]
    total = sum(gains.values()) or 1.0
    shares = {
        feature.name: float(gains.get(name, 0.0)) / total
        for feature, name in zip(schema.features, names, strict=True)
    }
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def first_line(error: Exception) -> str:
    """An XGBoost error without its places in the source and its stack trace: the first line that
    is more than a place."""
    lines = str(error).strip().splitlines()
    return next(filter(None, (_PLACES.sub("", line) for line in lines)), "no reason told")


class Watch(xgb.callback.TrainingCallback):  # type: ignore[misc]  # xgboost has no types
    """Follows the validation metric and ends a training: without a gain, or when told.

    ``look`` is called after every round with the watch itself, and returns why to stop, or "".
    ``losses`` holds the metric of every round, negated where greater is better, ``best_losses`` the
    least so far, ``stopped`` the reason. Values are rounded to ten digits: a sum over many rows
    depends on the number of threads in its last digits, and no decision may.
    """

    def __init__(self, spec: ModelSpec, look: Callable[[Watch], str] = lambda _: "") -> None:
        super().__init__()
        self._metric = spec.metric
        self._sign = -1.0 if METRICS[spec.metric].greater_is_better else 1.0
        self._patience = spec.training.early_stopping_rounds
        self._look = look
        self.losses: list[float] = []
        self.best_losses: list[float] = []
        self.best_rounds = 0
        self.stopped = ""

    def after_iteration(self, _model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
        (values,) = evals_log["validation"].values()
        loss = float(f"{self._sign * values[-1]:.10g}")
        if not np.isfinite(loss):
            raise PerennialError(
                f"{self._metric} on the validation part is {values[-1]} after {epoch + 1} rounds: "
                "it needs finite labels, and for a ranking metric rows of every class"
            )
        if not self.losses or loss < self.best_losses[-1]:
            self.best_rounds = epoch + 1
        self.losses.append(loss)
        self.best_losses.append(min(loss, self.best_losses[-1] if self.best_losses else loss))
        if epoch + 1 - self.best_rounds >= self._patience:
            self.stopped = "early stopping"
        else:
            self.stopped = self._look(self)
        return bool(self.stopped)

    @property
    def best_value(self) -> float:
        """The best value of the metric, in its own direction."""
        return self._sign * self.best_losses[-1]
