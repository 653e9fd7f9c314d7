"""What pydantic found, in words for the person who wrote the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from pydantic_core import ErrorDetails

from perennial.contracts.errors import Problem
from perennial.spec.gates import GATES
from perennial.spec.schema import ModelSpec, Section
from perennial.spec.values import nearest, nearest_key, shown

_COMPARISONS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_KINDS = {
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list such as [a, b]",
    "dict_type": "keys and values",
    "model_type": "keys and values",
}


def problems_of(
    errors: Sequence[ErrorDetails], where: str, root: type[Section] = ModelSpec
) -> Iterator[Problem]:
    """Each error as a problem with its path in the file ``where``, which says a ``root``.

    A missing key that an unknown one beside it nearly spells is told once, by the unknown one.
    """
    misspelt = {
        (*item["loc"][:-1], nearest_key(str(item["loc"][-1]), _keys_at(item["loc"][:-1], root)))
        for item in errors
        if item["type"] == "extra_forbidden"
    }
    for item in errors:
        if item["type"] == "missing" and item["loc"] in misspelt:
            continue
        for path, what, fix in _told(item, root):
            yield Problem(f"{where}, {path}" if path else where, what, fix)


def _told(item: ErrorDetails, root: type[Section]) -> Iterator[tuple[str, str, str]]:
    """Path, what is wrong, and what to do ("" where the rule says it)."""
    loc, kind, got, ctx = item["loc"], item["type"], item["input"], item.get("ctx", {})
    path = path_text(loc)
    if kind == "rules":
        for key, what in ctx["mistakes"]:
            yield ".".join(filter(None, (path, key))), what, ""
    elif kind == "extra_forbidden":
        keys = _keys_at(loc[:-1], root)
        hint = nearest(str(loc[-1]), keys)
        yield path, f"unknown key {str(loc[-1])!r}{hint}", "" if hint else _valid(keys)
    elif kind == "missing":
        yield path, "this key is required", ""
    elif kind == "invalid_key" or loc[-1:] == ("[key]",):
        key = got if loc[-1] == "[key]" else loc[-1]
        place = path_text(loc[:-1] if kind == "invalid_key" else loc[:-2])
        empty = key == ""
        said = "a key is empty" if empty else f"the key {shown(key)} is not text"
        yield place, said, "" if empty else "quote it"
    elif kind == "literal_error":
        choices = re.findall(r"'([^']*)'", ctx["expected"])
        hint = nearest(got, choices) if isinstance(got, str) else ""
        yield path, f"{shown(got)} is not one of {', '.join(choices)}{hint}", ""
    elif kind in _COMPARISONS:
        words, limit = _COMPARISONS[kind]
        yield path, f"must be {words} {ctx[limit]}, not {got}", ""
    elif kind in _KINDS:
        quotable = kind == "string_type" and isinstance(got, int | float)
        found = "nothing" if got is None else shown(got)
        yield path, f"expected {_KINDS[kind]}, not {found}", "quote it" if quotable else ""
    elif kind in ("too_short", "string_too_short"):
        yield path, "must not be empty", ""
    elif kind == "string_too_long":
        yield path, f"must be one character, not {shown(got)}", ""
    else:
        yield path, item["msg"].removeprefix("Value error, "), ""


def path_text(loc: Iterable[int | str]) -> str:
    """A place in the file: ``gates.0.metric``. The tag of a gate is not in the file."""
    parts = list(loc)
    if parts[:1] == ["gates"] and len(parts) > 2 and parts[2] in GATES:
        del parts[2]
    return ".".join(str(part) for part in parts)


def _valid(keys: Sequence[str]) -> str:
    return f"valid keys: {', '.join(keys)}"


def _keys_at(loc: Iterable[int | str], root: type[Section]) -> list[str]:
    """The keys of the section at a place."""
    section = root
    for part in loc:
        if part in GATES:
            section = GATES[str(part)]
        elif part in section.model_fields:
            section = next(sections_in(section.model_fields[str(part)].annotation), section)
    return list(section.model_fields)


def sections_in(annotation: object) -> Iterator[type[Section]]:
    """The sections a key's type is made of: none for a plain value, several for gates."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from sections_in(part)
