"""Small matrices and specs for what trains."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from perennial.contracts.features import Feature, FeatureSchema
from perennial.learning.matrices import Matrices
from perennial.learning.studies import StudyStore
from perennial.spec import ModelSpec, parse_spec

FEATURES = (
    Feature(name="speed"),
    Feature(name="height [m]"),
    Feature(name="colour", levels=("blue", "green", "red", "white")),
    Feature(name="noise"),
)
CLASSES = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": None}


@pytest.fixture
def make_spec() -> Callable[..., ModelSpec]:
    """A spec of an objective; ``training`` and ``tuning`` as model.yaml has them."""

    def make(
        objective: str = "binary",
        training: dict[str, Any] | None = None,
        tuning: dict[str, Any] | None = None,
    ) -> ModelSpec:
        document = {
            "name": "small",
            "objective": objective,
            "source": {"kind": "csv", "uri": "small.csv", "event_time": "at"},
            "label": {"column": "y"},
            "columns": {"speed": {"type": "float"}},
            "training": {"rounds": 30, "early_stopping_rounds": 5, **(training or {})},
            "tuning": {"trials": 8, **(tuning or {})},
        }
        return parse_spec(yaml.safe_dump(document))

    return make


@pytest.fixture
def make_matrices() -> Callable[..., Matrices]:
    """Matrices whose label follows from speed, height and colour; a tenth of each is missing."""

    def make(objective: str = "binary", rows: int = 1200, seed: int = 1) -> Matrices:
        random = np.random.default_rng(seed)
        x = random.normal(size=(rows, len(FEATURES))).astype(np.float32)
        x[:, 2] = random.integers(0, 4, rows)
        score = x[:, 0] + 0.5 * x[:, 1] ** 2 + 1.5 * (x[:, 2] % 2) + 0.5 * random.normal(size=rows)
        x[random.random(x.shape) < 0.1] = np.nan
        if objective == "regression":
            y = 100 + 7 * score
        else:
            classes = CLASSES[objective]
            assert classes is not None
            y = np.digitize(score, np.quantile(score, np.arange(1, len(classes)) / len(classes)))
        y, cut = y.astype(np.float32), rows * 3 // 4
        schema = FeatureSchema(inputs=(), features=FEATURES, classes=CLASSES[objective])
        return Matrices(x[:cut], y[:cut], x[cut:], y[cut:], schema)

    return make


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optuna's tables without a trial: making them takes longer than a small study."""
    path = tmp_path_factory.mktemp("studies") / "empty.db"
    with StudyStore.open(f"sqlite:///{path}", "none", {}, greater_is_better=False):
        return path


@pytest.fixture
def new_url(tmp_path: Path, empty_database: Path) -> Callable[[], str]:
    """Gives the address of another database of studies with every call."""
    numbers = count()

    def url() -> str:
        path = tmp_path / f"studies-{next(numbers)}.db"
        shutil.copy(empty_database, path)
        return f"sqlite:///{path}"

    return url


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    return new_url()
