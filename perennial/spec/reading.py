"""Read and write model.yaml: all mistakes at once, each with its path and the nearest key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from perennial.contracts.errors import InputError, Problem
from perennial.spec.schema import Beats, Floor, Latency, ModelSpec, Section, Slices, nearest

_GATES: dict[str, type[Section]] = {
    "floor": Floor,
    "beats": Beats,
    "slices": Slices,
    "latency": Latency,
}


def load_spec(path: Path) -> ModelSpec:
    """Read a model.yaml.

    Raises InputError with every mistake at once, each with its path in the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        fix = "perennial init NAME --data FILE --label COL writes one"
        raise InputError(Problem(str(path), "no such file", fix)) from None
    except UnicodeDecodeError as error:
        raise InputError(Problem(str(path), f"not UTF-8 text at byte {error.start}")) from None
    return parse_spec(text, str(path))


def parse_spec(text: str, where: str = "model.yaml") -> ModelSpec:
    """The spec that a model.yaml's text says. Raises InputError (see ``load_spec``)."""
    try:
        document = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark else where
        message = f"not valid YAML: {getattr(error, 'problem', error)}"
        raise InputError(Problem(place, message)) from None
    if not isinstance(document, dict):
        raise InputError(Problem(where, "expected keys and values at the top level"))
    try:
        return ModelSpec.model_validate(_upgrade(document))
    except ValidationError as error:
        problems = [p for item in error.errors(include_url=False) for p in _problems(item, where)]
        raise InputError(problems) from None


def spec_text(spec: ModelSpec) -> str:
    """The spec as YAML text that ``parse_spec`` reads back to an equal one; stable to the byte."""
    return yaml.safe_dump(
        spec.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True
    )


class _UniqueKeys(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice; YAML would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _upgrade(document: Mapping[Any, Any]) -> dict[Any, Any]:
    """Bring a document to the present format (YAML 1.1 reads a bare ``on`` as true)."""
    upgraded = dict(document)
    retrain = upgraded.get("retrain")
    if isinstance(retrain, dict) and True in retrain:
        upgraded["retrain"] = {("on" if key is True else key): v for key, v in retrain.items()}
    return upgraded


def _problems(item: ErrorDetails, where: str) -> Iterator[Problem]:
    location = [str(part) for part in item["loc"]]
    keys = _valid_keys(location[:-1])
    if location[:1] == ["gates"] and len(location) > 2:
        del location[2]  # the tag that tells which gate it is: not in the file
    message = item["msg"].removeprefix("Value error, ")
    if not location:  # rules across sections carry their own paths, a line each
        for line in message.split("\n"):
            place, _, text = line.partition(": ")
            yield Problem(f"{where}, {place}", text)
        return
    path = ".".join(location)
    if item["type"] == "extra_forbidden":
        hint = nearest(location[-1], keys)
        fix = "" if hint else f"valid keys: {', '.join(keys)}"
        yield Problem(f"{where}, {path}", f"unknown key {location[-1]!r}{hint}", fix)
    elif item["type"] == "missing":
        yield Problem(f"{where}, {path}", "this key is required")
    else:
        got = item["input"]
        shown = "" if isinstance(got, dict) or repr(got) in message else f" (got {got!r})"
        yield Problem(f"{where}, {path}", message + shown)


def _valid_keys(path: list[str]) -> list[str]:
    """The keys of the section at a path, gate tags included; none where there is no section."""
    sections: list[type[Section]] = [ModelSpec]
    for part in path:
        if part in _GATES:
            sections = [_GATES[part]]
        elif len(sections) == 1 and part in sections[0].model_fields:
            sections = _sections_in(sections[0].model_fields[part].annotation)
    return list(sections[0].model_fields) if len(sections) == 1 else []


def _sections_in(annotation: object) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]
