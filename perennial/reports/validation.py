"""A batch's audit as Markdown: what each check found, then the profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class _Finding(Protocol):
    @property
    def check(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def what(self) -> str: ...


class Audit(Protocol):
    """What is rendered of an audit (``perennial.data.audit.ValidationReport``)."""

    @property
    def model(self) -> str: ...
    @property
    def passed(self) -> bool: ...
    @property
    def findings(self) -> tuple[_Finding, ...]: ...


def render_validation(audit: Audit, profile: Mapping[str, Any]) -> str:
    """Markdown for a Prefect artifact. ``profile`` is ``BatchStats.profile``."""
    head = "accepted" if audit.passed else "refused: nothing was published"
    lines = [f"# Batch {head}: {audit.model}", "", "| check | outcome | finding |", "|---|---|---|"]
    for finding in audit.findings:
        what = finding.what.replace("|", "\\|").replace("\n", "<br>")
        lines.append(f"| {finding.check} | {finding.outcome} | {what} |")
    lines += ["", "| column | present | missing | min | mean | max |", "|---|--:|--:|--:|--:|--:|"]
    for name, column in profile.get("columns", {}).items():
        figures = (column.get(key) for key in ("count", "missing", "min", "mean", "max"))
        lines.append(f"| {name} | " + " | ".join(_figure(f) for f in figures) + " |")
    return "\n".join(lines)


def _figure(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
