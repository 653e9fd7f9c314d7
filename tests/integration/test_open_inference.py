"""The Open Inference Protocol v2, spoken by a client that others wrote for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.fuzz.served import Server, make_project, serving
from tests.integration.test_serving import as_arrow, change, predictor, some_rows

DATATYPES = {
    "sent": "BYTES", "customer": "BYTES", "weight_kg": "FP64", "items": "INT64", "insured": "BOOL",
    "depot": "BYTES", "remark": "BYTES",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("v2")
    make_project(root)
    change(root, {1: 100})
    with serving(root) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    yield client
    client.close()


def whole_rows(count: int) -> list[dict[str, Any]]:
    """Rows without missing booleans, texts and integers, for which its tensors have no sign."""
    rows = some_rows(count)
    for row in rows:
        row["insured"] = bool(row["insured"])
        row["depot"] = row["depot"] or "north"
        row["remark"] = row["remark"] or ""
    return rows


def tensors(rows: list[dict[str, Any]], *, binary: bool) -> list[Any]:
    made = []
    for name, datatype in DATATYPES.items():
        values = [row[name] for row in rows]
        if datatype == "FP64":
            array = np.array([np.nan if v is None else v for v in values], np.float64)
        elif datatype == "BYTES":
            array = np.array([value.encode() for value in values], object)
        else:
            array = np.array(values, np.int64 if datatype == "INT64" else bool)
        tensor = triton.InferInput(name, [len(rows), 1], datatype)
        tensor.set_data_from_numpy(array.reshape(-1, 1), binary_data=binary)
        made.append(tensor)
    return made


def test_server_and_models_describe_themselves(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("parcels")
    assert client.is_model_ready("parcels", "1")
    assert not client.is_model_ready("parcels", "9")
    assert client.get_server_metadata()["name"] == "perennial"
    metadata = client.get_model_metadata("parcels", "1")
    assert metadata["versions"] == ["1"]
    assert {t["name"]: t["datatype"] for t in metadata["inputs"]} == DATATYPES
    assert metadata["outputs"][0] == {"name": "probability", "datatype": "FP32", "shape": [-1]}
    assert client.get_model_metadata("letters")["outputs"][1] == {
        "name": "probabilities", "datatype": "FP32", "shape": [-1, 3],
        "parameters": {"classes": '["a","b","c"]'},
    }  # fmt: skip


@pytest.mark.parametrize("count", [1, 200])
@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_inference_is_the_training_path_s_bit_for_bit(
    server: Server, client: Any, count: int, binary_in: bool, binary_out: bool
) -> None:
    if not binary_in:
        rows = [{**row, "weight_kg": row["weight_kg"] or 1.5} for row in whole_rows(count)]
    else:
        rows = whole_rows(count)
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary_out)
        for name in ("probability", "prediction_id", "version")
    ]
    found = client.infer(
        "parcels", tensors(rows, binary=binary_in), request_id="mine", outputs=outputs
    )
    expected = predictor(server.log.parent, 1).predict(as_arrow(rows)).values
    assert found.as_numpy("probability").astype(np.float32).tobytes() == expected.tobytes()
    assert len(set(found.as_numpy("prediction_id").tolist())) == count
    assert found.as_numpy("version").tolist() == [1] * count
    assert found.get_response()["id"] == "mine"
    assert found.get_response()["model_version"] == "1"


def test_classes_are_text_and_probabilities_a_matrix(server: Server, client: Any) -> None:
    rows = whole_rows(30)
    found = client.infer("letters", tensors(rows, binary=True))
    expected = predictor(server.log.parent, 1, "letters").predict(as_arrow(rows)).values
    assert found.as_numpy("probabilities").tobytes() == expected.tobytes()
    classes = found.as_numpy("class").tolist()
    assert [one.decode() for one in classes] == ["abc"[i] for i in expected.argmax(axis=1)]


def test_a_version_by_its_number_and_one_that_is_not_there(client: Any) -> None:
    rows = tensors(whole_rows(1), binary=True)
    assert client.infer("parcels", rows, model_version="1").as_numpy("version").tolist() == [1]
    with pytest.raises(InferenceServerException, match="version '9' of 'parcels' is not served"):
        client.infer("parcels", rows, model_version="9")


def test_mistakes_are_told_in_the_protocol_s_own_way(client: Any) -> None:
    rows = whole_rows(2)
    with pytest.raises(InferenceServerException, match="'items': is absent"):
        client.infer("parcels", [t for t in tensors(rows, binary=True) if t.name() != "items"])
    short = triton.InferInput("items", [3], "INT64")
    short.set_data_from_numpy(np.array([1, 2, 3], np.int64))
    others = [t for t in tensors(rows, binary=True) if t.name() != "items"]
    with pytest.raises(InferenceServerException, match="'items': has 3 rows, 'sent' has 2"):
        client.infer("parcels", [*others, short])
    outputs = [triton.InferRequestedOutput("odds")]
    with pytest.raises(InferenceServerException, match="no output 'odds'"):
        client.infer("parcels", tensors(rows, binary=True), outputs=outputs)
