"""What a flight's schedule and the weather say about its delay.

Times of day are New York's, as airlines schedule them. The day of the year is left out on purpose:
a tree can't carry it beyond the days it has seen.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from perennial.data.features import fitted

_EASTERN = pd.Timedelta(hours=5)  # behind UTC; in summer an hour off, when none departs at midnight


def _minutes(clock: pd.Series) -> pd.Series:
    """Minutes since midnight of a clock time such as 1745."""
    return clock // 100 * 60 + clock % 100


def departure_minute(sched_dep_time: pd.Series) -> pd.Series:
    """Scheduled departure in minutes since midnight: delays build up over a day."""
    return _minutes(sched_dep_time)


def scheduled_minutes(departure_minute: pd.Series, sched_arr_time: pd.Series) -> pd.Series:
    """Minutes from departure to arrival by the two local clocks."""
    return (_minutes(sched_arr_time) - departure_minute) % 1440


def weekday(time_hour: pd.Series) -> pd.Series:
    """Monday is 0."""
    return (time_hour - _EASTERN).dt.dayofweek


@fitted
def departures_an_hour(time_hour: pd.Series, origin: pd.Series) -> dict[str, float]:
    """Flights that an airport usually schedules in an hour of the day, by airport and hour."""
    days = (time_hour.max() - time_hour.min()) / pd.Timedelta(days=1)
    counts = _airport_and_hour(time_hour, origin).value_counts().sort_index()
    return (counts / max(days, 1.0)).to_dict()


def crowd(
    time_hour: pd.Series, origin: pd.Series, departures_an_hour: dict[str, float]
) -> pd.Series:
    """How busy the airport usually is at the hour of departure."""
    return _airport_and_hour(time_hour, origin).map(departures_an_hour)


def _airport_and_hour(time_hour: pd.Series, origin: pd.Series) -> pd.Series:
    return origin + " " + (time_hour - _EASTERN).dt.hour.astype("str")


def dew_gap(temp: pd.Series, dewp: pd.Series) -> pd.Series:
    """Degrees above the dew point; fog and low cloud come near 0."""
    return temp - dewp


def north_wind(wind_speed: pd.Series, wind_dir: pd.Series) -> pd.Series:
    """Wind from the north in miles an hour (from the south below 0): it decides the runways."""
    return wind_speed * np.cos(np.radians(wind_dir))


def west_wind(wind_speed: pd.Series, wind_dir: pd.Series) -> pd.Series:
    """Wind from the west in miles an hour (from the east below 0)."""
    return -wind_speed * np.sin(np.radians(wind_dir))
