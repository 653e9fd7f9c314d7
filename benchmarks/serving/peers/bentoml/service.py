# mypy: ignore-errors
"""The booster behind BentoML, in adaptive batches or one by one, on the event loop in both cases:
a thread a request is slower for so little work."""

from __future__ import annotations

import os
from typing import Annotated

import bentoml
import numpy as np
import xgboost as xgb
from bentoml.validators import DType

Rows = Annotated[np.ndarray, DType("float32")]

_BATCHES = os.environ["BATCH_SIZE"] != "1"
_QUIET = {
    "workers": 1,
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},
    "traffic": {"timeout": 60, "max_concurrency": 1000},
}


class _Booster:
    def __init__(self) -> None:
        self.booster = xgb.Booster(model_file=os.environ["BOOSTER"])
        self.booster.set_param({"nthread": 1})

    def _predict(self, rows: np.ndarray) -> np.ndarray:
        predictions: np.ndarray = self.booster.inplace_predict(rows, missing=np.nan)
        return predictions


if _BATCHES:

    @bentoml.service(**_QUIET)
    class Flights(_Booster):
        @bentoml.api(
            batchable=True,
            max_batch_size=int(os.environ["BATCH_SIZE"]),
            max_latency_ms=int(os.environ["BATCH_MILLISECONDS"]),
        )
        async def predict(self, rows: Rows) -> np.ndarray:
            return self._predict(rows)

else:

    @bentoml.service(**_QUIET)
    class Flights(_Booster):
        @bentoml.api
        async def predict(self, rows: Rows) -> np.ndarray:
            return self._predict(rows)
