"""The Open Inference Protocol v2: JSON, and its binary tensor extension.

https://github.com/open-inference/open-inference-protocol. A column is a tensor of shape [rows] or
[rows, 1]; text, categories and times are BYTES (UTF-8). A missing value is null in JSON, NaN in a
binary tensor of floats. Outputs are one tensor of predictions (``probability``, ``value``, or
``class`` and ``probabilities``), ``prediction_id`` and ``version``. The order of the probabilities
is the parameter ``classes`` (a JSON list in a text) of the version's metadata, and of the output
itself where versions with different classes answered.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from perennial import __version__
from perennial.contracts.errors import InputError, Problem
from perennial.contracts.features import ColumnType
from perennial.data.row_numbers import at_row
from perennial.serving.batching import INLINE_ROWS
from perennial.serving.classes import announced, in_one_order
from perennial.serving.models import LiveModel, Loaded
from perennial.serving.replies import Refusal, Reply, Request, wrong_rows
from perennial.serving.requests import Headers
from perennial.serving.rows import Columns, RequestRows, Table, decode_json
from perennial.serving.service import Predicted, Service
from perennial.spec.values import shown

_DATATYPES: dict[ColumnType, str] = {
    "float": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "category": "BYTES",
    "string": "BYTES",
    "datetime": "BYTES",
}
_NUMPY = {
    "BOOL": np.dtype(np.bool_),
    **{f"{sign}INT{bits}": np.dtype(f"{'u' if sign else 'i'}{bits // 8}").newbyteorder("<")
       for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}  # fmt: skip
_MOST_TENSORS = 10_000
_JSON_LENGTH = b"inference-header-content-length"
_OCTETS = b"application/octet-stream"


class OpenInferenceEndpoints:
    """Handlers of the endpoints below ``/v2``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def server(self, *_: Any) -> Reply:
        """Server metadata."""
        extensions = ["binary_tensor_data"]
        return Reply.json({"name": "perennial", "version": __version__, "extensions": extensions})

    async def live(self, *_: Any) -> Reply:
        return Reply.json({"live": True})

    async def ready(self, *_: Any) -> Reply:
        ready = self._service.ready
        return Reply.json({"ready": ready}, 200 if ready else 503)

    async def model(self, request: Request) -> Reply:
        """Model metadata: tensors in and out."""
        model, version = self._version(request)
        inputs = [
            {"name": name, "datatype": _DATATYPES[column.type], "shape": [-1]}
            for name, column in version.predictor.columns.items()
        ]
        return Reply.json(
            {
                "name": model.name,
                "versions": [str(number) for number in sorted(model.loaded)],
                "platform": "perennial_xgboost",
                "inputs": inputs,
                "outputs": _output_metadata(version),
            }
        )

    async def model_ready(self, request: Request) -> Reply:
        model, _ = self._version(request)
        return Reply.json({"name": model.name, "ready": True})

    async def infer(self, request: Request) -> Reply:
        """Predictions for tensors."""
        service = self._service
        model = service.model(request.path["name"])
        document, blob = _split(request.headers, request.body)
        try:
            rows = _rows(document.get("inputs"), blob, service.settings.max_rows)
        except InputError as error:
            raise wrong_rows(error) from None
        wanted = _wanted(document, model.champion())
        found = await service.predict(model, request.path.get("version"), rows, request)
        return _reply(model, found, document, wanted)

    def _version(self, request: Request) -> tuple[LiveModel, Loaded]:
        model = self._service.model(request.path["name"])
        version = request.path.get("version")
        return model, model.champion() if version is None else model.pinned(version)


def _split(headers: Headers, body: bytes) -> tuple[dict[str, Any], memoryview]:
    """The JSON part of a request, and the binary tensors that follow it."""
    length = headers.get(_JSON_LENGTH)
    end = len(body)
    if length is not None:
        if not length.isdigit() or len(length) > 12 or int(length) > len(body):
            what = f"Inference-Header-Content-Length is {length[:20]!r}, the body {len(body)} bytes"
            raise _invalid(what)
        end = int(length)
    document = decode_json(body[:end])
    if not isinstance(document, dict):
        raise _invalid("expected an object with inputs")
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise _invalid("id: expected text")
    return document, memoryview(body)[end:]


