"""What a flight's schedule and the weather say about its delay.

Times of day are New York's, as airlines schedule them. The day of the year is left out on purpose:
a tree can't carry it beyond the days it has seen. Columns are taken as NumPy arrays: with one row,
as in a request, a step of pandas takes ten times as long.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from perennial.data.features import fitted

_EASTERN_HOURS = 5  # behind UTC; in summer an hour off, when none departs at midnight
_THURSDAY = 3  # the weekday on which 1970 began


def _minutes(clock: np.ndarray) -> np.ndarray:
    """Minutes since midnight of a clock time such as 1745."""
    hours, minutes = np.divmod(clock, 100)
    return hours * 60 + minutes


def _local_hours(time_hour: np.ndarray) -> np.ndarray:
    """Whole hours since 1970 began in New York."""
    return time_hour.astype("datetime64[h]").astype(np.int64) - _EASTERN_HOURS


def departure_minute(sched_dep_time: np.ndarray) -> np.ndarray:
    """Scheduled departure in minutes since midnight: delays build up over a day."""
    return _minutes(sched_dep_time)


def scheduled_minutes(departure_minute: np.ndarray, sched_arr_time: np.ndarray) -> np.ndarray:
    """Minutes from departure to arrival by the two local clocks."""
    return (_minutes(sched_arr_time) - departure_minute) % 1440


def weekday(time_hour: np.ndarray) -> np.ndarray:
    """Monday is 0."""
    return (_local_hours(time_hour) // 24 + _THURSDAY) % 7


@fitted
def departures_an_hour(time_hour: np.ndarray, origin: np.ndarray) -> dict[str, float]:
    """Flights that an airport usually schedules in an hour of the day, by airport and hour."""
    days = (time_hour.max() - time_hour.min()) / np.timedelta64(1, "D")
    counts = Counter(_airport_and_hour(time_hour, origin))
    return {place: counts[place] / max(days, 1.0) for place in sorted(counts)}


def crowd(
    time_hour: np.ndarray, origin: np.ndarray, departures_an_hour: dict[str, float]
) -> np.ndarray:
    """How busy the airport usually is at the hour of departure."""
    places = _airport_and_hour(time_hour, origin)
    return np.array([departures_an_hour.get(place, np.nan) for place in places])


def _airport_and_hour(time_hour: np.ndarray, origin: np.ndarray) -> list[str]:
    hours = (_local_hours(time_hour) % 24).tolist()
    return [f"{airport} {hour}" for airport, hour in zip(origin.tolist(), hours, strict=True)]


def dew_gap(temp: np.ndarray, dewp: np.ndarray) -> np.ndarray:
    """Degrees above the dew point; fog and low cloud come near 0."""
    return temp - dewp


def north_wind(wind_speed: np.ndarray, wind_dir: np.ndarray) -> np.ndarray:
    """Wind from the north in miles an hour (from the south below 0): it decides the runways."""
    return wind_speed * np.cos(np.radians(wind_dir))


def west_wind(wind_speed: np.ndarray, wind_dir: np.ndarray) -> np.ndarray:
    """Wind from the west in miles an hour (from the east below 0)."""
    return -wind_speed * np.sin(np.radians(wind_dir))
