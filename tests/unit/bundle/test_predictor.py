"""Predicting with a bundle: the training path's values to the last bit, however rows arrive."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.bundle.trees import predict
from perennial.bundle.write import write_bundle
from perennial.contracts.errors import InputError, IntegrityError
from perennial.contracts.features import InputColumn
from perennial.data.frames import to_arrow


def load(made: Any, folder: Path, **changes: Any) -> Predictor:
    threads = changes.pop("threads", 1)
    ref = write_bundle(folder, dataclasses.replace(made.content, **changes))
    return Predictor(open_bundle(Path(ref.uri), ref.digest), threads=threads)


def made_requests(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON brings them: true and false, null, times as text."""
    plain = rows.astype(object).where(rows.notna(), None)
    plain["insured"] = [None if value is None else bool(value) for value in plain["insured"]]
    requests: list[dict[str, Any]] = json.loads(json.dumps(plain.to_dict("records"), default=str))
    return requests


def test_a_table_predicts_what_training_did_to_the_last_bit(each_made: Any, tmp_path: Path) -> None:
    predictions = load(each_made, tmp_path).predict(each_made.rows)
    assert predictions.values.dtype == np.float32
    assert predictions.values.shape == each_made.expected.shape
    assert predictions.values.tobytes() == each_made.expected.tobytes()
    assert predictions.values.tobytes() == each_made.expected_from_quantiles.tobytes()
    assert predictions.unseen == {}


def test_rows_one_by_one_predict_what_they_do_in_their_table(
    each_made: Any, tmp_path: Path
) -> None:
    predictor = load(each_made, tmp_path)
    for i in range(0, 400, 13):
        alone = predictor.predict(each_made.rows.iloc[i : i + 1]).values
        assert alone.tobytes() == each_made.expected[i : i + 1].tobytes(), i


def test_rows_as_json_predict_alike_as_a_frame_and_as_an_arrow_table(
    each_made: Any, tmp_path: Path
) -> None:
    predictor = load(each_made, tmp_path)
    requests = made_requests(each_made.rows)
    assert any(request["weight_kg"] is None for request in requests)
    assert any(request["insured"] is True for request in requests)
    for rows in (pd.DataFrame(requests), pa.Table.from_pylist(requests)):
        assert predictor.predict(rows).values.tobytes() == each_made.expected.tobytes()


def test_other_columns_their_order_and_the_index_make_no_difference(
    made: Any, tmp_path: Path
) -> None:
    rows = made.rows[made.rows.columns[::-1]].assign(outcome="?", seen=1)
    rows.index = pd.Index([7] * len(rows))
    assert load(made, tmp_path).predict(rows).values.tobytes() == made.expected.tobytes()


