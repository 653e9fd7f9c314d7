"""What is written of a model.yaml: its JSON Schema for editors, and the files of a new model."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from perennial.contracts.errors import InputError, Problem
from perennial.spec.parameters import CHOICES, CONSTRAINTS, DOMAINS, SETTABLE, TUNABLE
from perennial.spec.schema import FORMAT, ModelSpec
from perennial.spec.values import format_duration

SCHEMA_FILE = "model.schema.json"

_JSON_SCHEMA_KEYS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a model.yaml as a user writes it: durations are text, a range is
    a pair or a mapping. What ``parse_spec`` accepts is valid; rules across keys are not in it."""
    schema = ModelSpec.model_json_schema(schema_generator=_Generator)
    _tidy(schema)
    tuning, training = (schema["$defs"][name]["properties"] for name in ("Tuning", "Training"))
    any_range = tuning["space"]["additionalProperties"]
    tuning["space"] |= {"properties": dict.fromkeys(TUNABLE, any_range)}
    training["params"] |= {"properties": {name: _setting(name) for name in SETTABLE}}
    tuning["space"]["additionalProperties"] = training["params"]["additionalProperties"] = False
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:perennial:model.yaml:{FORMAT}",
        **schema,
        "title": "Perennial model.yaml",
    }


def json_schema_text() -> str:
    """The text of model.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


class _Generator(GenerateJsonSchema):
    """Defaults as a user would write them, and no titles made of key names."""

    def encode_default(self, dft: Any) -> Any:
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def _tidy(node: Any) -> None:
    """In place: the standard's names for limits, one-line descriptions, no default of a section."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    for key in [key for key in node if key in _JSON_SCHEMA_KEYS]:
        node[_JSON_SCHEMA_KEYS[key]] = node.pop(key)
    if isinstance(node.get("description"), str):
        node["description"] = " ".join(node["description"].split())
    if "$ref" in node or node.get("default", 0) is None or "additionalProperties" in node:
        node.pop("default", None)
    for item in node.values():
        _tidy(item)


def _setting(name: str) -> dict[str, Any]:
    """The schema of one fixed parameter."""
    if name in CHOICES:
        return {"type": "string", "enum": list(CHOICES[name])}
    if name in CONSTRAINTS:
        return _constraint(name)
    domain = DOMAINS[name]
    schema: dict[str, Any] = {"type": "integer" if domain.whole else "number"}
    if math.isfinite(domain.low):
        schema["exclusiveMinimum" if domain.open else "minimum"] = domain.low
    if math.isfinite(domain.high):
        schema["maximum"] = domain.high
    return schema


def _constraint(name: str) -> dict[str, Any]:
    """The schema of a constraint of features, by their names."""
    if name == "monotone_constraints":
        return {"type": "object", "additionalProperties": {"enum": [-1, 0, 1]}}
    group = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    return {"type": "array", "items": group}


@dataclass(frozen=True, slots=True)
class NewModel:
    """The files of a model that is not written yet."""

    name: str
    model_text: str
    features_text: str
    notes: tuple[str, ...] = ()
    """What its author should know of it, a line each."""


def write_model(models: Path, new: NewModel) -> list[Path]:
    """Write a new model's folder below ``models``, with the schema for editors beside it.

    Returns the files written; model.yaml is the last. Raises InputError, and leaves nothing
    behind, when the model is there already or the disk doesn't take it.
    """
    folder = models / new.name.replace("-", "_")
    files = {
        models / SCHEMA_FILE: json_schema_text(),
        folder / "features.py": new.features_text,
        folder / "model.yaml": new.model_text,
    }
    there = [path.name for path in list(files)[1:] if path.exists()]
    if there:
        what = f"the model {new.name!r} has {' and '.join(there)} already"
        raise InputError(Problem(str(folder), what, "choose another name, or remove them first"))
    made = not folder.exists()
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            if path.parent == folder or _text_of(path) != text:
                _write(path, text)
                written.append(path)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        what = f"can't be written: {error.strerror or error}"
        raise InputError(Problem(str(folder), what)) from None
    return written


def _write(path: Path, text: str) -> None:
    """All of it or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _text_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
