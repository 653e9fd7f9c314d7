"""What a flight's schedule and the weather say about its delay.

Times of day are New York's, as airlines schedule them. The day of the year is left out on purpose:
a tree can't carry it beyond the days it has seen. Arithmetic of several steps is done on NumPy
arrays: with one row, as in a request, a step of pandas takes twenty times as long.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from perennial.data.features import fitted

_EASTERN_HOURS = 5  # behind UTC; in summer an hour off, when none departs at midnight
_THURSDAY = 3  # the weekday on which 1970 began


def _minutes(clock: pd.Series) -> np.ndarray:
    """Minutes since midnight of a clock time such as 1745."""
    hours, minutes = np.divmod(clock.to_numpy(), 100)
    return hours * 60 + minutes


def _local_hours(time_hour: pd.Series) -> np.ndarray:
    """Whole hours since 1970 began in New York."""
    return time_hour.to_numpy("datetime64[h]").astype(np.int64) - _EASTERN_HOURS


def departure_minute(sched_dep_time: pd.Series) -> pd.Series:
    """Scheduled departure in minutes since midnight: delays build up over a day."""
    return pd.Series(_minutes(sched_dep_time))


def scheduled_minutes(departure_minute: pd.Series, sched_arr_time: pd.Series) -> pd.Series:
    """Minutes from departure to arrival by the two local clocks."""
    return pd.Series((_minutes(sched_arr_time) - departure_minute.to_numpy()) % 1440)


def weekday(time_hour: pd.Series) -> pd.Series:
    """Monday is 0."""
    return pd.Series((_local_hours(time_hour) // 24 + _THURSDAY) % 7)


@fitted
def departures_an_hour(time_hour: pd.Series, origin: pd.Series) -> dict[str, float]:
    """Flights that an airport usually schedules in an hour of the day, by airport and hour."""
    days = (time_hour.max() - time_hour.min()) / pd.Timedelta(days=1)
    counts = pd.Series(_airport_and_hour(time_hour, origin)).value_counts().sort_index()
    return (counts / max(days, 1.0)).to_dict()


def crowd(
    time_hour: pd.Series, origin: pd.Series, departures_an_hour: dict[str, float]
) -> pd.Series:
    """How busy the airport usually is at the hour of departure."""
    places = _airport_and_hour(time_hour, origin)
    return pd.Series(np.array([departures_an_hour.get(place, np.nan) for place in places]))


def _airport_and_hour(time_hour: pd.Series, origin: pd.Series) -> list[str]:
    hours = (_local_hours(time_hour) % 24).tolist()
    return [f"{airport} {hour}" for airport, hour in zip(origin.tolist(), hours, strict=True)]


def dew_gap(temp: pd.Series, dewp: pd.Series) -> pd.Series:
    """Degrees above the dew point; fog and low cloud come near 0."""
    return temp - dewp


def north_wind(wind_speed: pd.Series, wind_dir: pd.Series) -> pd.Series:
    """Wind from the north in miles an hour (from the south below 0): it decides the runways."""
    return wind_speed * np.cos(np.radians(wind_dir.to_numpy()))


def west_wind(wind_speed: pd.Series, wind_dir: pd.Series) -> pd.Series:
    """Wind from the west in miles an hour (from the east below 0)."""
    return -wind_speed * np.sin(np.radians(wind_dir.to_numpy()))
