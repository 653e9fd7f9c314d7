"""The champion, asked about a candidate's holdout; what it can't read is said in the verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perennial.contracts.refs import VersionRef
from perennial.data.frames import Typed, canonical_frame
from tasks.evaluation import _champion_predictions
from tests.published import golden

UNREAD = "version 3 can't read these rows"


@pytest.fixture
def champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VersionRef:
    monkeypatch.setenv("PERENNIAL_PROJECT", str(tmp_path))
    bundle = golden()
    return VersionRef(model="parcels", version=3, uri=str(bundle.path), digest=bundle.digest)


@pytest.fixture
def rows() -> pd.DataFrame:
    bundle = golden()
    columns: dict[str, Typed] = {column.name: column for column in bundle.schema.inputs}
    given = {
        "weight_kg": [1.0, 2.5], "items": [1, 2], "insured": [True, None],
        "depot": ["north", None], "sent": ["2025-03-01", "2025-03-02"],
    }  # fmt: skip
    return canonical_frame(given, columns)


def test_it_predicts_rows_that_have_its_columns(champion: VersionRef, rows: pd.DataFrame) -> None:
    values, unread = _champion_predictions(champion, rows, golden().schema.classes)
    assert values is not None
    assert (values.shape, unread) == ((2, 3), "")
    assert np.isfinite(values).all()


def test_a_column_taken_out_of_model_yaml_is_named_with_the_way_out(
    champion: VersionRef, rows: pd.DataFrame
) -> None:
    gone = _champion_predictions(champion, rows.drop(columns="depot"), golden().schema.classes)
    assert gone == (
        None,
        f"{UNREAD}: model.yaml no longer has depot "
        "(keep it with feature: false until a version without it has taken over)",
    )


def test_a_value_it_cannot_read_is_named(champion: VersionRef, rows: pd.DataFrame) -> None:
    told = rows.assign(weight_kg=["heavy", "light"])
    values, unread = _champion_predictions(champion, told, golden().schema.classes)
    assert values is None
    why = "column 'weight_kg', row 1: 'heavy' is not a number; so are 2 values"
    assert unread == f"{UNREAD}: {why}"


def test_without_a_champion_nothing_is_asked(rows: pd.DataFrame) -> None:
    assert _champion_predictions(None, rows, None) == (None, "")
