"""Moments as they are given on the command line."""

from __future__ import annotations

from datetime import datetime

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.moments import as_utc


def moment(option: str, text: str) -> datetime:
    """The time an option gives, in UTC, which it is without an offset. Raises InputError."""
    try:
        return as_utc(datetime.fromisoformat(text))
    except (ValueError, InputError):
        fix = "write for example 2013-07-01 or 2013-07-01T06:00:00Z"
        raise InputError(Problem(option, f"{text!r} is not a time", fix)) from None
