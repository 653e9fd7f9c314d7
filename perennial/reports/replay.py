"""A replay of history as Markdown: what retraining was worth, stretch by stretch."""

from __future__ import annotations

from perennial.contracts.runs import ReplaySummary
from perennial.reports.figures import number
from perennial.reports.markdown import plain, row


def render_replay(summary: ReplaySummary) -> str:
    """Markdown for a Prefect artifact: a row a training, with how the time after it went."""
    took = sum(period.decision.action == "promoted" for period in summary.periods)
    metric = plain(summary.periods[0].metric) if summary.periods else "metric"
    text = [
        f"# {plain(summary.model)}: {took} of {len(summary.periods)} trainings took over",
        "",
        f"{metric} on what came after each training, of the first version (never retrained) and of "
        "the one serving then (retrained).",
        "",
        "| from | rows | never retrained | retrained | serving | decision |",
        "|---|--:|--:|--:|---|---|",
    ]
    for period in summary.periods:
        decision = f"**{period.decision.action}**: {plain(period.decision.reason)}"
        text.append(
            row(
                f"{period.start:%Y-%m-%d}", f"{period.rows:,}",
                number(period.stale), number(period.current),
                f"version {period.current_version}", decision,
            )
        )  # fmt: skip
    return "\n".join(text) + "\n"
