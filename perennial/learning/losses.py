"""Direct loss estimation for regressions: a small booster says how large the error will be.

It reads what the model read, and the model's prediction, and is fitted to the losses of holdout
rows (NannyML, Direct Loss Estimation). Here it is a bag of boosters, each fitted to a resample of
the holdout: rows left out of a resample tell how actual losses scatter around estimated ones (out
of bag, Breiman 1996), and the boosters' disagreement what the holdout leaves open.
"""

from __future__ import annotations

import numpy as np
import xgboost as xgb

from perennial.contracts.features import FeatureSchema
from perennial.learning.bootstrap import Scores
from perennial.learning.holdout import Holdout
from perennial.learning.metrics import Array

_BAG = 12
_ROUNDS = 60
# Losses are never negative and scatter more where they are larger: a Tweedie model with a log link
# (variance ~ mean^1.5) keeps their mean, as metrics need.
_PARAMS = {
    "objective": "reg:tweedie",
    "tweedie_variance_power": 1.5,
    "max_depth": 3,
    "learning_rate": 0.1,
    "min_child_weight": 20,
    "tree_method": "hist",
    "verbosity": 0,
}


def estimated_losses(
    holdout: Holdout,
    p: np.ndarray,
    x: np.ndarray,
    schema: FeatureSchema,
    *,
    seed: int,
    replicates: int,
    fixed_rows: bool,
    threads: int,
) -> Scores:
    """rmse and mae of predictions ``p`` (n,) on rows ``x`` (n, features), with replicates.

    The holdout must have ``x``. A model that makes no error there is estimated to make none.
    """
    assert holdout.x is not None
    error = holdout.y - holdout.p
    losses = {"rmse": error**2, "mae": np.abs(error)}
    known, asked = _matrix(holdout.x, holdout.p, schema), _matrix(x, p, schema)
    values: dict[str, float] = {}
    resampled: dict[str, Array] = {}
    for name, loss in losses.items():
        scale = float(loss.mean())
        finish = np.sqrt if name == "rmse" else np.asarray
        if scale == 0:
            values[name], resampled[name] = 0.0, np.zeros(replicates)
            continue
        # The same seed for both: rmse and mae then rest on the same rows.
        point, means = _means(known, loss / scale, asked, seed, replicates, fixed_rows, threads)
        values[name] = float(finish(point * scale))
        resampled[name] = finish(means * scale)
    return Scores(n=len(p), values=values, resampled=resampled)


def _means(
    known: xgb.DMatrix,
    loss: Array,
    asked: xgb.DMatrix,
    seed: int,
    replicates: int,
    fixed_rows: bool,
    threads: int,
) -> tuple[float, Array]:
    """The mean loss expected of the asked rows, and replicates of it."""
    random = np.random.default_rng(seed)
    held, n = len(loss), asked.num_row()
    members = np.empty((_BAG, n))
    total, times = np.zeros(held), np.zeros(held)
    for member in range(_BAG):
        counts = np.bincount(random.integers(0, held, held), minlength=held)
        known.set_label(loss)
        known.set_weight(counts.astype(np.float32))
        booster = xgb.train(_PARAMS | {"nthread": threads}, known, _ROUNDS, verbose_eval=False)
        left_out = counts == 0
        total[left_out] += booster.predict(known)[left_out]
        times[left_out] += 1
        members[member] = booster.predict(asked)
    judged = times > 0
    loss, expected = loss[judged], total[judged] / times[judged]
    ratios, among = loss / expected, len(loss)
    point = float(loss.sum() / expected.sum() * members.mean())
    means = np.empty(replicates)
    for replicate in range(replicates):
        rows = np.arange(n) if fixed_rows else random.integers(0, n, n)
        # Ratios drawn by what was expected have the mean of actual over expected losses: that
        # corrects the level, as in ``point``, and their spread is the noise.
        judged_rows = random.integers(0, among, among)
        level = np.cumsum(expected[judged_rows])
        drawn = np.searchsorted(level, random.random(n) * level[-1], side="right")
        noise = ratios[judged_rows[np.minimum(drawn, among - 1)]]
        means[replicate] = members[replicate % _BAG][rows] @ noise / n
    return point, means


def _matrix(x: np.ndarray, p: np.ndarray, schema: FeatureSchema) -> xgb.DMatrix:
    """What the booster read, and what it said."""
    types = ["q" if feature.levels is None else "c" for feature in schema.features]
    return xgb.DMatrix(
        np.column_stack([x, p]).astype(np.float32),
        feature_types=[*types, "q"],
        enable_categorical=True,
    )
