"""Moments: UTC throughout, and UTC where nothing is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from perennial.contracts.errors import InputError, Problem

AHEAD = timedelta(days=1)
"""How far ahead of the clock an event may lie: clocks differ, and local times are read as UTC."""
TOO_FAR_AHEAD = "more than a day in the future"
"""How an event beyond that is told."""
_FIRST, _LAST = 300, 9699  # years: delays and windows, a century at most each, reach further
EARLIEST = datetime(_FIRST, 1, 1, tzinfo=UTC)
"""No event may lie before it: the zero date of .NET and Go, 0001-01-01, stands for none."""
TOO_FAR_BACK = f"before the year {_FIRST}"
"""How an event before that is told."""


def as_utc(moment: datetime) -> datetime:
    """The moment in UTC; one without an offset is in UTC already. Raises InputError for one so near
    to an end of the calendar that nothing can be reckoned from it."""
    if not _FIRST <= moment.year <= _LAST:
        what = "is too near to an end of the calendar"
        fix = f"give one from the year {_FIRST} to {_LAST}"
        raise InputError(Problem(moment.isoformat(), what, fix))
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
