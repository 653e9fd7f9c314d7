"""The summary of a run as Markdown: the decision first, then what each stage took."""

from __future__ import annotations

from collections.abc import Sequence

from perennial.contracts.runs import RunSummary, StageRecord
from perennial.reports.markdown import code, plain, row


def headline(summary: RunSummary) -> str:
    """What the run came to, in a few words: ``version 3 took over``."""
    decision, champion = summary.decision, summary.champion
    if decision.action == "promoted" and decision.version:
        return f"version {decision.version.version} took over"
    if decision.action == "rolling out" and decision.version:
        return f"version {decision.version.version} is rolled out"
    if champion is None:
        return "candidate refused, nobody serves yet"
    if decision.action == "unchanged":
        return f"nothing changed, version {champion.version} stays"
    if decision.version:
        return f"version {decision.version.version} was tried before, {champion.version} stays"
    return f"candidate refused, version {champion.version} stays"


def render_summary(summary: RunSummary) -> str:
    """Markdown for a Prefect artifact: decision, reason, places to look, a table of stages.

    Places are paths on the machine that ran it: a page from a server can't link to files.
    """
    champion = summary.champion
    serving = f"version {champion.version}" if champion else "nobody"
    as_of = f"{summary.as_of:%Y-%m-%d %H:%M} UTC" if summary.as_of else "the whole snapshot"
    text = [
        f"# {plain(summary.model)}: {headline(summary)}",
        "",
        plain(summary.decision.reason),
        "",
        f"- **serving now**: {serving}",
        f"- **data**: {summary.rows:,} rows, as of {as_of}",
        f"- **started by**: {plain(summary.trigger)}",
    ]
    if summary.report_uri:
        text.append(f"- **report**: {code(summary.report_uri)}")
    text += [
        f"- **bundle**: {code(summary.bundle_uri)}",
        f"- **study**: {code(summary.study)}, W&B group {code(summary.tracking_group)}",
        "",
        *stages_table(summary.stages),
    ]
    return "\n".join(text) + "\n"


def stages_table(stages: Sequence[StageRecord]) -> list[str]:
    """What each stage took, as the lines of a Markdown table."""
    lines = [
        "| stage | time | peak memory | rows in | rows out |",
        "|---|--:|--:|--:|--:|",
        *(_row(record) for record in stages),
    ]
    if any(record.cached for record in stages):
        lines += ["", "*cached*: nothing that the stage depends on has changed since it last ran."]
    return lines


def duration(seconds: float) -> str:
    """``< 0.1 s``, ``53.1 s``, ``2 min 3 s``, ``1 h 2 min``."""
    if seconds < 0.05:
        return "< 0.1 s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _row(record: StageRecord) -> str:
    if record.cached:
        return row(plain(record.stage), "*cached*", "", "", "")
    return row(
        plain(record.stage),
        "" if record.seconds is None else plain(duration(record.seconds)),
        "" if record.peak_memory_mib is None else f"{record.peak_memory_mib:,.0f} MiB",
        "" if record.rows_in is None else f"{record.rows_in:,}",
        "" if record.rows_out is None else f"{record.rows_out:,}",
    )