def test_several_threads_a_prediction_and_several_at_once_give_the_same_values(
    each_made: Any, tmp_path: Path
) -> None:
    predictor = load(each_made, tmp_path, threads=2)
    parts = [slice(start, start + 50) for start in range(0, 400, 50)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            results = pool.map(lambda part: predictor.predict(each_made.rows.iloc[part]), parts)
            together = np.concatenate([predictions.values for predictions in results])
            assert together.tobytes() == each_made.expected.tobytes()


def test_no_rows_give_no_predictions_of_the_right_shape(each_made: Any, tmp_path: Path) -> None:
    values = load(each_made, tmp_path).predict(each_made.rows.head(0)).values
    assert values.shape == (0, *each_made.expected.shape[1:])
    assert values.dtype == np.float32


def test_unseen_categories_are_counted_and_predicted_as_missing(made: Any, tmp_path: Path) -> None:
    predictor = load(made, tmp_path)
    rows = made.rows.head(40).copy()
    rows.loc[3:9, "depot"] = "moon"
    strange = predictor.predict(rows)
    assert strange.unseen == {"depot": 7}
    rows.loc[3:9, "depot"] = None
    missing = predictor.predict(rows)
    assert missing.unseen == {}
    assert strange.values.tobytes() == missing.values.tobytes()


def test_every_wrong_column_is_told_with_row_and_value(made: Any, tmp_path: Path) -> None:
    rows = made.rows.head(3).astype({"weight_kg": object, "items": object, "insured": object})
    rows.loc[1, "weight_kg"] = "heavy"
    rows.loc[2, "items"] = None
    rows.loc[0, "insured"] = "perhaps"
    with pytest.raises(InputError) as refused:
        load(made, tmp_path).predict(rows.drop(columns="depot"))
    assert str(refused.value).split("\n") == [
        "column 'weight_kg', row 2: 'heavy' is not a number",
        "column 'items': 1 of 3 values are missing (model.yaml says nullable: false)",
        "column 'insured', row 1: 'perhaps' is not true or false",
        "column 'depot': no such column",
    ]


def test_a_feature_that_comes_out_infinite_is_told(
    make_with: Callable[[str], Any], tmp_path: Path
) -> None:
    source = "import pandas as pd\ndef ratio(weight_kg: pd.Series, items: pd.Series) -> pd.Series:"
    made = make_with(source + "\n    return weight_kg / items\n")
    rows = made.rows.head(5).copy()
    rows.loc[:, "weight_kg"] = 1.0
    rows.loc[4, "items"] = 0
    with pytest.raises(InputError, match="'ratio' is inf in row 5"):
        load(made, tmp_path).predict(rows)


def test_two_versions_with_different_features_serve_side_by_side(
    made: Any, make_with: Callable[[str], Any], tmp_path: Path
) -> None:
    source = "import pandas as pd\ndef hour(sent: pd.Series) -> pd.Series:\n    return sent.dt."
    others = [make_with(f"{source}{part}\n") for part in ("hour", "minute")]
    predictors = [load(each, tmp_path) for each in (made, *others)]
    for _ in range(2):
        for each, predictor in zip((made, *others), predictors, strict=True):
            assert predictor.predict(each.rows).values.tobytes() == each.expected.tobytes()
    assert others[0].expected.tobytes() != others[1].expected.tobytes()


def test_a_booster_xgboost_can_not_read_is_refused(made: Any, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"booster\.ubj: XGBoost can't read it: "):
        load(made, tmp_path, booster=b"no trees")


def test_parts_that_do_not_fit_each_other_are_refused(made: Any, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as refused:
        load(made, tmp_path, features_source="")
    assert "features.py makes 4 features, schema.json has 7, the booster reads 7" in str(
        refused.value
    )


def test_the_booster_called_directly_predicts_what_it_does_in_place(each_made: Any) -> None:
    booster = xgb.Booster(model_file=bytearray(each_made.content.booster))
    for rows in (1, 7, 400):
        found = predict(booster, each_made.matrix[:rows])
        expected = booster.inplace_predict(each_made.matrix[:rows], missing=np.nan)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()
    with pytest.raises(xgb.core.XGBoostError, match="features"):
        predict(booster, each_made.matrix[:, :2].copy())


def test_a_frame_holds_what_is_carried_along_and_predicts_the_same(
    made: Any, tmp_path: Path
) -> None:
    kinds = {"parcel": "integer", "sent": "datetime", "place": "string"}
    also = {name: InputColumn(name=name, type=kind, nullable=True) for name, kind in kinds.items()}
    ref = write_bundle(tmp_path, made.content)
    predictor = Predictor(open_bundle(Path(ref.uri), ref.digest), also=also)
    inputs = [column.name for column in made.content.schema.inputs]
    assert list(predictor.columns) == [*inputs, "parcel", "place"]
    assert predictor.columns["sent"].nullable is False  # the bundle's own
    requests = made_requests(made.rows)
    rows = {name: [request[name] for request in requests] for name in inputs}
    frame = predictor.frame(
        rows | {"parcel": [None, *range(2**60, 2**60 + 399)], "more": [1] * 400}
    )
    assert list(frame.columns) == list(predictor.columns)
    assert predictor.predict_frame(frame).values.tobytes() == made.expected.tobytes()
    batch = to_arrow(frame, predictor.columns)
    assert batch["parcel"].to_pylist() == [None, *range(2**60, 2**60 + 399)]
    assert batch["place"].null_count == 400


def test_code_that_changes_its_input_does_not_change_the_frame(
    make_with: Callable[[str], Any], tmp_path: Path
) -> None:
    source = """
import pandas as pd

def light(weight_kg: pd.Series) -> pd.Series:
    weight_kg[weight_kg > 3] = 0.0
    return weight_kg

def place(depot: pd.Series) -> pd.Series:
    depot[depot == "west"] = "south"
    return depot

def later(sent: pd.Series) -> pd.Series:
    sent[:] = sent.max()
    return sent.dt.hour
"""
    predictor = load(make_with(source), tmp_path)
    frame = predictor.frame(make_with(source).rows)
    before = frame.copy(deep=True)
    predictor.predict_frame(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_the_matrix_is_what_training_fed_the_booster(each_made: Any, tmp_path: Path) -> None:
    predictor = load(each_made, tmp_path)
    matrix = predictor.matrix(predictor.frame(each_made.rows))
    assert matrix.dtype == np.float32
    assert np.array_equal(matrix, each_made.matrix, equal_nan=True)
    assert predictor.matrix(predictor.frame(each_made.rows.head(0))).shape == (0, matrix.shape[1])
