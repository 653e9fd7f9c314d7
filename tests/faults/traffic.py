"""Clients that ask and label, and remember what they were promised."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from tests.faults.actors import BAD_WEIGHT_KG, MODEL
from tests.fuzz.served import ROW

_TIMEOUT_SECONDS = 8.0
_PAUSE_SECONDS = 0.03
_MOST_ROWS = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """A prediction that was acknowledged, as its client read it. ``mark`` is the row's own."""

    id: str
    mark: str
    version: int
    arm: str
    probability: float


@dataclass(frozen=True, slots=True)
class Label:
    """A label that was acknowledged. ``mark`` is its own number."""

    id: str
    mark: int
    label: str


@dataclass
class Promises:
    """What clients were told, all of them together, and how requests ended."""

    answers: list[Answer] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers that no request may get."""
    longest_silence: float = 0.0
    """Seconds between two answers of whoever answered."""
    answered_at: float = 0.0

    def answered(self) -> None:
        now = time.monotonic()
        if self.answered_at:
            self.longest_silence = max(self.longest_silence, now - self.answered_at)
        self.answered_at = now


class Traffic:
    """Clients in threads. ``addresses`` gives where servers are at this moment."""

    def __init__(self, addresses: Callable[[], Sequence[str]], clients: int, seed: int) -> None:
        self.promises = Promises()
        self._addresses = addresses
        self._stop = threading.Event()
        self._marks = itertools.count(1)
        self._threads = [
            threading.Thread(target=self._client, args=(f"{seed}-{number}",))
            for number in range(clients)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self, seed: str) -> None:
        chance = random.Random(seed)
        with httpx.Client(timeout=_TIMEOUT_SECONDS) as client:
            while not self._stop.wait(_PAUSE_SECONDS):
                addresses = self._addresses()
                if addresses:
                    self._ask(client, chance.choice(addresses), chance)

    def _ask(self, client: httpx.Client, address: str, chance: random.Random) -> None:
        rows = [self._row(chance) for _ in range(chance.randint(1, _MOST_ROWS))]
        found = self._post(client, f"{address}/models/{MODEL}/predict", rows)
        if found is None:
            return
        answers = [
            Answer(
                one["id"], row["remark"], one["version"], one["arm"], as_float32(one["probability"])
            )
            for row, one in zip(rows, found["predictions"], strict=True)
        ]
        self.promises.answers += answers
        self.promises.answered()
        if chance.random() < 0.4:
            labels = [
                Label(answer.id, next(self._marks), chance.choice(["yes", "no"]))
                for answer in answers
            ]
            body = [
                {"prediction_id": one.id, "label": one.label, "metrics": {"mark": one.mark}}
                for one in labels
            ]
            if self._post(client, f"{address}/models/{MODEL}/labels", body) is not None:
                self.promises.labels += labels

    def _row(self, chance: random.Random) -> dict[str, Any]:
        heavy = chance.random() < 0.2
        return {
            **ROW,
            "customer": f"c-{chance.randrange(500)}",
            "weight_kg": BAD_WEIGHT_KG * 2 if heavy else round(chance.uniform(0, 20), 3),
            "remark": f"m-{next(self._marks)}",
        }

    def _post(self, client: httpx.Client, url: str, body: Any) -> Any | None:
        """The reply that promises something; None for any other."""
        try:
            reply = client.post(url, json=body)
        except httpx.HTTPError as error:
            self.promises.statuses[type(error).__name__] += 1
            return None
        self.promises.statuses[str(reply.status_code)] += 1
        if reply.status_code == 200:
            return reply.json()
        if reply.status_code not in (500, 503):  # a version's own mistake; not now
            self.promises.wrong.append(f"{url}: {reply.status_code} {reply.text[:300]}")
        return None


def as_float32(value: float) -> float:
    """Answers have the digits of a float32."""
    return float(np.float32(value))