def _rows(inputs: object, blob: memoryview, most: int) -> RequestRows:
    """The tensors as columns. Raises InputError naming one that is wrong, Refusal for more than
    ``most`` rows, before any of them is read."""
    if not isinstance(inputs, list) or not 0 < len(inputs) <= _MOST_TENSORS:
        raise _invalid(f"inputs: expected a list of 1 to {_MOST_TENSORS:,} tensors")
    columns: dict[str, Any] = {}
    count: int | None = None
    for place, tensor in enumerate(inputs):
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise _invalid(f"inputs[{place}]: expected an object with name, shape, datatype, data")
        name = tensor["name"]
        if name in columns:
            raise InputError(Problem(f"column {shown(name)}", "is there twice"))
        rows = _length(tensor.get("shape"), name)
        if count is not None and rows != count:
            what = f"has {rows} rows, {shown(inputs[0]['name'])} has {count}"
            raise InputError(Problem(f"column {shown(name)}", what))
        if rows > most:
            what = f"{rows:,} rows; a request has 1 to {most:,}"
            raise Refusal(413, "too_many_rows", what)
        count = rows
        size = _binary_size(tensor)
        if size is None:
            columns[name] = _from_json(name, tensor, rows)
        elif size > len(blob):
            what = f"says {size} bytes of binary data, {len(blob)} are left"
            raise InputError(Problem(f"column {shown(name)}", what))
        else:
            columns[name] = _from_bytes(name, tensor, rows, blob[:size])
            blob = blob[size:]
    if len(blob):
        raise _invalid(f"{len(blob)} bytes of binary data belong to no tensor")
    assert count is not None
    if count <= INLINE_ROWS or not all(isinstance(c, np.ndarray) for c in columns.values()):
        return Columns(columns, count)
    return Table(pa.table({name: pa.array(c, from_pandas=True) for name, c in columns.items()}))


def _length(shape: object, name: str) -> int:
    if (
        isinstance(shape, list)
        and all(type(extent) is int and 0 <= extent < 2**31 for extent in shape)
        and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))
    ):
        return int(shape[0])
    where, what = f"column {shown(name)}", f"has the shape {shown(shape)}"
    raise InputError(Problem(where, what, "a column's tensor has the shape [rows] or [rows, 1]"))


def _binary_size(tensor: Mapping[str, Any]) -> int | None:
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        return None
    if type(size) is not int or not 0 <= size < 2**40:
        raise _invalid(f"binary_data_size is {shown(size)}")
    return size


def _from_json(name: str, tensor: Mapping[str, Any], rows: int) -> list[object]:
    datatype, data = tensor.get("datatype"), tensor.get("data")
    where = f"column {shown(name)}"
    if not isinstance(datatype, str) or (datatype != "BYTES" and datatype not in _NUMPY):
        raise InputError(Problem(where, f"has the unknown datatype {shown(datatype)}"))
    if not isinstance(data, list):
        raise InputError(Problem(where, "has no data", "send data, or binary_data_size"))
    if data and all(type(value) is list and len(value) == 1 for value in data):
        data = [value[0] for value in data]
    if len(data) != rows:
        raise InputError(Problem(where, f"has {len(data)} values, its shape says {rows}"))
    for place, value in enumerate(data):
        if not _fits(value, datatype):
            problem = Problem(at_row(where, place), f"{shown(value)} is no {datatype}")
            raise InputError(problem)
    return data


def _fits(value: object, datatype: str) -> bool:
    kind = type(value)
    if value is None:
        return True
    if datatype == "BYTES":
        return kind is str
    if datatype == "BOOL":
        return kind is bool
    if datatype.startswith("FP"):
        return kind is float or kind is int
    if kind is not int:
        return False
    extent = np.iinfo(_NUMPY[datatype])
    return int(extent.min) <= value <= int(extent.max)  # type: ignore[operator]


def _from_bytes(name: str, tensor: Mapping[str, Any], rows: int, data: memoryview) -> Any:
    datatype = str(tensor.get("datatype"))
    where = f"column {shown(name)}"
    if datatype == "BYTES":
        return _texts(where, rows, data)
    if datatype not in _NUMPY:
        raise InputError(Problem(where, f"has the unknown datatype {shown(datatype)}"))
    kind = _NUMPY[datatype]
    if len(data) != rows * kind.itemsize:
        what = f"{rows} values of {datatype} are {rows * kind.itemsize} bytes, not {len(data)}"
        raise InputError(Problem(where, what))
    if datatype == "BOOL":
        return np.frombuffer(data, np.uint8) != 0
    return np.frombuffer(data, kind).astype(kind.newbyteorder("="))


def _texts(where: str, rows: int, data: memoryview) -> list[str]:
    texts: list[str] = []
    at = 0
    while at < len(data) and len(texts) < rows:
        if at + 4 > len(data):
            break
        (size,) = struct.unpack_from("<I", data, at)
        if at + 4 + size > len(data):
            break
        try:
            texts.append(str(data[at + 4 : at + 4 + size], "utf-8"))
        except UnicodeDecodeError:
            place = at_row(where, len(texts))
            raise InputError(Problem(place, "is not UTF-8 text")) from None
        at += 4 + size
    if at != len(data) or len(texts) != rows:
        what = f"its {len(data)} bytes are not {rows} texts with their lengths in front"
        raise InputError(Problem(where, what))
    return texts


