"""Who is measured, and how: servers that answer the same flights, each alone on one core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.serving.load import Job, Outcome
from benchmarks.serving.servers import Server, cores, on_core

CONNECTIONS = 16
_CHECKED = 20


@dataclass
class Contender:
    """A server, what it is sent, and how its prediction is read from its answer."""

    title: str
    setting: str
    server: Server
    path: str
    bodies: Sequence[bytes]
    prediction: Callable[[Any], float]
    rounds: list[Round] = field(default_factory=list)

    def check(self, expected: np.ndarray) -> None:
        """That it predicts what the booster does. Raises RuntimeError when it doesn't."""
        for body, value in zip(self.bodies[:_CHECKED], expected, strict=False):
            status, _, answer = self.server.post(self.path, "application/json", body)
            if status != 200 or abs(self.prediction(json.loads(answer)) - value) > 1e-6:
                raise RuntimeError(f"{self.title} answered {answer!r} ({status}), not {value}")

    def measure(self, seconds: float, connections: int = CONNECTIONS) -> Round:
        """Put it under load for so long, and keep what came of it."""
        before = self.server.cpu_seconds()
        outcome, samples = load(
            Job(
                port=self.server.port,
                path=self.path,
                content_type="application/json",
                bodies=[body.decode("latin-1") for body in self.bodies],
                samples="",
                seconds=seconds,
                connections=connections,
            )
        )
        cpu = self.server.cpu_seconds() - before
        found = Round(outcome, samples[:, 1], cpu)
        self.rounds.append(found)
        return found

    def rate(self) -> float:
        return median(round.rate for round in self.rounds)

    def milliseconds(self, percentile: float) -> float:
        """Of all answers of all rounds."""
        took = np.concatenate([round.took for round in self.rounds])
        return float(np.percentile(took, percentile) * 1e3)


@dataclass(frozen=True)
class Round:
    """One stretch of load: the client's outcome, the seconds of each answer, and the processor time
    of the server's processes, that of the warm-up too."""

    outcome: Outcome
    took: np.ndarray
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.outcome.answers / self.outcome.seconds

    @property
    def cpu_microseconds(self) -> float:
        """An answer."""
        return 1e6 * self.cpu_seconds / (self.outcome.answers + self.outcome.warm_up_answers)


def load(job: Job) -> tuple[Outcome, np.ndarray]:
    """Run the client on its core. What came of it and its samples: (answers, 2), when each was
    complete and the seconds it took. ``job.samples`` is chosen here."""
    with tempfile.TemporaryDirectory(prefix="bench-load-") as folder:
        samples = Path(folder, "samples.npy")
        text = json.dumps({**asdict(job), "samples": str(samples)})
        with on_core(cores()[1]):
            client = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.serving.client"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        output, _ = client.communicate(text)
        if client.returncode:
            raise RuntimeError(f"the client ended with {client.returncode}")
        return Outcome(**json.loads(output)), np.load(samples)


def loads() -> str:
    """The machine's load, for the record."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())
