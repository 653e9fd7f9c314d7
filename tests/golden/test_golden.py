"""What earlier versions wrote still opens and says what it said. ``make.py`` wrote it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from tests.golden.make import BUNDLES, REGISTRIES, told

from perennial.bundle.manifest import FORMAT
from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.stores.registry import Registry
from perennial.stores.registry.replay import replayed
from perennial.stores.registry.schema import REVISION_TABLE, REVISIONS, metadata


def test_every_format_there_ever_was_is_kept() -> None:
    assert {p.name for p in BUNDLES.iterdir()} == {str(n) for n in range(1, FORMAT + 1)}
    assert {p.stem for p in REGISTRIES.glob("*.db")} == set(REVISIONS)


@pytest.mark.parametrize("folder", sorted(BUNDLES.iterdir()), ids=lambda p: p.name)
def test_a_bundle_of_every_format_opens_and_predicts_what_it_did(folder: Path) -> None:
    answers = json.loads((folder / "answers.json").read_text())
    bundle = open_bundle(folder / answers["digest"], answers["digest"])
    predictions = Predictor(bundle).predict(pd.DataFrame(answers["requests"]))
    # Another release of XGBoost or of the C library may round the last bit otherwise.
    np.testing.assert_allclose(predictions.values, answers["values"], rtol=2e-6)
    assert predictions.unseen == answers["unseen"]
    assert bundle.lineage == answers["lineage"]
    assert len(bundle.reference()) == 50


@pytest.mark.parametrize("path", sorted(REGISTRIES.glob("*.db")), ids=lambda p: p.stem)
def test_a_registry_of_every_revision_is_upgraded_and_says_what_it_did(
    path: Path, tmp_path: Path
) -> None:
    copy = shutil.copy(path, tmp_path / "registry.db")
    assert told(copy) == json.loads(path.with_suffix(".json").read_text())
    registry = Registry(f"sqlite:///{copy}")
    for model in registry.models():
        assert replayed(model, registry.decisions(model)) == registry.route(model)
    registry.close()
    engine = sa.create_engine(f"sqlite:///{copy}")
    with engine.connect() as connection:
        options = {"compare_type": True, "version_table": REVISION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    with (
        pytest.raises(sa.exc.IntegrityError, match="append-only"),
        engine.begin() as connection,
    ):
        connection.exec_driver_sql("DELETE FROM decisions")
    engine.dispose()
