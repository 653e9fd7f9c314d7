"""What a version's evaluation promised, and the rows it rests on, for as long as they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from perennial.contracts.errors import IntegrityError
from perennial.contracts.verdicts import Estimate, EvaluationReport
from perennial.learning.holdout import Holdout
from perennial.stores.registry.records import Version

HOLDOUT = "holdout.parquet"
"""Beside ``evaluation.json``, in the folder of an evaluation's report."""


@dataclass(frozen=True)
class Promise:
    """``estimates`` of the version's metrics on ``rows`` rows of its holdout, which lay over
    ``days`` days (None: without time, or not known). Without a ``holdout`` nothing can be
    estimated of other rows. ``notes`` say what is lacking."""

    estimates: tuple[Estimate, ...]
    rows: int
    days: float | None
    holdout: Holdout | None
    notes: tuple[str, ...] = ()


def promise_of(version: Version) -> Promise:
    """The promise of a registered version. Raises nothing for a report that is gone or damaged:
    the metrics in the registry then stand for it, without their intervals."""
    place = version.links.get("report")
    report = _report(Path(place).with_name("evaluation.json")) if place else None
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
    assert place is not None
    holdout, notes = _holdout(Path(place).with_name(HOLDOUT), version)
    return Promise(report.estimates, report.holdout_rows, _days(report), holdout, notes)


def _report(path: Path) -> EvaluationReport | None:
    try:
        return EvaluationReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _holdout(path: Path, version: Version) -> tuple[Holdout | None, tuple[str, ...]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return Holdout.from_table(pq.read_table(path)), ()
    except (OSError, pa.ArrowException, IntegrityError):
        what = f"version {version.ref.version} has no holdout rows ({path})"
        again = "nothing can be estimated until a version is trained that keeps them"
        return None, (f"{what}: {again}",)


def _days(report: EvaluationReport) -> float | None:
    if report.holdout_start is None or report.holdout_end is None:
        return None
    span = datetime.fromisoformat(report.holdout_end) - datetime.fromisoformat(report.holdout_start)
    return max(span / timedelta(days=1), 1.0)
