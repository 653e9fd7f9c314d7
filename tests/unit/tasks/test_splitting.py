"""Rows without an identity are drawn by what they hold, and for versions of before by position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perennial.contracts.refs import DatasetRef, ModelRef
from perennial.data.splits import assign
from perennial.stores import tables
from perennial.stores.project import load_model
from tasks.splitting import read_parts, split
from tests.unit.stores.conftest import SNAPSHOT, Project


def ingested(root: Path) -> tuple[ModelRef, DatasetRef, pd.DataFrame]:
    folder = root / "models" / "leaves"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(SNAPSHOT)
    model, spec = load_model(folder)
    place = Project(root, spec)
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"length": random.random(400), "kind": random.choice(["a", "b"], 400)})
    frame.assign(width=range(400)).to_csv(root / "leaves.csv", index=False)
    place.ingest()
    return model, tables.dataset(spec, place.table, None), place.rows()


def test_a_version_that_was_drawn_by_position_is_drawn_so_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_PROJECT", str(tmp_path))
    model, dataset, frame = ingested(tmp_path)
    _, spec = load_model(Path(model.directory))
    before = DatasetRef.model_validate(dataset.model_dump(mode="json", exclude={"rows_by"}))
    now, then = (read_parts(split.fn(model, one)) for one in (dataset, before))
    assert (now == assign(frame, spec, None)).all()
    assert (then == assign(frame, spec, None, "position")).all()
    assert (now != then).any()
