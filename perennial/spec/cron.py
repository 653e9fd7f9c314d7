"""Cron expressions of five fields: checked so that a schedule that is accepted does come, and told
when it comes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: i for i, name in enumerate(_MONTHS, start=1)}),
    ("weekday", 0, 7, {name: i for i, name in enumerate(_WEEKDAYS)}),
)
_LONGEST_MONTH_DAYS = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


def check_cron(expression: str) -> str:
    """The expression itself. Raises ValueError that names the field and the part that is wrong.

    Accepted: ``*``, numbers, ranges, lists, steps, and the English names of months and weekdays
    (0 and 7 are Sunday). Not accepted: macros such as ``@daily``, and the extensions L, W, # and ?.
    """
    parts = expression.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(
            f"{expression!r} is not a cron expression of five fields: "
            "minute hour day month weekday, such as 0 6 * * 1"
        )
    _, _, days, months, _ = _sets(parts)
    if parts[4] == "*" and min(days) > max(_LONGEST_MONTH_DAYS.get(m, 31) for m in months):
        raise ValueError(f"{expression!r} never comes: no such month has a day {min(days)}")
    return expression


def comes(expression: str, after: datetime, until: datetime) -> bool:
    """Whether a schedule comes at some minute with ``after < minute <= until``, in UTC.

    Where both the day of the month and the weekday are restricted, either will do. Raises
    ValueError as ``check_cron``.
    """
    parts = check_cron(expression).split()
    minutes, hours, days, months, weekdays = _sets(parts)
    weekdays = {weekday % 7 for weekday in weekdays}
    after, until = after.astimezone(UTC), until.astimezone(UTC)
    day = after.replace(hour=0, minute=0, second=0, microsecond=0)
    while day <= until:
        by_date, by_weekday = day.day in days, day.isoweekday() % 7 in weekdays
        either = not (parts[2].startswith("*") or parts[4].startswith("*"))
        right_day = by_date or by_weekday if either else by_date and by_weekday
        if right_day and day.month in months:
            for hour in hours:
                for minute in minutes:
                    if after < day + timedelta(hours=hour, minutes=minute) <= until:
                        return True
        day += timedelta(days=1)
    return False


def _sets(parts: list[str]) -> list[set[int]]:
    return [set(_values(part, *field)) for part, field in zip(parts, _FIELDS, strict=True)]


def _values(part: str, field: str, low: int, high: int, names: dict[str, int]) -> Iterator[int]:
    """The values one field stands for."""

    def number(text: str) -> int:
        value = names.get(text.lower(), int(text) if text.isascii() and text.isdigit() else -1)
        if not low <= value <= high:
            raise ValueError(f"the {field} {text!r} of a cron schedule is not in {low} to {high}")
        return value

    for item in part.split(","):
        span, slash, step = item.partition("/")
        if slash and not (step.isascii() and step.isdigit() and 1 <= int(step) <= high):
            raise ValueError(f"the {field} step {item!r} of a cron schedule is not 1 to {high}")
        first, dash, last = span.partition("-")
        if span == "*":
            start, end = low, high
        else:
            start = number(first)
            end = number(last) if dash else (high if slash else start)
        if start > end:
            raise ValueError(f"the {field} range {item!r} of a cron schedule runs backwards")
        yield from range(start, end + 1, int(step or 1))
