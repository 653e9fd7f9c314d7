"""Moments in UTC, and those from which nothing can be reckoned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from perennial.contracts.errors import InputError
from perennial.contracts.moments import as_utc

EAST = timezone(timedelta(hours=5))


def test_a_moment_is_in_utc_also_without_an_offset() -> None:
    expected = datetime(2026, 3, 1, 7, tzinfo=UTC)
    assert as_utc(datetime(2026, 3, 1, 7)) == expected
    assert as_utc(datetime(2026, 3, 1, 12, tzinfo=EAST)) == expected


@pytest.mark.parametrize("year", [1, 299, 9700, 9999])
@pytest.mark.parametrize("offset", [None, UTC, EAST, timezone(-timedelta(hours=5))])
def test_a_moment_at_an_end_of_the_calendar_is_refused(year: int, offset: timezone | None) -> None:
    moment = datetime(year, 12, 31, 23, 59, 59, tzinfo=offset)
    with pytest.raises(InputError, match="end of the calendar") as caught:
        as_utc(moment)
    assert moment.isoformat() in str(caught.value)


@pytest.mark.parametrize("year", [300, 9699])
def test_from_any_other_a_century_can_be_reckoned_each_for_window_and_delay(year: int) -> None:
    moment = as_utc(datetime(year, 6, 1, tzinfo=EAST))
    for sign in (-1, 1):
        assert abs(moment + sign * 2 * timedelta(days=36_525) - moment).days == 73_050
