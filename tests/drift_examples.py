"""A look at harmful drift, with a column whose name would like to be markup."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from perennial.contracts.drift import (
    Change,
    ColumnDrift,
    ColumnOutcome,
    DriftOutcome,
    DriftVerdict,
    Fault,
)
from perennial.contracts.performance import LabelCounts, PerformanceChange
from perennial.contracts.refs import VersionRef
from perennial.contracts.retraining import Finding, Trigger
from perennial.contracts.verdicts import Estimate, Evidence
from perennial.contracts.watching import Look, LookReports

END = datetime(2026, 5, 15, 6, tzinfo=UTC)
BAD = '<img src=x onerror="alert(1)">|**x**'


def column(name: str, outcome: ColumnOutcome, **values: Any) -> ColumnDrift:
    return ColumnDrift(
        column=name, outcome=outcome, reason=f"{name} measured", rows=900, weight=0.5, **values
    )


def look(finding: Finding = Finding.HARMFUL, **changes: Any) -> Look:
    columns = (
        column("depot", ColumnOutcome.FAULT, fault=Fault.UNSEEN),
        column(BAD, ColumnOutcome.DRIFTED, effect=0.31, limit=0.1, found_as=(0.3, "spreads")),
        column("items", ColumnOutcome.STABLE, effect=0.0, limit=0.1, found_as=(0.02, "share")),
    )
    drift = DriftVerdict(
        outcome=DriftOutcome.DRIFTED, reason="measured", rows=900, reference_rows=7500,
        drifted_share=0.5, max_drifted_share=0.3, false_alarm_rate=0.01, min_effect=0.1, found=0.1,
        columns=columns,
    )  # fmt: skip
    new, old = (
        Estimate(metric="logloss", value=value, low=value - 0.01, high=value + 0.01, n=900)
        for value in (0.6, 0.5)
    )
    evidence = Evidence(rule="logloss", value=-0.1, low=-0.12, high=-0.08, limit=-0.05, n=900)
    worse = PerformanceChange(
        change="worse", reason="logloss is 0.6", evidence=evidence, observed=new, expected=old
    )
    window = (END - timedelta(days=7), END)
    made = Look(
        model="parcels",
        version=VersionRef(model="parcels", version=3, digest="0123456789abcdef", uri="/b"),
        window=window,
        rows=900,
        finding=finding,
        reason=f"a loss, {BAD}",
        drift=drift,
        realised=worse,
        labels=LabelCounts(
            predictions=900, due=800, labelled=700, labelled_due=700, overdue=100, pending=100,
            early=0, repeated=0, contradicted=0,
        ),
        notes=("12 labels are of no prediction",),
        pictures={
            BAD: (
                Change(values="0 to 1", before=0.25, after=1.0),
                Change(values=BAD, before=0.75, after=0.0),
            ),
            "items": (Change(values="1", before=1.0, after=1.0),),
        },
        reports=LookReports(
            html_uri="/p/drift/a/drift.html",
            json_uri="/p/drift/a/look.json",
            evidently={"drift": "/p/drift/a/evidently-drift.html"},
            sampled_rows=20_000,
            workspace="/p/evidently",
        ),
        trigger=Trigger(kind="drift", reason="r", at=END, finding=finding, window=window),
    )  # fmt: skip
    return made.model_copy(update=changes)
