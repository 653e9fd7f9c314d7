"""Predict with an opened bundle: raw rows → features → matrix → booster, as in training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import xgboost as xgb

from perennial.bundle.read import Bundle
from perennial.contracts.errors import IntegrityError, Problem
from perennial.data.encoding import encode
from perennial.data.features import FeatureProgram
from perennial.data.frames import canonical_frame


@dataclass(frozen=True, slots=True)
class Predictions:
    """float32, one entry a row: binary (n,) the probability of the positive class, multiclass
    (n, classes), regression (n,). ``unseen`` counts, for each categorical feature that had any, the
    values that training never saw; they were predicted as missing."""

    values: np.ndarray
    unseen: dict[str, int]


class Predictor:
    """One version's prediction, loaded once. Several versions live side by side in a process.

    Safe to share between threads: nothing changes after loading, and XGBoost's in-place prediction
    is made for it. ``threads`` is what one prediction may use: 1 suits requests (more made small
    batches no quicker and their slowest much slower), all cores suit batches of thousands of rows.
    The values are the same.

    Raises IntegrityError when the bundle's parts don't fit each other, InputError when its feature
    code doesn't load.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        schema = bundle.schema
        self._schema = schema
        self._inputs = {column.name: column for column in schema.inputs}
        self._state = bundle.state
        self._program = FeatureProgram.load(bundle.features_source, bundle.spec)
        self._booster = _load_booster(bundle)
        self._booster.set_param({"device": "cpu", "nthread": threads})
        multiclass = bundle.objective == "multiclass" and schema.classes is not None
        self._shape = (len(schema.classes or ()),) if multiclass else ()
        names = tuple(feature.name for feature in schema.features)
        if names != self._program.features or len(names) != self._booster.num_features():
            what = (
                f"features.py makes {len(self._program.features)} features, schema.json has "
                f"{len(names)}, the booster reads {self._booster.num_features()}"
            )
            where = f"bundle {bundle.path}"
            raise IntegrityError(Problem(where, what, "train again with this Perennial"))

    def predict(self, rows: pd.DataFrame | pa.Table) -> Predictions:
        """Predictions for rows of raw input columns, in order; other columns are ignored.

        Values may come in any type that training reads from a source: a JSON request's, a Parquet
        file's. Requests of a few rows come quicker as an Arrow table. Raises InputError naming
        every column that is absent, doesn't parse (with row and value), or is missing where it must
        not be; and features that come out infinite.
        """
        frame = canonical_frame(rows, self._inputs)
        matrix, unseen = encode(self._program.columns(frame, self._state), self._schema)
        if not len(matrix):
            return Predictions(np.empty((0, *self._shape), dtype=np.float32), unseen)
        values = self._booster.inplace_predict(matrix, missing=np.nan)
        return Predictions(values, unseen)


def _load_booster(bundle: Bundle) -> xgb.Booster:
    booster = xgb.Booster()
    try:
        booster.load_model(bytearray(bundle.booster))
    except xgb.core.XGBoostError as error:
        what = f"XGBoost can't read it: {str(error).strip().splitlines()[0]}"
        where = f"bundle {bundle.path}, booster.ubj"
        raise IntegrityError(Problem(where, what, "train again with this Perennial")) from None
    return booster
