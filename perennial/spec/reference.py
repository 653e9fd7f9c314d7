"""The reference page of model.yaml, made from its JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from perennial.spec.parameters import (
    CHOICES,
    CONSTRAINTS,
    DEFAULT_SPACE,
    DOMAINS,
    OF_OBJECTIVES,
    TUNABLE,
)
from perennial.spec.publish import SCHEMA_FILE, json_schema

EXAMPLE = """\
name: late-payment
objective: binary
source: {kind: csv, uri: data/invoices.csv, event_time: issued_at, entity: [invoice]}
label: {column: paid_late, delay: 30d}
columns:
  invoice: {type: string, nullable: false}
  amount: {type: float, min: 0}
  terms_days: {type: integer, min: 0, max: 120}
  country: {type: category}
  channel: {type: category, allowed: [web, phone, agent]}
split: {kind: time, validation: 4w, test: 4w}
tuning: {trials: 30, space: {learning_rate: {low: 0.02, high: 0.3, log: true}, max_depth: [3, 8]}}
gates:
  - {metric: roc_auc, min: 0.7}
  - {beats: champion, metric: logloss, first_version: passed}
  - {slices: [country, channel], metric: logloss, max_regression: 0.02}
retrain: {schedule: "0 6 * * 1"}
"""

_HEAD = f"""\
# model.yaml

Written from the code by `python -m docs.generate`.

A model is a folder `models/<name>/` with this file and, where the columns alone are not enough, a
`features.py`. `perennial check NAME` reads both and says everything that is wrong at once, each
mistake with its path and the nearest valid key; an unknown key is a mistake. For completion and
checks as you type, give your editor [{SCHEMA_FILE}]({SCHEMA_FILE}); the first line of a file,
`# yaml-language-server: $schema=…`, does so wherever the YAML language server is used.

```yaml
{EXAMPLE}```

Plain values are those of YAML 1.2: `on` and `no` are text, `1e-3` is a number. A **duration** is a
number and a unit (`90s`, `10m`, `6h`, `14d`, `2w`), a **share** a number from 0 to 1, a
**size** a number and a unit (`512MiB`, `2GiB`). Times are UTC.
"""

_PARAMETERS = """\
## Parameters of XGBoost

What `tuning.space` may search and `training.params` may fix.
"""


def reference_page() -> str:
    """The text of docs/reference/model-yaml.md: a table for each section, in the file's order."""
    schema = json_schema()
    definitions = schema["$defs"]
    for node in schema["properties"].values():
        if "$ref" in node:
            node["description"] = definitions[node["$ref"].rpartition("/")[2]]["description"]
    parts = [_HEAD, f"## Top level\n\n{_table(schema)}"]
    shown: set[str] = set()
    for key, node in schema["properties"].items():
        for name in _references(node, definitions):
            if name not in shown:
                shown.add(name)
                title = key if name.lower() == key else f"{key}: {name.lower()}"
                section = definitions[name]
                body = next(
                    (way for way in section.get("oneOf", ()) if "properties" in way), section
                )
                parts.append(f"## {title}\n\n{section['description']}\n\n{_table(body)}")
    return "\n".join([*parts, _PARAMETERS, _parameters()])


def _parameters() -> str:
    rows = ["| parameter | values | searched by default |", "|---|---|---|"]
    for name, domain in DOMAINS.items():
        ends = DEFAULT_SPACE.get(name)
        span = f"{ends.low:g} to {ends.high:g}{', logarithm' if ends.log else ''}" if ends else ""
        span = span if name in TUNABLE else "can't be"
        values = f"{'whole number ' if domain.whole else ''}{domain}{OF_OBJECTIVES.get(name, '')}"
        rows.append(f"| `{name}` | {values} | {span} |")
    for name, choices in CHOICES.items():
        values = ", ".join(f"`{choice}`" for choice in choices)
        rows.append(f"| `{name}` | {values} | can't be |")
    for name, example in CONSTRAINTS.items():
        rows.append(f"| `{name}` | of features, by name: `{example}` | can't be |")
    return "\n".join(rows) + "\n"


def _references(node: Any, definitions: Mapping[str, Any]) -> Iterator[str]:
    """The sections a key leads to, each before those it leads to itself."""
    if isinstance(node, dict):
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            yield name
            yield from _references(definitions[name].get("properties"), definitions)
        for value in node.values():
            yield from _references(value, definitions)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value, definitions)


def _table(section: Mapping[str, Any]) -> str:
    required = section.get("required", ())
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, node in section["properties"].items():
        default = "**required**" if key in required else _default(node)
        cells = (f"`{key}`", _type(node), default, node.get("description", ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _default(node: Mapping[str, Any]) -> str:
    if "default" not in node:
        return ""
    value = node["default"]
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def _type(node: Mapping[str, Any]) -> str:  # one line a form of schema
    if "anyOf" in node:
        return " or ".join(_type(way) for way in node["anyOf"] if way != {"type": "null"})
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "$ref" in node:
        return "section"
    kind = node["type"]
    if kind == "array":
        return "list of gates" if "oneOf" in node["items"] else f"list of {_type(node['items'])}"
    if kind == "object":
        return "keys and values"
    if isinstance(kind, list):
        return " or ".join(_WORDS[one] for one in kind)
    if "examples" in node:
        return "size" if "GiB" in node["pattern"] else "duration"
    return _WORDS[kind] + _limits(node)


_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
}
_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def _limits(node: Mapping[str, Any]) -> str:
    limits = [f"{words} {node[key]}" for key, words in _LIMITS.items() if key in node]
    return f" {', '.join(limits)}" if limits else ""
