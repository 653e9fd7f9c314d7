"""The matrices of an ensemble: what its members predict, as the served version will compute it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perennial.bundle.predictor import Predictor, member_program
from perennial.bundle.read import open_bundle
from perennial.bundle.write import write_bundle
from perennial.contracts.errors import InputError
from perennial.stores.matrices import read_matrix, read_schema, write_matrices
from tests.unit.bundle.conftest import CLASSES, ROWS, make, make_ensemble


def rows_of(objective: str, labels: Sequence[str]) -> pd.DataFrame:
    rows = make(objective).rows.sort_values("sent", ignore_index=True)
    outcome = np.resize(np.array(labels), ROWS)
    kind = "float64" if objective == "regression" else "str"
    return rows.assign(outcome=pd.Series(outcome).astype(kind))


@pytest.mark.parametrize("objective", CLASSES)
def test_what_training_reads_is_what_serving_computes(objective: str, tmp_path: Path) -> None:
    content = make_ensemble(tmp_path, objective)
    ref = write_bundle(tmp_path / "blend", content)
    served = open_bundle(Path(ref.uri), ref.digest)
    # Only two of three classes are left: the matrix has a column for each that members predict.
    rows = rows_of(objective, (CLASSES[objective] or ("1", "2"))[:2])
    parts = np.repeat(np.array([0, 1, 2], np.int8), [ROWS - 150, 80, 70])

    def scan(columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        for start in range(0, ROWS, 90):
            yield rows[list(columns)].iloc[start : start + 90].reset_index(drop=True)

    folder = tmp_path / "features"
    folder.mkdir()
    program = member_program(served.members, content.spec)
    schema = write_matrices(content.spec, program, scan, parts, folder, CLASSES[objective])

    assert schema == read_schema(folder) == content.schema
    predictor = Predictor(served)
    for number, part in enumerate(("train", "validation", "test")):
        x, y = read_matrix(folder, part)
        assert x.tobytes() == predictor.matrix(predictor.frame(rows[parts == number])).tobytes()
        assert set(np.unique(y)) == ({1.0, 2.0} if objective == "regression" else {0.0, 1.0})
    assert "predicted by parcels@2" in (folder / "graph.svg").read_text()


def test_a_class_that_no_member_predicts_is_refused(tmp_path: Path) -> None:
    content = make_ensemble(tmp_path, "multiclass")
    bundles = {member.name: bundle for member, bundle in content.members}
    rows = rows_of("multiclass", ("a", "b", "d"))
    parts = np.resize(np.array([0, 1, 2], np.int8), ROWS)

    def scan(columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        yield rows[list(columns)]

    with pytest.raises(InputError, match="classes that no member predicts: 'd'"):
        write_matrices(
            content.spec,
            member_program(bundles, content.spec),
            scan,
            parts,
            tmp_path,
            ("a", "b", "c"),
        )
