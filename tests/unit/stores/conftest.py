"""A small model of trips, and the few steps that every test of ingestion repeats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from perennial.contracts.refs import StagedRef
from perennial.data.audit import ValidationReport
from perennial.spec import ModelSpec, parse_spec
from perennial.stores import sources, staging, tables

TRIPS = """
name: trips
objective: binary
source: {kind: csv, uri: trips.csv, event_time: at, entity: [car], lateness: 2d}
label: {column: late, delay: 1d}
columns:
  car: {type: category, nullable: false}
  zone: {type: category, allowed: [north, south]}
  km: {type: float, min: 0, max: 500}
  stops: {type: integer, min: 0}
  note: {type: string}
  late: {type: boolean}
split: {kind: time, validation: 1d, test: 1d}
"""

SNAPSHOT = """
name: leaves
objective: regression
source: {kind: csv, uri: leaves.csv}
label: {column: width}
columns:
  length: {type: float, min: 0}
  kind: {type: category}
split: {kind: random, validation: 0.2, test: 0.2}
"""


@dataclass
class Project:
    """A project's folder with one model; ``ingest`` does a whole run's ingestion."""

    root: Path
    spec: ModelSpec

    @property
    def table(self) -> str:
        return str(self.root / "tables" / self.spec.name)

    @property
    def quarantine(self) -> str:
        return str(self.root / "quarantine" / self.spec.name)

    def csv(self, text: str, name: str | None = None) -> Path:
        path = self.root / (name or self.spec.source.uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def changed(self, old: str, new: str) -> Project:
        """The same project with a model.yaml in which ``old`` is ``new``."""
        from perennial.spec import spec_text

        text = TRIPS if self.spec.name == "trips" else SNAPSHOT
        assert old in text, spec_text(self.spec)
        return Project(self.root, parse_spec(text.replace(old, new)))

    def stage(
        self, as_of: datetime | None = None, full: bool = False, now: datetime | None = None
    ) -> StagedRef:
        mark = tables.watermark(self.spec, self.table, now)
        source = sources.inspect(self.spec, self.root, mark, as_of, full)
        return staging.stage(self.spec, self.root, source, self.root / "staging", now=now)

    def validate(self, staged: StagedRef, reference: Any = None) -> ValidationReport:
        return staging.validate(self.spec, staged, reference)

    def publish(self, staged: StagedRef) -> int:
        return tables.publish(self.spec, staged, self.table, self.quarantine).version

    def ingest(
        self, as_of: datetime | None = None, full: bool = False, now: datetime | None = None
    ) -> int:
        return self.publish(self.stage(as_of, full, now))

    def rows(self, as_of: datetime | None = None) -> pd.DataFrame:
        """The whole table in canonical order."""
        ref = tables.dataset(self.spec, self.table, as_of)
        return pd.concat(tables.scan(ref, self.spec), ignore_index=True)


@pytest.fixture
def trips(tmp_path: Path) -> Project:
    return Project(tmp_path, parse_spec(TRIPS))


@pytest.fixture
def leaves(tmp_path: Path) -> Project:
    return Project(tmp_path, parse_spec(SNAPSHOT))


@pytest.fixture
def spec_of() -> Callable[..., ModelSpec]:
    """The trips model with pieces of its model.yaml replaced: ``spec_of(("old", "new"), …)``."""

    def make(*changes: tuple[str, str]) -> ModelSpec:
        text = TRIPS
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        return parse_spec(text)

    return make
