"""The service's OpenAPI document, and the same as a page. Both are of the models served just now.

The page is plain HTML made here: Swagger's or Redoc's own would be a megabyte of script, from
somebody else's server or as one more dependency, on a page whose policy is that no script runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perennial import __version__
from perennial.reports.pages import template
from perennial.serving.labels import label_classes
from perennial.serving.models import LiveModel, Loaded
from perennial.serving.openapi_schemas import (
    Schema,
    fixed_schemas,
    label_schema,
    prediction_schema,
    ref,
    row_schema,
)
from perennial.serving.replies import ARROW, JSON

Operation = dict[str, Any]

_JSON, _ARROW = JSON.decode(), ARROW.decode()
_REFUSED = {
    400: "The body is not what its content type says.",
    401: "No valid token.",
    403: "The token lacks the role; or, without tokens, the request came from elsewhere.",
    404: "No such model or version is served.",
    408: "The body did not arrive in time.",
    409: "Nothing of this model is kept here.",
    413: "The body is too large, or has too many rows.",
    415: "The content type, or the content encoding, is not read here.",
    422: "Columns are missing, unknown or of another type; there are no rows.",
    500: "The server failed; its log says why, under the request's id.",
    503: "Too busy, not ready, or the log is full: come back after Retry-After seconds.",
}
_ANYBODY = (500, 503)
_READING = (401, 403, *_ANYBODY)
_ASKING = (400, 401, 403, 404, 408, 413, 415, 422, *_ANYBODY)


def openapi_document(
    models: Mapping[str, LiveModel], *, secured: bool, max_rows: int
) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server. ``secured``: it asks for tokens.

    A model that has no version yet is left out.
    """
    schemas = fixed_schemas()
    paths: dict[str, dict[str, Operation]] = {}
    ready = [(name, model) for name, model in sorted(models.items()) if model.ready]
    for name, model in ready:
        champion = model.champion()
        answering = [model.loaded[arm.version] for arm in model.route.arms if arm.weight]
        schemas[f"{name}.row"] = row_schema([champion, *answering])
        schemas[f"{name}.prediction"] = prediction_schema([champion, *answering])
        schemas[f"{name}.label"] = label_schema(champion, label_classes(model))
        paths |= _of_model(name, model, champion, max_rows)
    versions = {str(number) for _, model in ready for number in model.loaded}
    paths |= _general([name for name, _ in ready], sorted(versions, key=int))
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Perennial",
            "version": __version__,
            "description": "Predictions of the models in service, and their late labels.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if secured:
        document["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
        }
        document["security"] = [{"token": []}]
    return document


def docs_page(document: Mapping[str, Any]) -> str:
    """The document as one page: no script, nothing fetched."""
    operations = [
        (path, method.upper(), operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    tags = dict.fromkeys(operation["tags"][0] for _, _, operation in operations)
    return template("perennial.serving", "docs.html.j2").render(
        info=document["info"],
        secured="security" in document,
        groups=[(tag, [o for o in operations if o[2]["tags"][0] == tag]) for tag in tags],
        schemas=document["components"]["schemas"],
        described=_described,
        kind=_kind,
        named=_named,
    )


def _of_model(
    name: str, model: LiveModel, champion: Loaded, max_rows: int
) -> dict[str, dict[str, Operation]]:
    row, label = ref(f"{name}.row"), ref(f"{name}.label")
    rows = _one_or_many(row, "rows", max_rows)
    predicted = ref(f"{name}.prediction")
    answer = {
        "anyOf": [
            {"allOf": [predicted], "required": ["model"], "properties": {"model": {"const": name}}},
            {
                "type": "object",
                "properties": {
                    "model": {"const": name},
                    "predictions": {"type": "array", "items": predicted},
                },
                "required": ["model", "predictions"],
            },
        ]
    }
    summary = champion.spec.description or "Predict one row or many"
    predict: Operation = {
        "summary": summary.splitlines()[0],
        "description": "One row as an object, or many as a list or an Arrow IPC stream. With "
        f"`Accept: {_ARROW}` the answer is one, too.",
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": rows}, _ARROW: {}},
        },
        "responses": _responses({_JSON: {"schema": answer}, _ARROW: {}}, _ASKING),
        "tags": [name],
    }
    version = _parameter("version", [str(number) for number in sorted(model.loaded)])
    pinned: Operation = {**predict, "summary": "Predict with one version", "parameters": [version]}
    labels: Operation = {
        "summary": "Send labels that became known",
        "description": "Each says what it is of: a prediction's id, or all that identifies a row.",
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": _one_or_many(label, "labels", max_rows)}},
        },
        "responses": _responses({_JSON: {"schema": ref("Accepted")}}, (*_ASKING, 409)),
        "tags": [name],
    }
    return {
        f"/models/{name}/predict": {"post": predict},
        f"/models/{name}/versions/{{version}}/predict": {"post": pinned},
        f"/models/{name}/labels": {"post": labels},
    }


