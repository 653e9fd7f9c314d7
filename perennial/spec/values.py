"""What the sections of model.yaml are built from: values with units and checks in human words."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from perennial.contracts.metrics import METRICS

Mistake = tuple[str, str]
"""A key, relative to the section ("" is the section itself), and what is wrong there."""


KEPT = {"kept": True}
"""The context in which a spec is read that was accepted when it was written."""


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values don't change after reading.

    ``rules`` are run when every key by itself is right, and all that they find is raised at once;
    not of a spec that is kept (validated in the context ``KEPT``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    rules: ClassVar[tuple[Callable[[Any], Iterator[Mistake]], ...]] = ()

    @model_validator(mode="after")
    def _follows_the_rules(self, info: ValidationInfo) -> Self:
        if info.context is KEPT:
            return self
        mistakes = [mistake for rule in self.rules for mistake in rule(self)]
        if mistakes:
            text = "\n".join(f"{key}: {what}" if key else what for key, what in mistakes)
            raise PydanticCustomError("rules", "{text}", {"text": text, "mistakes": mistakes})
        return self


def shown(value: object) -> str:
    """A value as an error message shows it, bounded."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def some(names: Iterable[str], most: int) -> str:
    """The first ``most`` names, and how many more there are: ``a, b and 3 more``."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def nearest(key: str, valid: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the valid key most like ``key``, or nothing."""
    close = nearest_key(key, valid)
    return "" if close is None else f"; did you mean {close!r}?"


def nearest_key(key: str, valid: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The valid key most like ``key``; None when none is at all like it."""
    return next(iter(difflib.get_close_matches(key, list(valid), n=1, cutoff=cutoff)), None)


def repeated(values: Iterable[str], key: str) -> Iterator[Mistake]:
    """A mistake for each value that stands in a list for the second time."""
    seen: set[str] = set()
    for i, value in enumerate(values):
        if value in seen:
            yield f"{key}.{i}", f"{value!r} is given twice"
        seen.add(value)


# Numbers: text such as "5" and true are no numbers, whatever Python thinks of them.


def _whole(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, not {shown(value)}")
    return value


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, not {shown(value)}")
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, not {value}")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number)]
Bound = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]
"""A number that stays whole when it is written so."""
Flag = Annotated[bool, Field(strict=True)]
Share = Annotated[Number, Field(ge=0, le=1)]
Confidence = Annotated[Number, Field(gt=0.5, lt=1)]
Seed = Annotated[Whole, Field(ge=0, lt=2**31)]


# Durations: a number and a unit.

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(s|m|h|d|w)$")
_LONGEST = timedelta(weeks=5218)
_DURATION_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": _DURATION.pattern,
    "examples": ["90s", "10m", "6h", "14d", "2w"],
}


def _parse_duration(value: object) -> timedelta:
    if isinstance(value, timedelta) and value >= timedelta(0):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{shown(value)} is not a duration; write a number and a unit: 90s, 10m, 6h, 2d, 1w"
        )
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"{shown(value)} is too long a duration; a century is the most")
    return timedelta(seconds=seconds)


def _not_empty(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("this duration must be above 0")
    return value


def format_duration(value: timedelta) -> str:
    """The shortest way to write a duration in model.yaml: ``timedelta(days=14)`` is ``2w``."""
    seconds = value // timedelta(seconds=1)
    if value.microseconds:
        return f"{seconds}.{value.microseconds:06d}".rstrip("0") + "s"
    unit = next((u for u in ("w", "d", "h", "m") if seconds and seconds % _UNITS[u] == 0), "s")
    return f"{seconds // _UNITS[unit]}{unit}"


Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_duration),
    PlainSerializer(format_duration),
    WithJsonSchema(_DURATION_SCHEMA),
]
PositiveDuration = Annotated[Duration, AfterValidator(_not_empty)]


def _parse_extent(value: object) -> timedelta | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 < value < 1:
            raise ValueError(f"a share of rows lies between 0 and 1, not {value:g}")
        return float(value)
    parsed = _parse_duration(value)
    if not parsed:
        raise ValueError("this part is empty; the gates and early stopping need rows")
    return parsed


Extent = Annotated[
    timedelta | float,
    PlainValidator(_parse_extent),
    PlainSerializer(lambda v: format_duration(v) if isinstance(v, timedelta) else v),
    WithJsonSchema(
        {
            "anyOf": [
                _DURATION_SCHEMA,
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            ]
        }
    ),
]
"""How much of the data a part takes: a duration, or a share of rows above 0 and below 1."""


# Text with a form of its own.

_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
_DEVICE = re.compile(r"^(cpu|cuda(:[0-9]+)?)$")


def check_name(value: str) -> str:
    """A model's name itself. Raises ValueError with the rule when it is none."""
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{shown(value)} is not a name; use lowercase letters, digits and dashes, at most 63, "
            "with no dash at either end"
        )
    return value


def _check_device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a device; write cpu, cuda, or cuda:0")
    return value


def _level(value: object) -> object:
    """A category's value as text; a whole number is its digits, as in the data."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"expected text or a whole number, not {shown(value)}; quote it")
    return value


def _class(value: object) -> object:
    if not isinstance(value, str | int | bool):
        raise ValueError(f"expected text, a whole number, true or false, not {shown(value)}")
    return value


Name = Annotated[
    str, AfterValidator(check_name), Field(json_schema_extra={"pattern": _NAME.pattern})
]
Device = Annotated[
    str, AfterValidator(_check_device), Field(json_schema_extra={"pattern": _DEVICE.pattern})
]
Text = Annotated[str, Field(min_length=1)]
Level = Annotated[str, BeforeValidator(_level), WithJsonSchema({"type": ["string", "integer"]})]
Class = Annotated[
    str | int | bool,
    PlainValidator(_class),
    WithJsonSchema({"type": ["string", "integer", "boolean"]}),
]
MetricName = Annotated[str, Field(json_schema_extra={"enum": sorted(METRICS)})]
