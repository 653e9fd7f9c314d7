"""YAML as model.yaml uses it: version 1.2's plain values, and no key twice.

PyYAML reads version 1.1, where ``on``, ``no`` and ``yes`` are booleans, ``1e-3`` is text, ``010``
is eight and ``12:30`` is 750. Editors and people go by version 1.2.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

from perennial.contracts.errors import InputError, Problem
from perennial.spec.values import shown

_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_INTEGER = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_PLAIN_VALUES = (
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("int", _INTEGER, "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("merge", re.compile(r"^<<$"), "<"),
)


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice; YAML would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _error("a key must be text", key_node)
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise _error(f"the key {shown(key)} is given twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        try:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        except ValueError:
            raise _error(f"{shown(text)} is not a whole number", node) from None


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either version of YAML would not read as text, and escapes the line breaks
    that PyYAML reads as others than it wrote."""

    escaped: ClassVar[frozenset[str]] = frozenset("\r\x85\u2028\u2029")

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if self.escaped & set(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


class _InlineDumper(_Dumper):
    """Writes a text with line breaks in one line."""

    escaped = _Dumper.escaped | {"\n"}


_Dumper.add_representer(str, _Dumper.represent_text)
_InlineDumper.add_representer(str, _InlineDumper.represent_text)
_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or str(tag).rpartition(":")[2] in ("bool", "float", "null", "str", "seq", "map")
}
for _name, _pattern, _first in _PLAIN_VALUES:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, list(_first))
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole)


def _error(text: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


def read_document(text: str, where: str, fix: str = "") -> dict[Any, Any]:
    """The mapping that a YAML text says. Raises InputError with the line when it is none, with
    ``fix`` when it is empty."""
    try:
        document = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}, line {mark.line + 1}" if mark else where
        raise InputError(
            Problem(place, f"not valid YAML: {error.problem}", _advice(error))
        ) from None
    except yaml.reader.ReaderError as error:
        raise InputError(Problem(where, f"not valid YAML: {error.reason}")) from None
    except (ValueError, KeyError) as error:  # a tag such as !!float before other text
        raise InputError(Problem(where, f"not valid YAML: {error}")) from None
    except RecursionError:
        raise InputError(Problem(where, "not valid YAML: nested too deeply")) from None
    if document is None:
        raise InputError(Problem(where, "the file is empty", fix))
    if not isinstance(document, dict):
        raise InputError(
            Problem(where, f"expected keys and values at the top level, not {shown(document)}")
        )
    return document


def document_text(document: dict[str, Any]) -> str:
    """A mapping as YAML that ``read_document`` reads back to an equal one; stable to the byte."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def inline_text(value: object) -> str:
    """A value as YAML in one line, quoted only where it must be: ``[a, b]``, ``{a: 1}``."""
    text = yaml.dump(
        value,
        Dumper=_InlineDumper,
        allow_unicode=True,
        width=10**6,
        sort_keys=False,
        default_flow_style=True,
    )
    return text.removesuffix("\n").removesuffix("...").rstrip("\n")


def _advice(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    if r"'\t'" in problem:
        return "indent with spaces"
    if "alphabetic or numeric character" in problem:
        return 'quote text that starts with * or &, such as a schedule: "* * * * *"'
    return ""
