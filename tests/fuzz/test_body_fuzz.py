"""Bodies that no client would send: each gets an answer of its own, and nobody else notices."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.served import KINDS, ROW, Server

ARROW = {"content-type": "application/vnd.apache.arrow.stream"}
JSON = {"content-type": "application/json"}
PATHS = (
    "/models/parcels/predict",
    "/models/letters/predict",
    "/models/parcels/versions/2/predict",
    "/models/parcels/labels",
    "/models/letters/labels",
    "/models/prices/labels",
    "/v2/models/parcels/infer",
    "/v2/models/letters/infer",
)
DATATYPES = ("BOOL", "INT8", "INT64", "UINT64", "FP16", "FP32", "FP64", "BYTES", "FP8", "", None)

fuzz = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.just(10**400),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "nan", "NaN", "inf", "null", "1e999", "0x10", "１", "\x00", "\ud83d\ude00",
                     "2026-02-30", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "true"]),
    st.text(max_size=20),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from(
    [*ROW, "outcome", "label", "prediction_id", "rows", "inputs", ""]
) | st.text(max_size=8)
rows = st.builds(
    lambda kept, changed: {name: ROW[name] for name in kept} | changed,
    st.sets(st.sampled_from(list(ROW)), min_size=4),
    st.dictionaries(names, values, max_size=3),
)
documents = st.one_of(
    rows,
    st.lists(rows, max_size=4),
    st.builds(lambda key, many: {key: many}, st.sampled_from(["rows", "labels"]),
              st.lists(rows | values, max_size=4)),
    values,
)  # fmt: skip


def _post(server: Server, path: str, body: bytes, headers: dict[str, str]) -> Any:
    return server.ask("POST", path, content=body, headers=headers)


@fuzz
@given(path=st.sampled_from(PATHS), document=documents)
def test_any_json_document(server: Server, path: str, document: Any) -> None:
    _post(server, path, json.dumps(document).encode(), JSON)


@fuzz
@given(
    path=st.sampled_from(PATHS),
    body=st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-16")),
    headers=st.sampled_from([JSON, ARROW, {}, {"content-type": "text/csv"}, {"content-type": ";"}]),
)
def test_any_bytes(server: Server, path: str, body: bytes, headers: dict[str, str]) -> None:
    _post(server, path, body, headers)


@fuzz
@given(
    path=st.sampled_from(PATHS[:3]),
    changed=st.dictionaries(st.sampled_from(list(ROW)), values, min_size=1, max_size=2),
    neighbours=st.integers(0, 2),
)
def test_any_value_in_any_column(
    server: Server, path: str, changed: dict[str, Any], neighbours: int
) -> None:
    body = json.dumps([*[ROW] * neighbours, ROW | changed]).encode()

    response = _post(server, path, body, JSON)

    assert response.status_code in (200, 400, 422)


@fuzz
@given(path=st.sampled_from(PATHS), data=st.data())
def test_a_right_body_that_was_damaged(server: Server, path: str, data: st.DataObject) -> None:
    if path.startswith("/v2"):
        right = json.dumps(_tensors())
    elif path.endswith("labels"):
        right = json.dumps({"label": "yes", "prediction_id": "x"})
    else:
        right = json.dumps([ROW, ROW])
    body = bytearray(right.encode())
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=3)):
        body[place] = data.draw(st.integers(0, 255))
    _post(server, path, bytes(body[: data.draw(st.integers(0, len(body)))]), JSON)
    _post(server, path, bytes(body), JSON)


LONG = 10**6
DOCUMENTS = {
    "nested lists": b"[" * 100_000 + b"]" * 100_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested just so": b'[{"weight_kg":' + b"[" * 900 + b"]" * 900 + b"}]",
    "lone surrogate": b'[{"depot": "\\ud800"}]',
    "surrogate bytes": b'[{"depot": "\xed\xa0\x80"}]',
    "surrogate key": b'[{"\\udc00": 1}]',
    "not utf-8": b'[{"depot": "\xff"}]',
    "byte order mark": b"\xef\xbb\xbf[]",
    "NaN": b'[{"weight_kg": NaN}]',
    "Infinity": b'[{"weight_kg": -Infinity}]',
    "beyond a double": b'[{"weight_kg": 1e999}]',
    "a label beyond all floats": b'[{"label": 1' + b"0" * 400 + b', "prediction_id": "x"}]',
    "a datatype that is a list": (
        b'{"inputs": [{"name": "a", "shape": [1], "datatype": [], "data": [1]}]}'
    ),
    "tensors of many names": json.dumps(
        {
            "inputs": [
                {"name": f"k{i}", "shape": [1], "datatype": "INT8", "data": [1]}
                for i in range(50_000)
            ]
        }
    ).encode(),
    "a long integer": b'[{"items": ' + b"9" * 1000 + b"}]",
    "too long an integer": b'[{"items": ' + b"9" * 100_000 + b"}]",
    "a long fraction": b'[{"weight_kg": 0.' + b"1" * 100_000 + b"}]",
    "the same key twice": b'[{"items": 1, "items": 2}]',
    "a million keys": json.dumps([{f"k{i}": 1 for i in range(LONG)}]).encode(),
    "a key of a million letters": json.dumps([{"k" * LONG: 1}]).encode(),
    "a value of a million letters": json.dumps([ROW | {"remark": "x" * LONG}]).encode(),
    "a million empty rows": json.dumps([{}] * LONG).encode(),
    "a million numbers": json.dumps([1] * LONG).encode(),
    "a thousand unknown keys a row": json.dumps(
        [{f"k{i}-{j}": 1 for i in range(1000)} for j in range(100)]
    ).encode(),
    "nothing": b"",
    "a nul": b"\x00",
    "no rows": b"[]",
    "rows of nothing": b'{"rows": {}}',
    "two documents": b"{}{}",
}


@pytest.mark.parametrize("path", [PATHS[0], "/models/prices/labels", "/v2/models/letters/infer"])
@pytest.mark.parametrize("what", DOCUMENTS)
def test_a_document_made_to_hurt(server: Server, what: str, path: str) -> None:
    response = _post(server, path, DOCUMENTS[what], JSON)

    fits = what == "a value of a million letters" and path.endswith("predict")
    assert (response.status_code == 200) == fits


def _tensors(**changed: Any) -> dict[str, Any]:
    kinds = {"float": "FP64", "integer": "INT64", "boolean": "BOOL"}
    return {
        "inputs": [
            {
                "name": name,
                "shape": [1],
                "datatype": kinds.get(KINDS[name], "BYTES"),
                "data": [value],
            }
            for name, value in ROW.items()
        ],
        **changed,
    }


shapes = st.lists(st.integers(-1, 2**40) | scalars, max_size=3) | values
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": names | values,
        "shape": st.just([1]) | shapes,
        "datatype": st.sampled_from(DATATYPES) | values,
        "data": st.lists(values, max_size=3) | values,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": values}) | values,
    },
)


@fuzz
@given(
    inputs=st.lists(tensors, max_size=4) | values,
    kept=st.booleans(),
    changed=st.fixed_dictionaries(
        {},
        optional={
            "id": values,
            "outputs": st.lists(st.fixed_dictionaries(
                {}, optional={"name": st.sampled_from(["probability", "version"]) | values,
                              "parameters": values}), max_size=3) | values,
            "parameters": st.fixed_dictionaries(
                {}, optional={"binary_data_output": values}) | values,
        },
    ),
)  # fmt: skip
def test_any_tensors(server: Server, inputs: Any, kept: bool, changed: dict[str, Any]) -> None:
    document = _tensors(**changed)
    if kept and isinstance(inputs, list):
        document["inputs"] += inputs
    elif not kept:
        document["inputs"] = inputs
    _post(server, "/v2/models/parcels/infer", json.dumps(document).encode(), JSON)


@fuzz
@given(
    datatype=st.sampled_from(DATATYPES),
    rows=st.integers(0, 3) | st.sampled_from([2**31 - 1, 10_001]),
    size=st.none() | st.integers(-1, 64) | st.just(2**40 - 1),
    blob=st.binary(max_size=64),
    length=st.none() | st.integers(-5, 400) | st.sampled_from(["x", "9" * 30, "٣", ""]),
    output=st.booleans(),
)
def test_any_binary_tensor(
    server: Server,
    datatype: Any,
    rows: int,
    size: int | None,
    blob: bytes,
    length: Any,
    output: bool,
) -> None:
    tensor = {"name": "depot", "shape": [rows], "datatype": datatype}
    if size is not None:
        tensor["parameters"] = {"binary_data_size": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": output}}).encode()
    given_length = len(head) if length is None else length
    headers = {"Inference-Header-Content-Length": str(given_length).encode("utf-8")}
    _post(server, "/v2/models/parcels/infer", head + blob, headers)


def test_a_right_binary_request_is_answered_in_kind(server: Server) -> None:
    blobs = {
        "float": struct.pack("<d", 3.5), "integer": struct.pack("<q", 2), "boolean": b"\x01",
    }  # fmt: skip
    kinds = {"float": "FP64", "integer": "INT64", "boolean": "BOOL"}
    inputs, blob = [], b""
    for name, value in ROW.items():
        kind = KINDS[name]
        text = str(value).encode()
        data = blobs.get(kind, struct.pack("<I", len(text)) + text)
        blob += data
        inputs.append({"name": name, "shape": [1, 1], "datatype": kinds.get(kind, "BYTES"),
                       "parameters": {"binary_data_size": len(data)}})  # fmt: skip
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}

    response = _post(server, "/v2/models/letters/infer", head + blob, headers)

    start = int(response.headers["inference-header-content-length"])
    outputs = {o["name"]: o for o in json.loads(response.content[:start])["outputs"]}
    before = 0
    for name, output in outputs.items():
        if name == "probabilities":
            break
        before += output["parameters"]["binary_data_size"]
    shares = np.frombuffer(response.content[start + before :][:12], "<f4")
    plain = server.ask("POST", "/models/letters/predict", json=ROW).json()["probabilities"]
    assert shares.tolist() == [np.float32(value) for value in plain.values()]


def test_a_million_texts_of_no_length_are_not_read(server: Server) -> None:
    tensor = {"name": "depot", "shape": [2_000_000], "datatype": "BYTES",
              "parameters": {"binary_data_size": 8_000_000}}  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}

    response = _post(server, "/v2/models/parcels/infer", head + bytes(8_000_000), headers)

    assert response.status_code == 413


def _table(count: int = 3) -> pa.Table:
    columns = {name: [value] * count for name, value in ROW.items()}
    table = pa.table(columns)
    times = pa.array(columns["sent"]).cast(pa.timestamp("us", "UTC"))
    return table.set_column(table.column_names.index("sent"), "sent", times)


def _stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("count", [1, 3, 64, 65, 500])
def test_a_right_table_is_answered_as_its_rows_are(server: Server, count: int) -> None:
    headers = ARROW | {"accept": ARROW["content-type"]}

    response = _post(server, "/models/letters/predict", _stream(_table(count)), headers)

    answer = pa.ipc.open_stream(response.content).read_all()
    plain = server.ask("POST", "/models/letters/predict", json=ROW).json()["probabilities"]
    expected = [np.float32(value) for value in plain.values()]
    assert answer["probabilities"].to_pylist() == [expected] * count


@fuzz
@given(data=st.data(), path=st.sampled_from(PATHS[:3]), large=st.booleans())
def test_a_table_with_flipped_bits(
    server: Server, data: st.DataObject, path: str, large: bool
) -> None:
    body = bytearray(_stream(_table(100 if large else 3)))
    for place in data.draw(st.lists(st.integers(0, len(body) * 8 - 1), min_size=1, max_size=8)):
        body[place // 8] ^= 1 << place % 8
    _post(server, path, bytes(body), ARROW)


@fuzz
@given(data=st.data(), path=st.sampled_from(PATHS[:3]))
def test_a_table_that_is_cut_off_or_grown(server: Server, data: st.DataObject, path: str) -> None:
    body = _stream(_table())
    end = data.draw(st.integers(0, len(body)))
    _post(server, path, body[:end] + data.draw(st.binary(max_size=40)), ARROW)


@fuzz
@given(
    count=st.sampled_from([-1, -(2**63), 2**31, 2**40, 2**62, 2**63 - 1]),
    old=st.sampled_from([3, 0, 8, 24, 64]),
    which=st.integers(0, 12),
)
def test_a_table_with_a_huge_count(server: Server, count: int, old: int, which: int) -> None:
    body = _stream(_table())
    at = -1
    for _ in range(which + 1):
        at = body.find(struct.pack("<q", old), at + 1)
        if at < 0:
            return
    _post(server, PATHS[0], body[:at] + struct.pack("<q", count) + body[at + 8 :], ARROW)


def _batches(count: int) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _table().schema) as writer:
        for _ in range(count):
            writer.write_table(_table(1))
    return bytes(sink.getvalue())


def _billion_nulls() -> pa.Table:
    kind = pa.list_(pa.null(), 2**31 - 1)
    return pa.table(
        {"depot": pa.Array.from_buffers(kind, 1, [None], children=[pa.nulls(2**31 - 1)])}
    )


def _repeated(count: int) -> pa.Table:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), ["x" * 10**6])
    return pa.table({"depot": texts})


TABLES = {
    "no columns": pa.table({}),
    "no rows": _table(0),
    "nulls only": pa.table({name: pa.nulls(3) for name in ROW}),
    "compressed": _stream(_table(1000), compression="zstd"),
    "one text ten thousand times": _repeated(10_000),
    "one text sixty times": _repeated(60),
    "a billion nulls in a row": _billion_nulls(),
    "a column twice": pa.Table.from_arrays([pa.array(["a"])] * 2, names=["depot", "depot"]),
    "ten thousand and one rows": _table(10_001),
    "a thousand columns": pa.table({f"c{i}": [1] for i in range(1000)}),
    "unknown zone": pa.table({"sent": pa.array([0], pa.timestamp("us", "../../etc/passwd"))}),
    "a time beyond all calendars": pa.table({"sent": pa.array([2**62], pa.timestamp("us"))}),
    "two thousand batches": _batches(2000),
    **{
        f"a column of {kind}": pa.table({"depot": pa.nulls(3, kind)})
        for kind in (
            pa.list_(pa.int8()), pa.struct([("a", pa.int8())]), pa.map_(pa.string(), pa.int8()),
            pa.binary(), pa.binary(4), pa.duration("s"), pa.time64("us"), pa.large_list(pa.null()),
            pa.month_day_nano_interval(), pa.string_view(), pa.binary_view(), pa.decimal128(38, 3),
            pa.float16(), pa.date64(), pa.dictionary(pa.int8(), pa.string()), pa.uint64(),
            pa.run_end_encoded(pa.int32(), pa.string()), pa.list_view(pa.int8()),
            pa.uuid(), pa.json_(),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("path", [PATHS[0], PATHS[2]])
@pytest.mark.parametrize("what", TABLES)
def test_a_table_made_to_hurt(server: Server, what: str, path: str) -> None:
    table = TABLES[what]

    response = _post(server, path, table if isinstance(table, bytes) else _stream(table), ARROW)

    assert response.status_code in (400, 413, 422)


@pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary"])
@pytest.mark.parametrize("count", [3, 200])
def test_text_may_come_in_any_of_arrows_forms(server: Server, kind: str, count: int) -> None:
    table = _table(count)
    for name in ("customer", "depot", "remark"):
        column = table[name].combine_chunks()
        typed = {
            "large_string": lambda c: c.cast(pa.large_string()),
            "string_view": lambda c: c.cast(pa.string_view()),
            "dictionary": lambda c: c.dictionary_encode(),
        }[kind](column)
        table = table.set_column(table.column_names.index(name), name, typed)

    response = _post(server, "/models/parcels/predict", _stream(table), ARROW)

    assert response.status_code == 200, response.text
    values = [p["probability"] for p in response.json()["predictions"]]
    assert len(values) == count
    assert all(math.isfinite(value) for value in values)


@fuzz
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"]),
    path=st.sampled_from(["/", "/models", "/v2", "/docs", "/openapi.json", "/metrics", *PATHS])
    | st.lists(
        st.sampled_from(
            [
                "models",
                "parcels",
                "v2",
                "..",
                ".",
                "",
                "%2e%2e",
                "%2f",
                "%00",
                "versions",
                "1",
                "%d9%a3",
                "-1",
                "9" * 400,
                "predict",
                "infer",
                "labels",
                "%ff",
                "%c3%a9",
                "etc",
                "passwd",
                "%0d%0aset-cookie:x",
            ]
        ),
        max_size=6,
    ).map(lambda parts: "/" + "/".join(parts)),
    identity=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=140),
    host=st.sampled_from(["localhost", "127.0.0.1:80", "[::1]", "[", "evil.example"]),
)
def test_any_path_method_and_headers(
    server: Server, method: str, path: str, identity: str, host: str
) -> None:
    headers = {"x-request-id": identity, "host": host}
    target = path.encode("ascii")

    response = server.ask(method, "/", headers=headers, extensions={"target": target})

    assert "set-cookie" not in response.headers
    assert "root:" not in response.text
    if len(identity) <= 128 and response.status_code != 400:
        assert response.headers["x-request-id"] == identity
    if host in ("[", "evil.example") and response.status_code != 400:
        assert response.status_code == 403
