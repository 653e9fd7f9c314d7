"""Read and write model.yaml: all mistakes at once, each with its path and the nearest key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import TypeAdapter, ValidationError

from perennial.contracts.distribution import DISTRIBUTION
from perennial.contracts.errors import InputError, Problem
from perennial.spec.documents import document_text, read_document
from perennial.spec.gates import GATES, gate_kind
from perennial.spec.messages import problems_of, sections_in
from perennial.spec.schema import FORMAT, ModelSpec, Section
from perennial.spec.values import KEPT, nearest_key


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
    except OSError as error:
        raise InputError(Problem(str(path), f"can't be read: {error.strerror}")) from None
    return parse_spec(text, str(path))


def parse_spec(text: str, where: str = "model.yaml") -> ModelSpec:
    """The spec that a model.yaml's text says. Raises InputError (see ``load_spec``)."""
    fix = "perennial init NAME --data FILE --label COL"
    return _validated(read_document(text, where, fix), where)


def kept_spec(text: str, where: str) -> ModelSpec:
    """The spec that a bundle keeps: what a rule refuses now was accepted when it was made, and a
    version goes on as it was made. Raises InputError for what was never a spec."""
    document = _upgraded(read_document(text, where), where)
    try:
        return ModelSpec.model_validate(document, context=KEPT)
    except ValidationError as error:
        raise InputError(list(problems_of(error.errors(include_url=False), where))) from None


def _validated(document: dict[Any, Any], where: str) -> ModelSpec:
    document = _upgraded(document, where)
    try:
        return ModelSpec.model_validate(document)
    except ValidationError as error:
        found = problems_of(error.errors(include_url=False), where)
        # Pydantic stops at a section whose keys are wrong; its rules may have more to say.
        problems = dict.fromkeys([*found, *_rules_broken(document, where)])
        raise InputError(list(problems)) from None


def spec_text(spec: ModelSpec) -> str:
    """The spec as YAML text that ``parse_spec`` reads back to an equal one; stable to the byte."""
    return document_text(spec.model_dump(mode="json", exclude_unset=True))


def _upgraded(document: dict[Any, Any], where: str) -> dict[Any, Any]:
    """The document in the present format. Format 1 is the first, so nothing is to be done yet.

    A newer file is refused before anything else is said: its keys can't be judged here.
    """
    number = document.get("format", FORMAT)
    if isinstance(number, int) and number > FORMAT:
        raise InputError(
            Problem(
                f"{where}, format",
                f"this file has format {number}, this Perennial reads formats up to {FORMAT}",
                f"upgrade Perennial: pip install --upgrade {DISTRIBUTION}",
            )
        )
    return document


def _rules_broken(document: Mapping[Any, Any], where: str) -> Iterator[Problem]:
    """What the rules find in those sections, and between them, that are right by themselves."""
    drafts: list[tuple[str, Section]] = []
    _draft(ModelSpec, document, "", drafts)
    for path, section in drafts:
        for rule in section.rules:
            try:
                mistakes = list(rule(section))
            except AttributeError:  # the rule reads a key that is wrong or missing
                continue
            for key, what in mistakes:
                yield Problem(f"{where}, {'.'.join(filter(None, (path, key)))}", what)


def _draft(
    section: type[Section],
    document: Mapping[Any, Any],
    path: str,
    drafts: list[tuple[str, Section]],
) -> Section:
    """The section with those of its keys that are right; the others are no attributes of it.

    Appends the section and every draft below it to ``drafts``, with their paths.
    """

    def part(kind: type[Section], value: object, key: str) -> Section:
        if not isinstance(value, Mapping):
            return Section.model_construct()
        return _draft(kind, value, f"{path}.{key}" if path else key, drafts)

    values: dict[str, Any] = {}
    fields = section.model_fields
    for name in filter(document.__contains__, fields):
        value, field = document[name], fields[name]
        try:
            values[name] = TypeAdapter(field.rebuild_annotation()).validate_python(value)
        except ValidationError:
            kind = next(sections_in(field.annotation), None)
            if kind is None:
                continue
            form = get_origin(field.annotation)
            if form is None:
                values[name] = part(kind, value, name)
            elif form is dict and isinstance(value, Mapping) and value:
                values[name] = {str(k): part(kind, v, f"{name}.{k}") for k, v in value.items()}
            elif form is tuple and isinstance(value, list):
                values[name] = tuple(
                    part(GATES[gate_kind(v)] if name == "gates" else kind, v, f"{name}.{i}")
                    for i, v in enumerate(value)
                )
    draft = section.model_construct(set(document), **values)
    misspelt = {nearest_key(str(key), fields) for key in document if key not in fields}
    for name in (fields.keys() & (document.keys() | misspelt)) - values.keys():
        draft.__dict__.pop(name, None)  # a default that model_construct filled in
    drafts.append((path, draft))
    return draft
