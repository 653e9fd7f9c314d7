"""The summary of a run of batch scoring as Markdown."""

from __future__ import annotations

from perennial.contracts.scoring import ScoresRef, ScoringJob, ScoringSummary
from perennial.reports.markdown import code, plain
from perennial.reports.summary import stages_table


def headline(job: ScoringJob, scores: ScoresRef) -> str:
    """What the run came to, in a sentence."""
    by = f"{job.version.model}@{job.version.version}"
    rows = f"{scores.rows:,} {'row' if scores.rows == 1 else 'rows'}"
    if not scores.changed:
        return f"nothing to do: {rows} are scored by {by} already"
    rest = f", {scores.bad_rows:,} could not be" if scores.bad_rows else ""
    return f"{rows} scored by {by}{rest}"


def render_scoring(summary: ScoringSummary) -> str:
    """Markdown for a Prefect artifact: what was scored by whom, where it is, a table of stages."""
    job, scores = summary.job, summary.scores
    text = [
        f"# {plain(summary.reason)}",
        "",
        f"- **predictions**: {code(scores.uri)}, version {scores.version} of the table",
        f"- **rows of**: {code(job.source.uri)} ({plain(job.source.fingerprint)})",
        f"- **scored by**: {code(job.version.uri)}",
        f"- **columns carried along**: {plain(', '.join(job.columns)) or 'none'}",
    ]
    if scores.bad_rows:
        text.append(f"- **not scored**: {scores.bad_rows:,} rows, see {code(job.quarantine)}")
    return "\n".join([*text, "", *stages_table(summary.stages)]) + "\n"
