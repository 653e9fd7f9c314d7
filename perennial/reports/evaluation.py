"""The evaluation of a candidate as a page and as Markdown: the verdict first, then why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from perennial.contracts.verdicts import Curve, EvaluationReport
from perennial.reports import plots
from perennial.reports.figures import number, percent
from perennial.reports.pages import template
from perennial.reports.rows import (
    SIGNS,
    gate_row,
    importance_rows,
    metric_rows,
    slice_rows,
    window,
)

if TYPE_CHECKING:
    from markupsafe import Markup

_MOST_SLICES = 60
_MOST_FEATURES = 20
_MOST_SLICES_IN_MARKDOWN = 5
_SAFE_LINKS = ("https://", "http://", "file://", "/", "./", "../", "#")


def render_html(
    report: EvaluationReport, *, title: str | None = None, links: Mapping[str, str] | None = None
) -> str:
    """One self-contained page: no script, nothing fetched. Same report, same text.

    ``links`` (what it is → address) are shown at the top; an address that is not http, file or a
    path is shown as text.
    """
    slices, features = list(slice_rows(report)), importance_rows(report)
    return template("perennial.reports", "evaluation.html.j2").render(
        title=title or f"Evaluation of {report.model}",
        links=[(what, to, to.startswith(_SAFE_LINKS)) for what, to in (links or {}).items()],
        report=report,
        window=window(report),
        reason=report.judgement.reason.removeprefix(f"{report.judgement.outcome}: "),
        signs=SIGNS,
        gates=[gate_row(verdict) for verdict in report.judgement.verdicts],
        metrics=list(metric_rows(report)),
        drawings=list(_drawings(report)),
        slices=slices[:_MOST_SLICES],
        hidden_slices=len(slices[_MOST_SLICES:]),
        features=features[:_MOST_FEATURES],
        hidden_features=len(features[_MOST_FEATURES:]),
        unseen=sorted(report.unseen_categories.items(), key=lambda item: (-item[1], item[0])),
        number=number,
        interval=plots.interval,
    )


def render_markdown(report: EvaluationReport) -> str:
    """The same, compact, for a Prefect artifact."""
    judgement = report.judgement
    champion = "" if report.champion is None else f" against champion version {report.champion}"
    during = f", {window(report)}" if window(report) else ""
    lines = [
        f"# {SIGNS[judgement.outcome]} {_plain(report.model)}: {judgement.outcome}",
        "",
        _plain(judgement.reason),
        "",
        f"Candidate `{report.bundle_digest[:12]}`{champion} "
        f"on {report.holdout_rows:,} rows{_plain(during)}.{_left_out(report)}",
        "",
        "| | check | measured | limit | rows |",
        "|---|---|--:|--:|--:|",
    ]
    for gate in map(gate_row, judgement.verdicts):
        measured = f"{gate.measured} ({gate.bounds})" if gate.bounds else gate.measured
        lines.append(_cells(SIGNS[gate.outcome], gate.rule, measured, gate.limit, gate.n))
    lines += ["", "| metric | candidate | champion | gain |", "|---|--:|--:|--:|"]
    for row in metric_rows(report):
        lines.append(_cells(row.metric, str(row.candidate), row.champion, str(row.gain or "")))
    worst = [row for row in slice_rows(report) if row.gain is not None]
    if worst:
        lines += ["", "| slice | rows | metric | gain |", "|---|--:|---|--:|"]
    for row in worst[:_MOST_SLICES_IN_MARKDOWN]:
        lines.append(_cells(f"{row.column} = {row.level}", f"{row.n:,}", row.metric, str(row.gain)))
    return "\n".join(lines) + "\n"


def _left_out(report: EvaluationReport) -> str:
    if not report.left_out_rows:
        return ""
    return f" Compared without the {report.left_out_rows:,} that the champion was fitted to."


def _cells(*cells: str) -> str:
    return "| " + " | ".join(_plain(cell) for cell in cells) + " |"


def _plain(text: str) -> str:
    """Text from the data as it is: no markup, no new cell, no new line."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def _drawings(report: EvaluationReport) -> Iterator[tuple[str, Markup, str]]:
    """Heading, drawing, and a line on how to read it."""
    champions = {curve.name: curve for curve in report.champion_curves}
    for curve in report.curves:
        other = champions.get(curve.name)
        if curve.name == "Residuals":
            note = "The outer bars hold all beyond the 1 % and 99 % marks."
            yield curve.name, plots.histogram(curve.name, curve, other), note
        elif report.objective == "regression":
            note = "Rows at even steps in the order of their prediction. On the line it is right."
            yield "Predicted and observed", plots.scatter("Predicted and observed", curve), note
        else:
            yield _line_plot(curve, other)
    if report.calibration:
        x_label, y_label, meaning = {
            "binary": ("Predicted probability", "Share of positives", "mean what they say"),
            "multiclass": ("Highest probability", "Share predicted right", "mean what they say"),
            "regression": ("Mean prediction", "Mean observation", "are right on average"),
        }[report.objective]
        drawn = plots.calibration(
            "Calibration",
            report.calibration,
            (x_label, y_label),
            shares=report.objective != "regression",
        )
        note = f"Tenths of the rows, by prediction. On the line, predictions {meaning}."
        yield "Calibration", drawn, note


def _line_plot(curve: Curve, champion: Curve | None) -> tuple[str, Markup, str]:
    if curve.name.startswith("ROC"):
        ideal, note = [(0.0, 0.0), (1.0, 1.0)], "Dotted: chance."
    else:
        base = curve.y[-1]
        ideal, note = [(0.0, base), (1.0, base)], f"Dotted: chance, {percent(base)} positives."
    return curve.name, plots.lines(curve.name, curve, champion, ideal), note
