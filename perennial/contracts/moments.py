"""Moments: UTC throughout, and UTC where nothing is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

AHEAD = timedelta(days=1)
"""How far ahead of the clock an event may lie: clocks differ, and local times are read as UTC."""


def as_utc(moment: datetime) -> datetime:
    """The moment in UTC; one without an offset is in UTC already."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
