"""A model with versions to roll out, and what is logged of their requests: for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa

from perennial.contracts.refs import BundleRef
from perennial.stores.predictions import Spool
from perennial.stores.predictions.columns import TIMESTAMP
from perennial.stores.predictions.segments import Kind
from perennial.stores.predictions.tables import commit_segments
from perennial.stores.predictions.waiting import finish, waiting
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.workplace import MODEL_YAML, Workplace

MODEL = "demand"
CANARY = (
    "rollout: {strategy: canary, steps: [20, 100], bake: 1s, timeout: 1h, min_requests: 10, "
    "check_every: 1s, guards: {error_rate: 0.05}}\n"
)
_numbers = count(1)


@dataclass(frozen=True)
class Rolling(Workplace):
    """A project whose model serves version 1 and has more."""

    @property
    def project(self) -> Project:
        return Project(self.root)

    @property
    def registry(self) -> Registry:
        return Registry(self.project.registry_url)

    def of(self, model: str) -> None:
        """The same model under another name."""
        folder = self.root / "models" / model
        folder.mkdir(parents=True, exist_ok=True)
        text = (self.model / "model.yaml").read_text()
        (folder / "model.yaml").write_text(text.replace("name: demand", f"name: {model}"))

    def versions(self, number: int, model: str = MODEL) -> None:
        """Register so many versions; the first is the champion."""
        registry, now = self.registry, datetime.now(UTC)
        for version in range(1, number + 1):
            digest = f"{version:064x}"
            ref = BundleRef(digest=digest, uri=str(self.root / digest))
            registry.register(
                model, ref, params={}, metrics={}, judgement={}, links={}, actor="tests",
                reason="passed", now=now,
            )  # fmt: skip
        registry.promote(
            model, 1, expected_generation=0, actor="tests", reason="the first", evidence={},
            cause="first", now=now,
        )  # fmt: skip

    def answered(
        self, rows: int, version: int, arm: str, model: str = MODEL, at: datetime | None = None
    ) -> None:
        """Log predictions, one a request, as the server does."""
        when = at or datetime.now(UTC)
        columns = {
            **_common(rows, version, arm, when),
            "_prediction": pa.array([0.25] * rows, pa.float64()),
            "_class": pa.nulls(rows, pa.string()),
            "_probabilities": pa.nulls(rows, pa.list_(pa.float64())),
            "at": pa.array([when] * rows, TIMESTAMP),
            "shop": pa.array([f"shop {next(_numbers)}" for _ in range(rows)], pa.string()),
        }
        self._log("predictions", columns, model)

    def failed(
        self, rows: int, version: int, arm: str, model: str = MODEL, at: datetime | None = None
    ) -> None:
        """Log predictions that a version's code could not make."""
        columns = {
            **_common(rows, version, arm, at or datetime.now(UTC)),
            "_error": pa.array(["ZeroDivisionError"] * rows, pa.string()),
        }
        self._log("failures", columns, model)

    @contextmanager
    def traffic(self, versions: tuple[int, int] = (1, 2), model: str = MODEL) -> Iterator[None]:
        """Requests to the champion and the challenger, for as long as this lasts."""
        over = threading.Event()

        def send() -> None:
            while not over.wait(0.25):
                self.answered(8, versions[0], "champion", model)
                self.answered(8, versions[1], "challenger", model)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _log(self, kind: Kind, columns: dict[str, Any], model: str) -> None:
        spool = self.root / "spools" / uuid4().hex
        server = Spool(spool, seal_bytes=1)
        batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        server.append(model, kind, batch, {})
        server.close()
        for segments in waiting(spool):
            commit_segments(segments, str(self.project.folder(kind, model)))
            for segment in segments:
                finish(segment.path, "live")


def rolling(root: Path, environment: dict[str, str], settings: str = CANARY) -> Rolling:
    """A project with one model, before anything was registered."""
    place = Rolling(root, environment)
    place.model.mkdir(parents=True, exist_ok=True)
    (place.model / "model.yaml").write_text(MODEL_YAML + settings)
    return place


def _common(rows: int, version: int, arm: str, at: datetime) -> dict[str, Any]:
    ids = [f"{version}-{next(_numbers)}" for _ in range(rows)]
    return {
        "_id": pa.array(ids, pa.string()),
        "_request_id": pa.array([f"r-{id}" for id in ids], pa.string()),
        "_time": pa.array([at] * rows, TIMESTAMP),
        "_version": pa.array([version] * rows, pa.int64()),
        "_arm": pa.array([arm] * rows, pa.string()),
        "_latency_ms": pa.array([2.0] * rows, pa.float64()),
    }
