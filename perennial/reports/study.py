"""A study as Markdown: what was found, and every trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class _Trial(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def origin(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def value(self) -> float | None: ...
    @property
    def rounds(self) -> int: ...
    @property
    def params(self) -> Mapping[str, float | int | str]: ...


class Study(Protocol):
    """What is rendered of a study (``perennial.learning.tuning.StudyResult``)."""

    @property
    def best_params(self) -> Mapping[str, float | int | str]: ...
    @property
    def best_value(self) -> float: ...
    @property
    def best_rounds(self) -> int: ...
    @property
    def records(self) -> Sequence[_Trial]: ...


def render_study(name: str, metric: str, study: Study) -> str:
    """Markdown for a Prefect artifact: the best parameters, then a row a trial."""
    lines = [
        f"# {metric} {study.best_value:.5f} after {study.best_rounds} rounds",
        "",
        f"Study `{name}`, {len(study.records)} trials.",
        "",
        *(f"- {key}: {_figure(value)}" for key, value in study.best_params.items()),
        "",
        f"| trial | from | state | {metric} | rounds | parameters |",
        "|--:|---|---|--:|--:|---|",
    ]
    for trial in study.records:
        value = "" if trial.value is None else f"{trial.value:.5f}"
        params = ", ".join(f"{key} {_figure(v)}" for key, v in trial.params.items())
        cells = (trial.number, trial.origin, trial.state, value, trial.rounds, params)
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _figure(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
