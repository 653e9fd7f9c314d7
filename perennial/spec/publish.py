"""The JSON Schema of model.yaml, for editors: made from the sections and their docstrings."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from perennial.spec.parameters import CHOICES, DOMAINS, SETTABLE, TUNABLE
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
        return {"type": "string", **({"enum": list(CHOICES[name])} if CHOICES[name] else {})}
    domain = DOMAINS[name]
    schema: dict[str, Any] = {"type": "integer" if domain.whole else "number"}
    if math.isfinite(domain.low):
        schema["exclusiveMinimum" if domain.open else "minimum"] = domain.low
    if math.isfinite(domain.high):
        schema["maximum"] = domain.high
    return schema
