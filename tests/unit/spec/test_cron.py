from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from perennial.spec.cron import check_cron, comes


@pytest.mark.parametrize(
    "expression",
    [
        "* * * * *", "0 6 * * 1", "*/15 8-18 * * mon-fri", "0 0 1,15 * *", "5/10 * * * *",
        "0 0 29 2 *", "0 0 1-31/2 JAN-jun *", "0 0 * * 7", "0 12 31 1,2 *", "30 4 31 2 sun",
    ],
)  # fmt: skip
def test_a_right_schedule_is_taken_as_it_is(expression: str) -> None:
    assert check_cron(expression) == expression


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("60 * * * *", "the minute '60' of a cron schedule is not in 0 to 59"),
        ("0 24 * * *", "the hour '24' of a cron schedule is not in 0 to 23"),
        ("0 0 0 * *", "the day of the month '0' of a cron schedule is not in 1 to 31"),
        ("0 0 * 13 *", "the month '13' of a cron schedule is not in 1 to 12"),
        ("0 0 * * 8", "the weekday '8' of a cron schedule is not in 0 to 7"),
        ("0 0 * * monday", "the weekday 'monday' of a cron schedule is not in 0 to 7"),
        ("0 0 * * -1", "the weekday '' of a cron schedule is not in 0 to 7"),
        ("0 0 L * *", "the day of the month 'L' of a cron schedule is not in 1 to 31"),
        ("0 0 1, * *", "the day of the month '' of a cron schedule is not in 1 to 31"),
        ("0 18-8 * * *", "the hour range '18-8' of a cron schedule runs backwards"),
        ("*/0 * * * *", "the minute step '*/0' of a cron schedule is not 1 to 59"),
        ("*/x * * * *", "the minute step '*/x' of a cron schedule is not 1 to 59"),
        ("* */ * * *", "the hour step '*/' of a cron schedule is not 1 to 23"),
        ("0 0 31 2 *", "'0 0 31 2 *' never comes: no such month has a day 31"),
        ("0 0 31 4,6 *", "'0 0 31 4,6 *' never comes: no such month has a day 31"),
        (
            "@daily",
            "'@daily' is not a cron expression of five fields: "
            "minute hour day month weekday, such as 0 6 * * 1",
        ),
        (
            "0 0 6 * * 1",
            "'0 0 6 * * 1' is not a cron expression of five fields: "
            "minute hour day month weekday, such as 0 6 * * 1",
        ),
        ("٣ * * * *", "the minute '٣' of a cron schedule is not in 0 to 59"),
    ],
)
def test_a_wrong_schedule_is_refused_by_the_field_that_is_wrong(expression: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"cron|never") as error:
        check_cron(expression)
    assert str(error.value) == said


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "after", "until", "does"),
    [
        ("0 6 * * 1", "2013-03-04T06:00", "2013-03-11T05:59", False),  # from a Monday on
        ("0 6 * * 1", "2013-03-04T05:59", "2013-03-04T06:00", True),
        ("0 6 * * mon", "2013-03-05T00:00", "2013-03-11T06:00", True),
        ("0 6 * * 7", "2013-03-09T00:00", "2013-03-10T07:00", True),  # a Sunday
        ("*/15 * * * *", "2013-03-04T06:00", "2013-03-04T06:14", False),
        ("*/15 * * * *", "2013-03-04T06:00", "2013-03-04T06:15", True),
        ("0 0 29 2 *", "2013-01-01T00:00", "2016-02-28T23:59", False),
        ("0 0 29 2 *", "2013-01-01T00:00", "2016-02-29T00:00", True),
        ("0 0 13 * 5", "2013-03-02T00:00", "2013-03-08T00:00", True),  # a Friday, not the 13th
        ("0 0 13 * *", "2013-03-02T00:00", "2013-03-08T00:00", False),
    ],
)
def test_a_schedule_comes_after_the_one_moment_and_until_the_other(
    expression: str, after: str, until: str, does: bool
) -> None:
    assert comes(expression, at(after), at(until)) is does


def test_a_schedule_is_in_utc_whatever_zone_it_is_asked_in() -> None:
    eastern = timezone(timedelta(hours=-5))
    before = datetime(2013, 3, 4, 0, 30, tzinfo=eastern)  # 05:30 UTC
    assert comes("0 6 * * 1", before, before + timedelta(minutes=30))
    assert not comes("0 6 * * 1", before + timedelta(hours=1), before + timedelta(hours=6))
