"""What requests and answers look like, as JSON Schema: the fixed ones from types, a model's rows
from its bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from perennial.bundle.outputs import all_classes
from perennial.contracts.features import ColumnType
from perennial.data.frames import Typed
from perennial.serving.labels import MAX_METRICS, METRIC_NAME, key_columns
from perennial.serving.models import Loaded

Schema = dict[str, Any]
REF = "#/components/schemas/{name}"

_MOST_EXAMPLES = 20
_LARGEST = 3.4e38  # of a float32, which is what a booster reads
_TYPES: Mapping[ColumnType, Schema] = {
    "float": {"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST},
    "integer": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "boolean": {"type": "boolean"},
    "category": {"type": "string"},
    "string": {"type": "string"},
    "datetime": {"type": "string", "format": "date-time"},
}


class Problem(Struct):
    """One thing that is wrong: where, what, and what to do."""

    where: str
    what: str
    fix: str


class Trouble(Struct):
    """Why a request was refused. `code` is for programs and stays the same between releases."""

    code: str
    message: str
    problems: list[Problem]
    request_id: str


class Error(Struct):
    """Every error of the plain endpoints."""

    error: Trouble


class ErrorV2(Struct):
    """Every error of the Open Inference Protocol."""

    error: str


class Accepted(Struct):
    """Labels that were taken."""

    model: str
    accepted: int


class ServedVersion(Struct):
    """A version that answers. `weight` is its share of the requests."""

    version: int
    arm: Literal["champion", "challenger", "shadow", "pinned"]
    weight: int
    digest: str


class Served(Struct):
    """A model that is served."""

    name: str
    description: str
    objective: str
    ready: bool
    generation: int
    versions: list[ServedVersion]


class ServedColumn(Struct):
    """A column of a request's rows."""

    name: str
    type: ColumnType
    nullable: bool
    required: bool


class ServedInFull(Served):
    """A model, and what a row must have."""

    columns: list[ServedColumn]


class Models(Struct):
    """All models."""

    models: list[Served]


class Binary(Struct):
    """Binary data follow the JSON part of the body."""

    binary_data_size: int | UnsetType = UNSET


class InputTensor(Struct):
    """A column of rows. Text, categories and times are BYTES. A missing value is null."""

    name: str
    shape: list[int]
    datatype: Literal[
        "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16",
        "FP32", "FP64", "BYTES",
    ]  # fmt: skip
    data: list[Any] | UnsetType = UNSET
    parameters: Binary | UnsetType = UNSET


class WantedParameters(Struct):
    binary_data: bool | UnsetType = UNSET


class WantedOutput(Struct):
    """An output that the answer shall have, and in which form."""

    name: str
    parameters: WantedParameters | UnsetType = UNSET


class InferParameters(Struct):
    binary_data_output: bool | UnsetType = UNSET


class Infer(Struct):
    """Rows as tensors, one a column, each of the shape [rows] or [rows, 1]."""

    inputs: Annotated[list[InputTensor], Meta(min_length=1)]
    id: str | UnsetType = UNSET
    outputs: list[WantedOutput] | UnsetType = UNSET
    parameters: InferParameters | UnsetType = UNSET


class OutputParameters(Binary):
    """`classes` is the order of the probabilities, a JSON list in a text; an output has it where
    versions with different classes answered, else the version's metadata do."""

    classes: str | UnsetType = UNSET


class OutputTensor(Struct):
    """A column of the answer, a row of `data` a row of the request."""

    name: str
    shape: list[int]
    datatype: Literal["FP32", "INT64", "BYTES"]
    data: list[Any] | UnsetType = UNSET
    parameters: OutputParameters | UnsetType = UNSET


class Inferred(Struct):
    """Predictions, with the id of each and the version that made it."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | UnsetType = UNSET


class TensorParameters(Struct):
    """`classes` is the order of the probabilities, a JSON list in a text."""

    classes: str


class TensorMetadata(Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: TensorParameters | UnsetType = UNSET


class ModelMetadata(Struct):
    """A model's tensors, in and out."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(Struct):
    name: str
    version: str
    extensions: list[str]


class Live(Struct):
    live: bool


class Ready(Struct):
    ready: bool


class ModelReady(Struct):
    name: str
    ready: bool


FIXED: tuple[type[Struct], ...] = (
    Error, ErrorV2, Accepted, Models, ServedInFull, Infer, Inferred, ModelMetadata, ServerMetadata,
    Live, Ready, ModelReady,
)  # fmt: skip


