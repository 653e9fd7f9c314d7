"""What a run came to, on a terminal."""

from __future__ import annotations

from perennial.cli.output import console, table_of
from perennial.contracts.runs import RunSummary, StageRecord


def print_run(summary: RunSummary) -> None:
    """The stages, what the data is warned of, then the decision and where to look."""
    out = console()
    table = table_of("stage", "time", "memory", "rows in", "rows out")
    for column in table.columns[1:]:
        column.justify = "right"
    for record in summary.stages:
        table.add_row(record.stage, *_figures(record))
    out.print(table)
    for warning in summary.warnings:
        out.print(f"\nwarning: {warning}", style="yellow", soft_wrap=True)
    action, version = summary.decision.action, summary.decision.version
    # Of one that was kept out the reason tells; after the word it would read as the one that stays.
    head = f"{action}: version {version.version}" if version and action != "kept" else action
    out.print(f"\n{head}", style="bold")
    for line in (
        summary.decision.reason,
        f"bundle  {summary.bundle_uri}",
        f"report  {summary.report_uri}" if summary.report_uri else "",
    ):
        if line:
            out.print(line, soft_wrap=True)


def _figures(record: StageRecord) -> tuple[str, str, str, str]:
    if record.cached:
        return ("cached", "", "", "")
    return (
        f"{record.seconds:.1f} s",
        f"{record.peak_memory_mib:,.0f} MiB",
        "" if record.rows_in is None else f"{record.rows_in:,}",
        "" if record.rows_out is None else f"{record.rows_out:,}",
    )
