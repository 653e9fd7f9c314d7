"""Moments and days that PostgreSQL has and Python has not: ``infinity``, those BC, and those after
the year 9999. psycopg ends the whole query at the first; here each is its text, a fault of its own
row."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, ClassVar

from psycopg.adapt import Loader


class Beyond(str):
    """The text of such a moment. ``like`` is one of its kind that Python has."""

    like: ClassVar[date]


class _BeyondDay(Beyond):
    like = date.min


class _Beyond(Beyond):
    like = datetime.min


class _BeyondZoned(Beyond):
    like = datetime.min.replace(tzinfo=UTC)


class _Day(Loader):
    def load(self, data: Any) -> date | Beyond:
        text = bytes(data).decode()
        try:
            return date.fromisoformat(text)
        except ValueError:
            return _BeyondDay(text)


class _Moment(Loader):
    def load(self, data: Any) -> datetime | Beyond:
        text = bytes(data).decode()
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            return _Beyond(text)


class _ZonedMoment(Loader):
    """In UTC: what a row says hangs on no setting of the database, nor of who connects."""

    def load(self, data: Any) -> datetime | Beyond:
        text = bytes(data).decode()
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            return _BeyondZoned(text)


def read_all_moments(connection: Any) -> None:
    """Let a connection of psycopg's give such moments as ``Beyond``."""
    for name, loader in (("date", _Day), ("timestamp", _Moment), ("timestamptz", _ZonedMoment)):
        connection.adapters.register_loader(name, loader)
