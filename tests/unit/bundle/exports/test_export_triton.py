"""An exported Triton repository: configured as Triton parses it, trees as XGBoost reads them."""

from __future__ import annotations

import json
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from google.protobuf import text_format

from perennial.bundle.exports.triton import repository
from perennial.bundle.predictor import Predictor


def parsed(config: bytes) -> Any:
    """A config.pbtxt as a ``ModelConfig``; what Triton doesn't know is an error.

    Triton's messages come with its client. They are loaded by their file: the package around them
    wants gRPC.
    """
    package = find_spec("tritonclient")
    assert package is not None
    assert package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = spec_from_file_location("model_config_pb2", file)
    assert spec is not None
    assert spec.loader is not None
    messages = module_from_spec(spec)
    spec.loader.exec_module(messages)
    return text_format.Parse(config.decode(), messages.ModelConfig())


@pytest.fixture
def files(each_version: Any) -> dict[str, bytes]:
    return repository(each_version.bundle, each_version.ref)


def test_a_repository_has_what_triton_looks_for(files: dict[str, bytes]) -> None:
    assert sorted(files) == [
        "README.md",
        "parcels/12/xgboost.ubj",
        "parcels/config.pbtxt",
        "parcels/schema.json",
    ]


def test_the_configuration_is_of_this_matrix_and_these_predictions(
    files: dict[str, bytes], each_version: Any
) -> None:
    config = parsed(files["parcels/config.pbtxt"])
    made = each_version.made
    [input_], [output] = config.input, config.output
    assert (config.name, config.backend, config.max_batch_size) == ("parcels", "fil", 32_768)
    assert (input_.name, list(input_.dims)) == ("input__0", [made.matrix.shape[1]])
    assert (output.name, list(output.dims)) == ("output__0", [*made.expected.shape[1:], 1][:1])
    kinds = config.DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"]
    fp32 = kinds.enum_type.values_by_name["TYPE_FP32"].number
    assert input_.data_type == output.data_type == fp32
    assert config.HasField("dynamic_batching")


def test_a_classifier_gives_probabilities_and_a_regression_its_value(
    files: dict[str, bytes], each_version: Any
) -> None:
    config = parsed(files["parcels/config.pbtxt"])
    given = {key: value.string_value for key, value in config.parameters.items()}
    classifier = {"is_classifier": "true", "predict_proba": "true", "threshold": "0.5"}
    regression = {"is_classifier": "false"}
    kind = regression if each_version.bundle.objective == "regression" else classifier
    assert given == {"model_type": "xgboost_ubj", **kind}


def test_a_wrong_key_in_a_configuration_would_be_found() -> None:
    with pytest.raises(text_format.ParseError, match="backnd"):
        parsed(b'backnd: "fil"')


def test_the_trees_predict_what_training_did_from_the_matrix(
    files: dict[str, bytes], each_version: Any, tmp_path: Path
) -> None:
    path = tmp_path / "xgboost.ubj"
    path.write_bytes(files["parcels/12/xgboost.ubj"])
    booster = xgb.Booster(model_file=path)
    matrix = Predictor(each_version.bundle).matrix(
        Predictor(each_version.bundle).frame(each_version.made.rows)
    )
    predictions = np.asarray(booster.inplace_predict(matrix), dtype=np.float32)
    assert predictions.tobytes() == each_version.made.expected.tobytes()


def test_the_schema_tells_how_a_client_makes_the_matrix(
    files: dict[str, bytes], each_version: Any
) -> None:
    features = json.loads(files["parcels/schema.json"])["features"]
    names = [feature["name"] for feature in features]
    levels = {feature["name"]: feature["levels"] for feature in features}
    assert levels["depot"] == ["north", "south", "west"]
    depot = each_version.made.rows["depot"].map({"north": 0.0, "south": 1.0, "west": 2.0})
    column = each_version.made.matrix[:, names.index("depot")]
    np.testing.assert_array_equal(column, depot.to_numpy(dtype=np.float32))


def test_the_readme_says_what_fil_does_not_do(files: dict[str, bytes], each_version: Any) -> None:
    readme = files["README.md"].decode()
    assert readme.startswith("# parcels@12 for Triton\n")
    assert "**FIL sees the feature matrix only.**" in readme
    outputs = {
        "binary": "float32 (rows, 1), the probability of the class 'true'.",
        "multiclass": "float32 (rows, 3), the probabilities of a, b, c.",
        "regression": "float32 (rows, 1), the value.",
    }
    assert outputs[each_version.bundle.objective] in readme
