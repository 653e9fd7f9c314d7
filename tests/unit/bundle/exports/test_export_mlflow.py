"""An exported MLflow folder, as MLflow itself loads it."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model, validate_serving_input
from mlflow.types import DataType
from mlflow.types.schema import AnyType

from perennial import __version__
from perennial.bundle.exports.mlflow import model_folder
from perennial.contracts.errors import InputError, IntegrityError

NOW = datetime(2026, 3, 1, 6, tzinfo=UTC)


def exported(version: Any, folder: Path) -> Path:
    for name, content in model_folder(version.bundle, version.ref, NOW).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_mlflow_predicts_from_raw_rows_what_training_did_to_the_last_bit(
    each_version: Any, tmp_path: Path
) -> None:
    model = mlflow.pyfunc.load_model(str(exported(each_version, tmp_path / "model")))
    predictions = model.predict(each_version.made.rows)
    assert predictions.dtype == "float32"
    assert predictions.shape == each_version.made.expected.shape
    assert predictions.tobytes() == each_version.made.expected.tobytes()


def test_the_example_asks_what_the_server_of_mlflow_reads(
    each_version: Any, tmp_path: Path
) -> None:
    folder = exported(each_version, tmp_path / "model")
    first = each_version.made.expected[:5].tobytes()
    model = mlflow.pyfunc.load_model(str(folder))
    assert model.predict(model.input_example).tobytes() == first
    request = (folder / "serving_input_example.json").read_text()
    assert validate_serving_input(str(folder), request).tobytes() == first


def test_missing_values_mean_the_same_in_a_request_as_in_a_frame(
    version: Any, tmp_path: Path
) -> None:
    folder = exported(version, tmp_path / "model")
    rows = version.made.rows
    missing = rows[rows["insured"].isna() | rows["depot"].isna() | rows["weight_kg"].isna()]
    plain = missing.astype(object).where(missing.notna(), None)
    plain["insured"] = [None if value is None else bool(value) for value in plain["insured"]]
    split = {"columns": list(plain), "data": plain.to_numpy().tolist()}
    request = json.dumps({"dataframe_split": split}, default=str)
    expected = version.made.expected[missing.index]
    assert len(expected) > 50
    assert validate_serving_input(str(folder), request).tobytes() == expected.tobytes()


def test_the_signature_is_of_the_columns_a_request_must_carry(version: Any, tmp_path: Path) -> None:
    signature = Model.load(str(exported(version, tmp_path / "model"))).signature
    assert {column.name: column.type for column in signature.inputs} == {
        "weight_kg": DataType.double,
        "items": DataType.long,
        "insured": AnyType(),  # MLflow would take a missing boolean for false
        "depot": DataType.string,
        "sent": AnyType(),  # and refuses a time that says its zone
    }
    assert all(column.required for column in signature.inputs)
    with pytest.raises(MlflowException, match=r"missing inputs.*depot"):
        mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(
            version.made.rows.drop(columns="depot")
        )


def test_the_outputs_are_as_wide_as_the_predictions(each_version: Any, tmp_path: Path) -> None:
    outputs = Model.load(str(exported(each_version, tmp_path / "model"))).signature.outputs
    width = each_version.made.expected.shape[1:]
    assert [(one.type, one.shape) for one in outputs] == [("float32", (-1, *width))]


def test_the_description_says_which_version_it_is(each_version: Any, tmp_path: Path) -> None:
    described = Model.load(str(exported(each_version, tmp_path / "model")))
    classes = each_version.bundle.schema.classes
    assert described.metadata["perennial"] == {
        "model": "parcels",
        "version": 12,
        "digest": each_version.ref.digest,
        "objective": each_version.bundle.objective,
        "classes": None if classes is None else list(classes),
    }
    assert described.utc_time_created == "2026-03-01 06:00:00.000000"


def test_the_environment_is_that_of_the_training(
    made: Any, register: Callable[[Any], Any], tmp_path: Path
) -> None:
    libraries = {"xgboost": "3.2.0", "numpy": "2.3.0", "pandas": "3.0.1", "pyarrow": "25.0.0"}
    lineage = {"libraries": libraries, "python": "3.12"}
    content = dataclasses.replace(made.content, lineage=lineage)
    version = register(dataclasses.replace(made, content=content))
    folder = exported(version, tmp_path / "model")
    assert (folder / "requirements.txt").read_text().splitlines() == [
        "mlflow>=3",
        f"perennial-ml[serving]=={__version__}",
        "xgboost==3.2.0",
        "numpy==2.3.0",
        "pandas==3.0.1",
    ]
    flavour = Model.load(str(folder)).flavors["python_function"]
    assert flavour["python_version"] == "3.12"
    assert yaml.safe_load((folder / "python_env.yaml").read_text())["python"] == "3.12"
    conda = yaml.safe_load((folder / "conda.yaml").read_text())
    assert conda["dependencies"][0] == "python=3.12"


def test_the_same_version_gives_the_same_bytes(each_version: Any) -> None:
    first = model_folder(each_version.bundle, each_version.ref, NOW)
    assert model_folder(each_version.bundle, each_version.ref, NOW) == first


def test_nothing_is_pickled(each_version: Any) -> None:
    begins = pickle.dumps(None)[:1]  # as all pickles do since protocol 2
    for name, content in model_folder(each_version.bundle, each_version.ref, NOW).items():
        assert not content.startswith(begins), name
        assert Path(name).suffix in {"", ".json", ".yaml", ".txt", ".ubj", ".py", ".parquet"}


def test_a_folder_whose_bundle_was_changed_is_not_loaded(version: Any, tmp_path: Path) -> None:
    folder = exported(version, tmp_path / "model")
    (folder / "bundle" / version.ref.digest / "features.py").write_text("x = 1\n")
    with pytest.raises(IntegrityError, match=r"features\.py"):
        mlflow.pyfunc.load_model(str(folder))


def test_a_value_that_is_none_of_its_column_is_told_with_its_row(
    version: Any, tmp_path: Path
) -> None:
    model = mlflow.pyfunc.load_model(str(exported(version, tmp_path / "model")))
    rows = version.made.rows.head(2).assign(sent=["2025-03-01T00:00:00Z", "later"])
    with pytest.raises(InputError, match="column 'sent', row 2: 'later' is not a"):
        model.predict(rows)