def _output_metadata(version: Loaded) -> list[dict[str, Any]]:
    classes = version.schema.classes
    if version.spec.objective == "multiclass" and classes is not None:
        first: list[dict[str, Any]] = [
            {"name": "class", "datatype": "BYTES", "shape": [-1]},
            {
                "name": "probabilities",
                "datatype": "FP32",
                "shape": [-1, len(classes)],
                "parameters": {"classes": announced(classes)},
            },
        ]
    else:
        name = "value" if classes is None else "probability"
        first = [{"name": name, "datatype": "FP32", "shape": [-1]}]
    return [
        *first,
        {"name": "prediction_id", "datatype": "BYTES", "shape": [-1]},
        {"name": "version", "datatype": "INT64", "shape": [-1]},
    ]


def _wanted(document: Mapping[str, Any], version: Loaded) -> dict[str, bool]:
    """The outputs asked for, and whether each is to be binary. All when none is named."""
    parameters = document.get("parameters")
    binary = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    known = [output["name"] for output in _output_metadata(version)]
    outputs = document.get("outputs")
    if outputs is None or outputs == []:
        return dict.fromkeys(known, binary)
    wanted: dict[str, bool] = {}
    if not isinstance(outputs, list):
        raise _invalid("outputs: expected a list")
    for output in outputs:
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or name not in known:
            raise _invalid(f"no output {shown(name)}; there are {', '.join(known)}")
        own = output.get("parameters")
        wanted[name] = (
            own["binary_data"] is True if isinstance(own, dict) and "binary_data" in own else binary
        )
    return wanted


def _reply(
    model: LiveModel,
    found: Sequence[Predicted],
    document: Mapping[str, Any],
    wanted: Mapping[str, bool],
) -> Reply:
    classes, arrays = _arrays(found)
    outputs, blobs = [], []
    for name, binary in wanted.items():
        values = arrays[name]
        is_text = values.dtype == object
        datatype = "BYTES" if is_text else "INT64" if values.dtype == np.int64 else "FP32"
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(values.shape)}
        parameters: dict[str, Any] = {}
        if name == "probabilities" and classes is not None and len({p.classes for p in found}) > 1:
            parameters["classes"] = announced(classes)
        if binary:
            blob = _text_bytes(values) if is_text else values.astype(values.dtype, "C").tobytes()
            parameters["binary_data_size"] = len(blob)
            blobs.append(blob)
        else:
            output["data"] = values.ravel().tolist()
        if parameters:
            output["parameters"] = parameters
        outputs.append(output)
    versions = sorted({part.version for part in found})
    answer = {
        "model_name": model.name,
        "model_version": ",".join(map(str, versions)),
        **({"id": document["id"]} if document.get("id") is not None else {}),
        "outputs": outputs,
    }
    reply = Reply.json(answer)
    if not blobs:
        return reply
    length = (_JSON_LENGTH, b"%d" % len(reply.body))
    return Reply(b"".join([reply.body, *blobs]), kind=_OCTETS, headers=(length,))


def _arrays(found: Sequence[Predicted]) -> tuple[tuple[str, ...] | None, dict[str, np.ndarray]]:
    """The classes in the order of the probabilities, and all outputs in that of the request's
    rows."""
    rows = sum(len(part.ids) for part in found)
    places = [slice(None) if part.places is None else list(part.places) for part in found]
    first = found[0]

    def gathered(parts: Sequence[np.ndarray]) -> np.ndarray:
        whole = np.empty((rows, *parts[0].shape[1:]), parts[0].dtype)
        for place, part in zip(places, parts, strict=True):
            whole[place] = part
        return whole

    arrays = {
        "prediction_id": gathered([np.array(part.ids, object) for part in found]),
        "version": gathered([np.full(len(p.ids), p.version, np.int64) for p in found]),
    }
    classes, values = in_one_order(found)
    if first.objective == "multiclass":
        most = [np.array(p.classes, object)[p.values.argmax(axis=1)] for p in found]
        arrays |= {"class": gathered(most), "probabilities": gathered(values)}
    else:
        arrays["value" if classes is None else "probability"] = gathered(values)
    return classes, arrays


def _text_bytes(values: np.ndarray) -> bytes:
    encoded = [str(value).encode() for value in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def _invalid(what: str) -> Refusal:
    return Refusal(400, "invalid_request", what)