def fixed_schemas() -> dict[str, Schema]:
    """The schemas that no model changes, by name."""
    return msgspec.json.schema_components(FIXED, ref_template=REF)[1]


def ref(name: str) -> Schema:
    return {"$ref": REF.format(name=name)}


def row_schema(versions: Iterable[Loaded]) -> Schema:
    """One row that every one of these versions can read.

    A column that some version's features need must be there, if only as null; one that is only
    logged, or declared and not needed, may be.
    """
    properties: dict[str, Schema] = {}
    required: dict[str, None] = {}
    for loaded in versions:
        levels = {f.name: f.levels for f in loaded.schema.features if f.levels is not None}
        for name, column in read_columns(loaded).items():
            found = column_schema(column, levels.get(name))
            properties.setdefault(name, found)
        required |= dict.fromkeys(column.name for column in loaded.schema.inputs)
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def read_columns(loaded: Loaded) -> dict[str, Typed]:
    """The columns that a row for this version may have: what it reads and logs, and what model.yaml
    declares besides, but for the label."""
    columns = dict(loaded.predictor.columns)
    for name, column in loaded.spec.columns.items():
        if name != loaded.spec.label.column:
            columns.setdefault(name, column)
    return columns


def column_schema(column: Typed, levels: tuple[str, ...] | None = None) -> Schema:
    """A value of a column. ``levels`` are what training saw: others are allowed, and predicted as
    missing, so they are examples here and no enumeration."""
    schema = dict(_TYPES[column.type])
    if column.nullable:
        schema["type"] = [schema["type"], "null"]
    if levels:
        schema["examples"] = list(levels[:_MOST_EXAMPLES])
        more = len(levels) - _MOST_EXAMPLES
        known = f"Training saw the examples and {more:,} more" if more > 0 else "Training saw these"
        schema["description"] = f"{known}; any other value is predicted as a missing one."
    elif column.nullable:
        schema["description"] = "null: not known."
    return schema


def prediction_schema(versions: Sequence[Loaded]) -> Schema:
    """The prediction of one row, by whichever of these versions answers. Each tells the classes
    that it knows."""
    loaded = versions[0]
    properties: dict[str, Schema] = {
        "id": {"type": "string", "description": "By which its label is sent later."},
        "version": {"type": "integer"},
        "arm": {"enum": ["champion", "challenger", "pinned"]},
    }
    classes = loaded.schema.classes
    if classes is None:
        own: dict[str, Schema] = {"value": {"type": "number"}}
    elif loaded.spec.objective == "binary":
        what = f"Of the class {classes[1]!r}."
        own = {"probability": {"type": "number", "minimum": 0, "maximum": 1, "description": what}}
    else:
        share = {"type": "number", "minimum": 0, "maximum": 1}
        each = [version.schema.classes or () for version in versions]
        known = all_classes(each) or ()
        by_all = set(known).intersection(*each)
        own = {
            "class": {"enum": list(known)},
            "probabilities": {
                "type": "object",
                "properties": dict.fromkeys(known, share),
                "required": [name for name in known if name in by_all],
            },
        }
    properties |= own
    return {"type": "object", "properties": properties, "required": list(properties)}


def label_schema(loaded: Loaded, classes: tuple[str, ...] | None) -> Schema:
    """A late label, of a prediction by its id or of a row by what identifies it."""
    label: Schema = {"type": "number"} if classes is None else {"enum": list(classes)}
    keys = {name: column_schema(loaded.predictor.columns[name]) for name in key_columns(loaded)}
    identity: Schema = {"type": ["string", "null"], "minLength": 1, "maxLength": 64}
    ways: list[Schema] = [_known(["prediction_id"])]
    if keys:
        ways.append(_known(list(keys)))
    return {
        "type": "object",
        "properties": {
            "label": label,
            "prediction_id": identity,
            "metrics": _metrics_schema(),
            **keys,
        },
        "required": ["label"],
        "anyOf": ways,
        "additionalProperties": False,
    }


def _metrics_schema() -> Schema:
    return {
        "type": ["object", "null"],
        "description": "Further numbers that became known with it, which a rollout can watch.",
        "propertyNames": {"pattern": f"^{METRIC_NAME}$"},
        "additionalProperties": {"type": ["number", "null"]},
        "maxProperties": MAX_METRICS,
        "examples": [{"revenue": 12.5}],
    }


def _known(names: list[str]) -> Schema:
    """These keys are there, and neither null nor empty."""
    known: Schema = {"not": {"type": "null"}, "minLength": 1}
    return {"required": names, "properties": dict.fromkeys(names, known)}
