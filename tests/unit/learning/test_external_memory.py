"""A matrix beyond memory: trained on in pages, to the same bytes."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from perennial.contracts.features import Feature, FeatureSchema
from perennial.learning.matrices import Matrices, quantised
from perennial.learning.training import booster_bytes, train_booster
from perennial.spec import parse_spec
from tests.workplace import MODEL_YAML

SPEC = parse_spec(MODEL_YAML)
PARAMS = {"max_depth": 5, "learning_rate": 0.3, "subsample": 0.8}


def make(memory: int | None) -> Matrices:
    random = np.random.default_rng(5)
    x = random.standard_normal((20_000, 4), np.float32)
    x[:, 3] = random.integers(0, 12, len(x))
    x[random.random(x.shape) < 0.1] = np.nan
    y = (np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 3]) / 6 > 1).astype(np.float32)
    levels = tuple(f"level {i:02}" for i in range(12))
    features = (*(Feature(name=f"x{i}") for i in range(3)), Feature(name="x3", levels=levels))
    schema = FeatureSchema(inputs=(), features=features, classes=("0", "1"))
    return Matrices(x[:15_000], y[:15_000], x[15_000:], y[15_000:], schema, memory)


def test_boosters_trained_in_pages_are_those_trained_in_memory_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    whole = train_booster(make(None), SPEC, PARAMS, 12, 2, "train+validation")
    assert not list(tmp_path.iterdir())
    paged = train_booster(make(40_000), SPEC, PARAMS, 12, 2, "train+validation")
    assert booster_bytes(paged) == booster_bytes(whole)


def test_pages_lie_on_disk_while_the_matrix_lives_and_not_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows, validation = quantised(make(40_000), 256, 2)
    assert (rows.num_row(), validation.num_row()) == (15_000, 5_000)
    assert len(list(tmp_path.rglob("*.page"))) == 2
    del rows, validation
    gc.collect()
    assert list(tmp_path.iterdir()) == []
