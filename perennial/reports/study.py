"""A study as Markdown: what was found, and the best of its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from perennial.contracts.metrics import METRICS
from perennial.reports.figures import number, percent
from perennial.reports.markdown import code, plain, row

_MOST_TRIALS = 25


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
    def study(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def best_params(self) -> Mapping[str, float | int | str]: ...
    @property
    def best_value(self) -> float: ...
    @property
    def best_rounds(self) -> int: ...
    @property
    def records(self) -> Sequence[_Trial]: ...
    @property
    def importances(self) -> Mapping[str, float]: ...
    @property
    def places(self) -> Mapping[str, str]: ...


def render_study(model: str, study: Study) -> str:
    """Markdown for a Prefect artifact: the best parameters, then the trials, best first."""
    states = [trial.state for trial in study.records]
    counted = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(sorted(states)))
    value = f"{study.best_value:.5f}"
    text = [
        f"# {plain(model)}: {plain(study.metric)} {value} after {study.best_rounds:,} rounds",
        "",
        f"{len(states)} trials ({counted}) on the validation part. Study {code(study.study)}"
        f"{_tracked(study.places.get('study', ''))}.",
        "",
        "| parameter | best | importance |",
        "|---|--:|--:|",
    ]
    for name, best in study.best_params.items():
        share = study.importances.get(name)
        text.append(row(plain(name), _figure(best), "" if share is None else percent(share)))
    text += ["", f"| trial | from | state | {plain(study.metric)} | rounds | parameters |"]
    text.append("|--:|---|---|--:|--:|---|")
    sign = -1 if METRICS[study.metric].greater_is_better else 1
    ranked = sorted(
        study.records,
        key=lambda t: (t.state != "complete", t.value is None, sign * (t.value or 0.0), t.number),
    )
    for trial in ranked[:_MOST_TRIALS]:
        reached = "" if trial.value is None else f"{trial.value:.5f}"
        params = ", ".join(f"{plain(key)} {_figure(v, 3)}" for key, v in trial.params.items())
        text.append(
            row(
                str(trial.number), plain(trial.origin), plain(trial.state),
                reached, f"{trial.rounds:,}", params,
            )
        )  # fmt: skip
    hidden = len(ranked) - _MOST_TRIALS
    if hidden > 0:
        text += ["", f"… and {hidden:,} more, in the study's database."]
    return "\n".join(text) + "\n"


def render_weights(
    model: str, weights: Mapping[str, float | int | str], metric: str, value: float, *, fitted: bool
) -> str:
    """Markdown for a Prefect artifact: what each member counts for in a weighted mean."""
    origin = "Fitted to the validation part." if fitted else "As model.yaml gives them."
    text = [
        f"# {plain(model)}: {plain(metric)} {value:.5f} of the weighted mean",
        "",
        f"{origin} The figure is of the validation part.",
        "",
        "| member | weight |",
        "|---|--:|",
        *(row(plain(name), _figure(weight)) for name, weight in weights.items()),
    ]
    return "\n".join(text) + "\n"


def _tracked(place: str) -> str:
    """Where W&B shows it: an address, or a folder while it is offline; "" when not known."""
    if not place:
        return ""
    if place.startswith(("https://", "http://")):
        return f", [tracked in W&B](<{place.replace('>', '%3E')}>)"
    return f", tracked by W&B (offline) in {code(place)}"


def _figure(value: float | int | str, digits: int = 4) -> str:
    return plain(value) if isinstance(value, str) else number(value, digits)