def _general(names: Sequence[str], versions: Sequence[str]) -> dict[str, dict[str, Operation]]:
    """What every server has, whatever its models."""
    name = _parameter("name", names)
    version = _parameter("version", versions)
    infer: Operation = {
        "summary": "Predict rows given as tensors",
        "description": "Tensors may be binary behind the JSON part, whose length then stands in "
        "Inference-Header-Content-Length.",
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": ref("Infer")}},
        },
        "responses": _responses(
            {_JSON: {"schema": ref("Inferred")}, "application/octet-stream": {}}, _ASKING, "ErrorV2"
        ),
        "tags": ["Open Inference Protocol v2"],
    }
    v2 = "/v2/models/{name}"
    pinned = f"{v2}/versions/{{version}}"
    both = [name, version]
    open_inference = {
        "/v2": _get("Server metadata", "ServerMetadata", _READING),
        "/v2/health/live": {**_get("Does it live?", "Live", _ANYBODY), "security": []},
        "/v2/health/ready": {**_ready(), "security": []},
        v2: _get("Model metadata", "ModelMetadata", (*_READING, 404), [name]),
        f"{v2}/ready": _get("Does the model answer?", "ModelReady", (*_READING, 404), [name]),
        pinned: _get("Version metadata", "ModelMetadata", (*_READING, 404), both),
        f"{pinned}/ready": _get("Does the version answer?", "ModelReady", (*_READING, 404), both),
    }
    paths = {
        "/models": {"get": _tagged(_get("All models", "Models", _READING, error="Error"))},
        "/models/{name}": {
            "get": _tagged(
                _get("A model and its columns", "ServedInFull", (*_READING, 404), [name], "Error")
            )
        },
        f"{v2}/infer": {"post": {**infer, "parameters": [name]}},
        f"{pinned}/infer": {"post": {**infer, "parameters": both}},
    }
    paths |= {path: {"get": operation} for path, operation in open_inference.items()}
    for path, summary, kind in (
        ("/", "Status page", "text/html"),
        ("/docs", "This document as a page", "text/html"),
        ("/openapi.json", "This document", _JSON),
        ("/metrics", "Prometheus metrics", "text/plain"),
    ):
        responses = _responses({kind: {}}, _READING)
        paths[path] = {"get": {"summary": summary, "responses": responses, "tags": ["Operation"]}}
    return paths


def _get(
    summary: str,
    schema: str,
    refused: Sequence[int],
    parameters: Sequence[Schema] = (),
    error: str = "ErrorV2",
) -> Operation:
    return {
        "summary": summary,
        **({"parameters": list(parameters)} if parameters else {}),
        "responses": _responses({_JSON: {"schema": ref(schema)}}, refused, error),
        "tags": ["Open Inference Protocol v2"],
    }


def _ready() -> Operation:
    operation = _get("Do all its models answer?", "Ready", _ANYBODY)
    either = {"anyOf": [ref("Ready"), ref("ErrorV2")]}
    operation["responses"]["503"]["content"] = {_JSON: {"schema": either}}
    return operation


def _tagged(operation: Operation) -> Operation:
    return {**operation, "tags": ["Models"]}


def _responses(
    content: Mapping[str, Any], refused: Sequence[int], error: str = "Error"
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "200": {"description": "Done.", "headers": _headers(200), "content": dict(content)}
    }
    for status in sorted(refused):
        found[str(status)] = {
            "description": _REFUSED[status],
            "headers": _headers(status),
            "content": {_JSON: {"schema": ref(error)}},
        }
    return found


def _headers(status: int) -> dict[str, Any]:
    what = "The request's own, or a new one; the log knows the request by it."
    headers: dict[str, Any] = {"X-Request-Id": {"schema": {"type": "string"}, "description": what}}
    if status == 503:
        headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "In seconds."}
    if status == 401:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    return headers


def _parameter(name: str, values: Sequence[str]) -> Schema:
    schema: Schema = {"type": "string"}
    if values:
        schema["enum"] = list(values)
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _one_or_many(one: Schema, key: str, most: int) -> Schema:
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": most}
    wrapped = {
        "type": "object",
        "properties": {key: many},
        "required": [key],
        "additionalProperties": False,
    }
    return {"anyOf": [one, many, wrapped]}


def _described(schema: Schema) -> Iterator[tuple[str, str, bool, str]]:
    """Name, type, whether required, and meaning of each key of an object, for the page."""
    required = schema.get("required", ())
    for name, value in schema.get("properties", {}).items():
        yield name, _kind(value), name in required, value.get("description", "")


def _kind(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    kind = schema.get("type", "any value")
    if "allOf" in schema:
        return " and ".join(_kind(part) for part in schema["allOf"])
    if kind == "object" and "properties" in schema:
        parts = (f"{name}: {_kind(value)}" for name, value in schema["properties"].items())
        return f"{{{', '.join(parts)}}}"
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{text} ({schema['format']})" if "format" in schema else text


def _named(value: object) -> list[str]:
    """The schemas that a schema refers to, each once."""
    if isinstance(value, dict):
        own = [_kind(value)] if "$ref" in value else []
        return list(dict.fromkeys([*own, *(n for part in value.values() for n in _named(part))]))
    if isinstance(value, list):
        return list(dict.fromkeys(name for part in value for name in _named(part)))
    return []
