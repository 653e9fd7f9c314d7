"""Who acts on the registry while faults come: a controller that watches rollouts, and a trainer
that brings versions. The steps are those of the flows, without Prefect.

    python -m tests.faults.actors first|controller|trainer|pipeline JOURNAL

What was done is told to the journal after it was done, a line of JSON each, whole or not at all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from perennial.contracts.errors import PerennialError
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.fuzz.served import FEATURES, content
from tests.workplace import demand_rows

MODEL = "parcels"
BAD_WEIGHT_KG = 1000.0
"""What a version with a mistake in its features fails on; training never saw it."""
_MISTAKE = f"""

def heavy(weight_kg: pd.Series) -> pd.Series:
    if (weight_kg > {BAD_WEIGHT_KG}).any():
        raise ZeroDivisionError("heavier than anything")
    return weight_kg > 10
"""
_PAUSE_SECONDS = 0.4
_SOON_SECONDS, _LATER_SECONDS = 4.0, 40.0
"""From one version to the next: every third comes soon, while the one before is being rolled out;
the others when that has ended, or later."""


class Journal:
    """A file of lines, of which none is lost when its process is killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def tell(self, **what: Any) -> None:
        os.write(self._fd, json.dumps(what).encode() + b"\n")

    def lines(self) -> list[dict[str, Any]]:
        return list(read(self.path))


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal; one that a kill cut short was not told."""
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield json.loads(line)


def is_bad(number: int) -> bool:
    return number % 3 == 0


def seed_version(project: Project, registry: Registry, number: int) -> Any:
    """Train a version, as it were, and register it: the same number is always the same version."""
    from perennial.stores.bundles import keep_bundle

    features = FEATURES + (_MISTAKE if is_bad(number) else "")
    made = keep_bundle(project, content(MODEL, "binary", number, features))
    return registry.register(
        MODEL, made, params={}, metrics={"logloss": 0.5}, judgement={}, links={},
        actor="trainer", reason="passed", now=datetime.now(UTC),
    )  # fmt: skip


def begin(project: Project, journal: Journal) -> None:
    """The first version, which answers everything."""
    registry = Registry(project.registry_url)
    ref = seed_version(project, registry, 1)
    registry.promote(
        MODEL, ref.version, expected_generation=0, actor="trainer", reason="the first",
        evidence={}, cause="first", now=datetime.now(UTC),
    )  # fmt: skip
    journal.tell(told="registered", version=ref.version, digest=ref.digest)


def train(project: Project, journal: Journal) -> None:
    """Version after version, each begun to be rolled out as registration does it. What fails is
    tried again; a kill loses at most what was not told, and the next trainer does it again."""
    from perennial.contracts.errors import InputError
    from perennial.stores import rolling_out

    while True:
        number = 2 + sum(line["told"] == "begun" for line in journal.lines())
        try:
            registry = Registry(project.registry_url)
            ref = seed_version(project, registry, number)
            journal.tell(told="registered", version=ref.version, digest=ref.digest)
            settings = {"strategy": "shadow"} if number % 4 == 1 else {}
            try:
                rollout = rolling_out.begin(
                    project, registry, MODEL, ref.version, settings, actor="trainer",
                    reason="passed", cause=f"trained {number}", force=False, now=datetime.now(UTC),
                )  # fmt: skip
                journal.tell(told="begun", version=ref.version, rollout=rollout.id)
            except InputError as error:
                journal.tell(told="begun", version=ref.version, rollout=None, why=error.message)
            registry.close()
            _wait_for_next(project, _SOON_SECONDS if number % 3 == 1 else _LATER_SECONDS)
        except (PerennialError, OSError) as error:
            print(f"version {number}: {error}", file=sys.stderr, flush=True)
            time.sleep(_PAUSE_SECONDS)


def _wait_for_next(project: Project, seconds: float) -> None:
    registry = Registry(project.registry_url)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        if passed > _SOON_SECONDS and registry.rollouts.active(MODEL) is None:
            break
        time.sleep(_PAUSE_SECONDS)
    registry.close()


def rows_of(number: int) -> Any:
    """The rows that arrive as so many: ninety days at first, then two weeks each, some of which
    have been there before."""
    first = number == 0
    start = "2024-01-01" if first else f"{date(2024, 3, 20) + timedelta(days=10 * number)}"
    return demand_rows(start, 90 if first else 14, seed=1)


def run_pipeline(project: Project, journal: Journal) -> None:
    """Data arrives, and the real flow of continuous training takes it in, trains and registers; a
    flow that fails is run again."""
    while True:
        number = sum(line["told"] == "ingested" for line in journal.lines())
        try:
            place = project.root / "data" / f"{number:04d}.csv"
            new = place.with_suffix(".new")
            rows_of(number).to_csv(new, index=False)
            new.replace(place)
        except OSError as error:
            print(error, file=sys.stderr, flush=True)
            time.sleep(_PAUSE_SECONDS)
            continue
        command = [sys.executable, "-m", "flows", "continuous_training", '{"model": "demand"}']
        done = subprocess.run(command, cwd=project.root, stdout=subprocess.DEVNULL, check=False)
        if done.returncode == 0:
            journal.tell(told="ingested", number=number)
        time.sleep(_PAUSE_SECONDS)


def control(project: Project, journal: Journal) -> None:
    """Look at the rollout under way again and again, as the flow does; two of these may run."""
    from perennial.stores.rolling_out import look, spec_of

    actor = f"controller {os.getpid()}"
    while True:
        try:
            registry = Registry(project.registry_url)
            while True:
                active = registry.rollouts.active(MODEL)
                if active is not None:
                    spec = spec_of(project, registry.version(MODEL, active.version).ref)
                    now = datetime.now(UTC)
                    found = look(project, registry, spec, active, actor=actor, now=now)
                    journal.tell(told="looked", rollout=found.id, revision=found.revision)
                time.sleep(_PAUSE_SECONDS)
        except (PerennialError, OSError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            time.sleep(_PAUSE_SECONDS)


def main() -> None:
    what, path = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # DuckDB would make an error of an exit
    journal = Journal(Path(path))
    {"first": begin, "controller": control, "trainer": train, "pipeline": run_pipeline}[what](
        Project.current(), journal
    )


if __name__ == "__main__":
    main()
