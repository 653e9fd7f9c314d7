"""The summary of a run as Markdown: the decision first, then what each stage took."""

from __future__ import annotations

from perennial.contracts.runs import RunSummary, StageRecord

_HEADLINES = {
    "promoted": "A better version took over",
    "kept": "The champion stays",
    "unchanged": "Nothing changed",
}


def render_summary(summary: RunSummary) -> str:
    """Markdown for a Prefect artifact: decision, reason, places to look, a table of stages."""
    champion = summary.champion
    serving = f"version {champion.version}" if champion else "nobody: no version was accepted yet"
    as_of = f"{summary.as_of:%Y-%m-%d %H:%M} UTC" if summary.as_of else "the whole snapshot"
    lines = [
        f"# {_HEADLINES[summary.decision.action]}: {summary.model}",
        "",
        summary.decision.reason,
        "",
        f"- **serving now**: {serving}",
        f"- **data**: {summary.rows:,} rows, as of {as_of}",
        f"- **started by**: {summary.trigger}",
        f"- **bundle**: `{summary.bundle_uri}`",
        f"- **study**: `{summary.study}`, W&B group `{summary.tracking_group}`",
    ]
    if summary.report_uri:
        lines.append(f"- **report**: `{summary.report_uri}`")
    lines += [
        "",
        "| stage | time | peak memory | rows in | rows out |",
        "|---|--:|--:|--:|--:|",
        *(_row(record) for record in summary.stages),
    ]
    return "\n".join(lines)


def _row(record: StageRecord) -> str:
    if record.cached:
        return f"| {record.stage} | cached | | | |"
    figures = [
        f"{record.seconds:.1f} s" if record.seconds is not None else "",
        f"{record.peak_memory_mib:,.0f} MiB" if record.peak_memory_mib is not None else "",
        f"{record.rows_in:,}" if record.rows_in is not None else "",
        f"{record.rows_out:,}" if record.rows_out is not None else "",
    ]
    return f"| {record.stage} | " + " | ".join(figures) + " |"
