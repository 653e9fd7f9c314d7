from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from perennial.contracts.errors import InputError
from perennial.spec import ModelSpec, parse_spec
from perennial.spec.documents import document_text

_BASE: dict[str, Any] = {
    "name": "m",
    "objective": "binary",
    "source": {"kind": "csv", "uri": "rows.csv", "event_time": "at", "entity": ["id"]},
    "label": {"column": "late"},
    "columns": {
        "id": {"type": "string"},
        "amount": {"type": "float"},
        "count": {"type": "integer"},
        "country": {"type": "category"},
        "day": {"type": "datetime"},
    },
}
Changes = dict[str, Any]


@pytest.fixture
def document() -> Callable[[Changes], dict[str, Any]]:
    """A right model.yaml with some keys set anew, by dotted path; ``...`` removes the key."""

    def make(changes: Changes) -> dict[str, Any]:
        made = deepcopy(_BASE)
        for path, value in changes.items():
            *sections, key = path.split(".")
            place = made
            for section in sections:
                place = place.setdefault(section, {})
            if value is ...:
                del place[key]
            else:
                place[key] = deepcopy(value)
        return made

    return make


@pytest.fixture
def spec(document: Callable[[Changes], dict[str, Any]]) -> Callable[..., ModelSpec]:
    """The spec of such a file, read through its text."""
    return lambda **changes: parse_spec(
        document_text(document({path.replace("__", "."): v for path, v in changes.items()}))
    )


@pytest.fixture
def mistakes(document: Callable[[Changes], dict[str, Any]]) -> Callable[[Changes], list[str]]:
    """What reading such a file complains of, without the file's name."""

    def read(changes: Changes) -> list[str]:
        with pytest.raises(InputError) as error:
            parse_spec(document_text(document(changes)), "F")
        assert error.value.exit_code == 2
        return [str(problem).removeprefix("F, ") for problem in error.value.problems]

    return read
