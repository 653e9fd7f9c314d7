"""Moments as they are given on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

from perennial.contracts.errors import InputError, Problem


def moment(option: str, text: str) -> datetime:
    """The time an option gives, UTC without an offset. Raises InputError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fix = "write for example 2013-07-01 or 2013-07-01T06:00:00Z"
        raise InputError(Problem(option, f"{text!r} is not a time", fix)) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
