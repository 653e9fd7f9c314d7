"""A look on paper: the finding first; nothing that is in the data becomes markup."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

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
from perennial.reports.drift import headline, render_html, render_markdown
from perennial.reports.drift_picture import draw

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


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        (Finding.NONE, "parcels@3: no drift"),
        (Finding.CONCEPT, "parcels@3: concept drift"),
        (Finding.FAULT, "parcels@3: data quality fault"),
    ],
)
def test_the_headline_says_of_whom_what_was_found(finding: Finding, said: str) -> None:
    assert headline(look(finding)) == said
    assert f"<h1>{said}</h1>" in render_html(look(finding))
    assert said.replace("_", "\\_") in render_markdown(look(finding)).splitlines()[0]


def test_the_page_is_whole_and_nothing_in_the_data_becomes_markup() -> None:
    page = render_html(look())
    assert page == render_html(look())
    assert "<img" not in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    for said in (
        "2026-05-08 06:00 to 2026-05-15 06:00 UTC, 900 rows",
        "700 of 800 that are due, 100 to come",
        "drawn from at most 20,000 rows a side",
        "12 labels are of no prediction",
        "unseen categories",
        '<a href="evidently-drift.html">',
        "−0.100",
    ):
        assert said in page, said


def test_the_artifact_has_the_finding_tables_picture_and_places() -> None:
    text = render_markdown(look())
    assert text.startswith("# ✗ parcels@3: harmful drift\n\na loss, \\<img src=x")
    lines = text.splitlines()
    assert "| items | stable | 50.0 % | 0 | 0.1 | 2.0 % |" in lines
    assert any(
        line.startswith("| logloss by labels, against the promise | worse |") for line in lines
    )
    assert "The page: `/p/drift/a/drift.html`" in lines
    assert "Its history: `evidently ui --workspace /p/evidently`" in lines
    (encoded,) = re.findall(r"\(data:image/svg\+xml;base64,([^)]+)\)", text)
    assert ET.fromstring(base64.b64decode(encoded)).tag.endswith("svg")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_a_look_at_nothing_can_be_shown() -> None:
    nothing = look(
        Finding.INCONCLUSIVE, version=None, drift=None, realised=None, labels=None, pictures={},
        reports=None, notes=(), rows=0,
    )  # fmt: skip
    assert "<h1>parcels: inconclusive</h1>" in render_html(nothing)
    assert render_markdown(nothing).startswith("# ? parcels: inconclusive\n")


def test_the_picture_stands_alone_and_shows_shares_by_length() -> None:
    drawn = ET.fromstring(draw(look().pictures, {BAD: "drifted"}))
    bars = [
        float(bar.get("width", ""))
        for bar in drawn.iter("{http://www.w3.org/2000/svg}rect")
        if bar.get("class") in ("before", "after")
    ]
    longest = max(bars)
    assert [round(bar / longest, 2) for bar in bars] == [0.25, 1.0, 0.75, 0.0, 1.0, 1.0]
    assert draw({}, {}) == ""
