"""The demo's traffic: real flights as requests over HTTP, and their labels."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from perennial.cli.prefect_server import call
from perennial.contracts.errors import PerennialError

LABEL = "delayed"
_KEYS = ("carrier", "flight", "origin", "time_hour")
_TEXTS = frozenset({"time_hour", "carrier", "origin", "dest"})
_WHOLE = frozenset({"flight", "sched_dep_time", "sched_arr_time"})
_FLIGHTS = 3_000
_CALLERS = 8
_AT_ONCE = 100
_PAUSE_SECONDS = 0.3

Flight = Mapping[str, str]


def flights(file: Path) -> Sequence[Flight]:
    """Flights of a file that have a label, spread evenly over it."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row[LABEL]]
    return rows[:: max(1, len(rows) // _FLIGHTS)]


def ask(serving: str, model: str, asked: Sequence[Flight]) -> list[dict[str, Any]]:
    """The answers, one flight a request, several callers at once."""
    import httpx

    def answer(flight: Flight) -> dict[str, Any]:
        response = client.post(f"/models/{model}/predict", json=request(flight))
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    limits = httpx.Limits(max_keepalive_connections=_CALLERS)
    with (
        httpx.Client(base_url=serving, timeout=30, limits=limits, trust_env=False) as client,
        ThreadPoolExecutor(_CALLERS) as callers,
    ):
        return list(callers.map(answer, asked))


def send_labels(serving: str, model: str, labelled: Sequence[Flight]) -> None:
    for start in range(0, len(labelled), 1000):
        labels = [
            {**{key: _value(key, flight[key]) for key in _KEYS}, "label": flight[LABEL] == "true"}
            for flight in labelled[start : start + 1000]
        ]
        call("POST", f"{serving}/models/{model}/labels", labels)


@contextmanager
def going_on(serving: str, model: str, asked: Sequence[Flight]) -> Iterator[None]:
    """Flights are asked for and labelled all the while, the first again after the last. Raises at
    the end what went wrong with any."""
    ending = threading.Event()
    wrong: list[Exception] = []

    def go_on() -> None:
        coming = cycle(asked)
        try:
            while not ending.wait(_PAUSE_SECONDS):
                some = list(islice(coming, _AT_ONCE))
                ask(serving, model, some)
                send_labels(serving, model, some)
        except Exception as error:
            wrong.append(error)

    thread = threading.Thread(target=go_on, name="traffic")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
        if wrong:  # rather than what came of it
            raise PerennialError(f"a request failed: {wrong[0]!r}") from wrong[0]


def request(flight: Flight) -> dict[str, Any]:
    """The body of a request: all that is known of a flight but its label."""
    return {name: _value(name, text) for name, text in flight.items() if name != LABEL}


def _value(name: str, text: str) -> Any:
    if not text:
        return None
    return text if name in _TEXTS else int(text) if name in _WHOLE else float(text)
