"""The summary of a run: the decision first, in words that are true of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from perennial.contracts.refs import VersionRef
from perennial.contracts.runs import Decision, RunSummary, StageRecord
from perennial.reports.summary import duration, headline, render_summary

CHAMPION = VersionRef(model="rides", version=3, digest="d", uri="/bundles/d")
TRIED = VersionRef(model="rides", version=4, digest="e", uri="/bundles/e")


def _summary(
    action: Literal["promoted", "rolling out", "kept", "unchanged"] = "promoted",
    champion: VersionRef | None = CHAMPION,
    **changes: Any,
) -> RunSummary:
    decision = Decision(
        action=action,
        version=champion if action in ("promoted", "rolling out") else None,
        reason="passed all 6 checks: roc_auc 0.70 is at least 0.6",
    )
    summary = RunSummary(
        model="rides", as_of=datetime(2024, 4, 1, 6, tzinfo=UTC), trigger="drift",
        decision=decision, champion=champion, bundle_digest="d", bundle_uri="/p/bundles/my_model/d",
        report_uri="/p/reports/evaluation.html", study="rides-1", tracking_group="rides-1",
        rows=80_739,
        stages=(
            StageRecord(stage="stage", cached=True),
            StageRecord(stage="tune", cached=False, seconds=125.2, peak_memory_mib=1574.4,
                        rows_in=59_620),
        ),
    )  # fmt: skip
    return summary.model_copy(update=changes)


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        (_summary(), "version 3 took over"),
        (_summary("rolling out"), "version 3 is rolled out"),
        (_summary("kept"), "candidate refused, version 3 stays"),
        (_summary("kept", champion=None), "candidate refused, nobody serves yet"),
        (
            _summary(decision=Decision(action="kept", version=TRIED, reason="it served until …")),
            "version 4 was tried before, 3 stays",
        ),
        (_summary("unchanged"), "nothing changed, version 3 stays"),
    ],
)
def test_the_headline_says_what_became_of_the_candidate(summary: RunSummary, said: str) -> None:
    assert headline(summary) == said
    assert render_summary(summary).startswith(f"# rides: {said}\n")


def test_the_summary_says_on_what_and_why_and_where_to_look() -> None:
    rows = render_summary(_summary()).splitlines()
    assert r"passed all 6 checks: roc\_auc 0.70 is at least 0.6" in rows
    assert "- **data**: 80,739 rows, as of 2024-04-01 06:00 UTC" in rows
    assert "- **started by**: drift" in rows
    assert "- **report**: `/p/reports/evaluation.html`" in rows
    assert "- **bundle**: `/p/bundles/my_model/d`" in rows


def test_no_page_links_to_a_file_which_a_browser_would_not_open() -> None:
    assert "file:" not in render_summary(_summary())
    assert "**report**" not in render_summary(_summary(report_uri=None))


def test_a_snapshot_without_times_has_no_moment() -> None:
    assert "as of the whole snapshot" in render_summary(_summary(as_of=None))


def test_stages_show_what_they_took_and_cached_ones_say_why_they_did_nothing() -> None:
    text = render_summary(_summary())
    assert "| stage | *cached* |  |  |  |" in text
    assert "| tune | 2 min 5 s | 1,574 MiB | 59,620 |  |" in text
    assert "*cached*: nothing that the stage depends on has changed" in text
    worked = tuple(record for record in _summary().stages if not record.cached)
    assert "cached" not in render_summary(_summary(stages=worked))


def test_a_reason_from_outside_is_text_not_markup() -> None:
    trigger = "drift | <script>alert(1)</script>\n# Heading"
    text = render_summary(_summary(trigger=trigger))
    assert r"- **started by**: drift \| \<script\>alert(1)\</script\> \# Heading" in text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "< 0.1 s"), (0.26, "0.3 s"), (53.14, "53.1 s"), (59.96, "1 min 0 s"),
        (3599.7, "1 h 0 min"), (3725, "1 h 2 min"),
    ],
)  # fmt: skip
def test_a_duration_has_the_unit_that_a_reader_wants(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
