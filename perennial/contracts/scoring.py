"""Batch scoring: what is to be scored by which version, and what came of it."""

from __future__ import annotations

import hashlib

from perennial.contracts.refs import SourceRef, Value, VersionRef
from perennial.contracts.runs import StageRecord

FORMAT = 1
"""Counts changes of what a table of predictions holds for the same job."""


class ScoringJob(Value):
    """Rows of a source, a version to score them, and the Delta table to put the predictions in.

    ``columns`` of the source are carried along. Nothing is put there when more than ``max_share``
    of the rows can't be scored.
    """

    version: VersionRef
    source: SourceRef
    columns: tuple[str, ...]
    output: str
    max_share: float

    @property
    def number(self) -> int:
        """60 bits that say what the table holds once the job is done: the same for the same rows,
        version and columns."""
        version = {"model", "version", "digest"}
        parts = self.model_dump_json(include={"version": version, "source": True, "columns": True})
        return int(hashlib.sha256(f"{FORMAT} {parts}".encode()).hexdigest()[:15], 16)

    @property
    def quarantine(self) -> str:
        """The Delta table of the rows that can't be scored."""
        return f"{self.output.rstrip('/')}_quarantine"


class ScoresRef(Value):
    """One version of a table of predictions. ``changed``: this run made it; otherwise it was there
    before. ``bad_rows`` are in the job's quarantine table."""

    uri: str
    version: int
    rows: int
    bad_rows: int
    changed: bool


class ScoringSummary(Value):
    """The end of a run of batch scoring."""

    job: ScoringJob
    scores: ScoresRef
    reason: str
    stages: tuple[StageRecord, ...]
