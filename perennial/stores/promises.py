"""What a version's evaluation promised, and the rows it rests on, for as long as they are kept."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from perennial.contracts.errors import IntegrityError
from perennial.contracts.verdicts import Estimate, EvaluationReport
from perennial.learning.holdout import Holdout
from perennial.learning.metrics import rarer_labels
from perennial.stores.registry.records import Version
from perennial.stores.storage.objects import read

HOLDOUT = "holdout.parquet"
"""Beside ``evaluation.json``, in the folder of an evaluation's report."""


@dataclass(frozen=True)
class Promise:
    """``estimates`` of the version's metrics on ``rows`` rows of its holdout, which lay over
    ``days`` days (None: without time, or not known). Without a ``holdout`` nothing can be
    estimated of other rows. ``notes`` say what is lacking. ``rarer`` of the rows' labels are not of
    the commonest class (None: a regression, or not known)."""

    estimates: tuple[Estimate, ...]
    rows: int
    days: float | None
    holdout: Holdout | None
    notes: tuple[str, ...] = ()
    rarer: int | None = None


def promise_of(version: Version) -> Promise:
    """The promise of a registered version. Raises nothing for a report that is gone or damaged:
    the metrics in the registry then stand for it, without their intervals. UnavailableError
    is a storage that doesn't answer."""
    place = version.links.get("report")
    folder = place.rpartition("/")[0] if place else ""
    report = _report(f"{folder}/evaluation.json") if place else None
    if report is None:
        known = {name: value for name, value in version.metrics.items() if value is not None}
        estimates = tuple(
            Estimate(metric=name, value=value, low=value, high=value, n=0)
            for name, value in known.items()
        )
        where = f" ({place})" if place else ""
        why = (
            f"the evaluation of version {version.ref.version} is gone{where}: its metrics are "
            "those of the registry, without intervals, and nothing can be estimated"
        )
        return Promise(estimates, 0, None, None, (why,))
    holdout, notes = _holdout(f"{folder}/{HOLDOUT}", version)
    rows, rarer = report.holdout_rows, None
    if holdout is not None and (kept := rarer_labels(holdout.objective, holdout.y)) is not None:
        rarer = round(kept * rows / len(holdout.y))  # of many rows a random part is kept
    return Promise(report.estimates, rows, _days(report), holdout, notes, rarer)


def _report(uri: str) -> EvaluationReport | None:
    try:
        return EvaluationReport.model_validate_json(read(uri) or b"")
    except (OSError, ValidationError):
        return None


def _holdout(uri: str, version: Version) -> tuple[Holdout | None, tuple[str, ...]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return Holdout.from_table(pq.read_table(io.BytesIO(read(uri) or b""))), ()
    except (OSError, pa.ArrowException, IntegrityError):
        what = f"version {version.ref.version} has no holdout rows ({uri})"
        again = "nothing can be estimated until a version is trained that keeps them"
        return None, (f"{what}: {again}",)


def _days(report: EvaluationReport) -> float | None:
    if report.holdout_start is None or report.holdout_end is None:
        return None
    span = datetime.fromisoformat(report.holdout_end) - datetime.fromisoformat(report.holdout_start)
    return max(span / timedelta(days=1), 1.0)
