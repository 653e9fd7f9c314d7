"""The deployment of a model's backtest."""

from __future__ import annotations

import yaml

from perennial.spec import ModelSpec
from perennial.spec.deployment import prefect_yaml
from tests.workplace import MODEL_YAML

_SNAPSHOT = """
name: leaves
objective: regression
source: {kind: csv, uri: leaves.csv}
label: {column: width}
columns:
  length: {type: float}
split: {kind: random, validation: 0.2, test: 0.2}
"""


def _backtests(*texts: str) -> list[dict]:
    specs = [ModelSpec.model_validate(yaml.safe_load(text)) for text in texts]
    found = yaml.safe_load(prefect_yaml(specs))["deployments"]
    return [d for d in found if d["entrypoint"] == "flows.backtest.backtest"]


def test_a_model_with_event_time_has_one_that_runs_when_asked() -> None:
    (found,) = _backtests(MODEL_YAML, _SNAPSHOT)
    assert (found["name"], found["schedules"]) == ("demand", [])
    assert found["parameters"] == {"model": "demand"}
