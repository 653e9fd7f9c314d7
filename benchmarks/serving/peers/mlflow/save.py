# mypy: ignore-errors
"""Save the booster as an MLflow model: ``python save.py BOOSTER FOLDER``.

Without the names of its features, so that rows may come as an array: as a data frame they would be
slower. Runs in MLflow's environment.
"""

from __future__ import annotations

import sys

import mlflow.xgboost
import xgboost as xgb

path, folder = sys.argv[1:]
booster = xgb.Booster(model_file=path)
booster.feature_names = None
mlflow.xgboost.save_model(booster, folder, pip_requirements=["xgboost"])
