"""What a backtest walks through, settled and checked before anything is trained."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from perennial.contracts.backtest import BacktestPlan, Recipe
from perennial.contracts.errors import InputError, Problem
from perennial.contracts.metrics import metrics_for
from perennial.contracts.moments import as_utc
from perennial.spec import ModelSpec
from perennial.spec.values import PositiveDuration, format_duration, nearest
from perennial.stores.project import Project

MOST_ROWS = 1_000_000
"""Of a longer history a random part of this many rows is walked through, in memory."""
FEWEST_STEPS, MOST_STEPS = 2, 1_000

_DAY = timedelta(days=1)
_DURATION: TypeAdapter[timedelta] = TypeAdapter(PositiveDuration)


def plan_backtest(
    project: Project,
    name: str,
    start: datetime | None,
    end: datetime | None,
    every: str,
    metric: str | None,
) -> BacktestPlan:
    """The plan of a backtest of a model (naive times: UTC).

    By default it starts when there is as much to train on as to validate and test with, ends with
    the last event, and measures what trials are ranked by. Candidates are trained with what the
    champion was trained with; without one, with XGBoost's defaults.

    Raises InputError: no such model, an ensemble, no event time, nothing ingested, an unknown
    metric, a wrong ``every``, too little history, too many steps.
    """
    _, spec = project.load_model(name)
    problems = [*_wrong_metric(spec, metric)]
    try:
        step = _DURATION.validate_python(every)
    except ValidationError as error:
        what = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        problems.append(Problem("--every", what))
    if spec.ensemble is not None:
        what = f"{name} is an ensemble, and versions of its members at past moments are not known"
        problems.append(Problem("model.yaml, ensemble", what, "backtest its members"))
    if spec.source.event_time is None:
        what = f"{name} has no event time, so no past to walk through"
        problems.append(Problem("model.yaml, source", what, "name its column as source.event_time"))
    if problems:
        raise InputError(problems)
    from perennial.stores import tables

    place = project.uri("tables", name)
    if not tables.exists(place):
        fix = f"perennial train {name} ingests its source"
        raise InputError(Problem(name, "nothing was ingested yet, so there is no past", fix))
    dataset = tables.dataset(spec, place, as_utc(end) if end else None)
    assert dataset.start is not None
    assert dataset.end is not None
    last = min(as_utc(end), dataset.end) if end else dataset.end
    begin = as_utc(start) if start else _first_moment(spec, dataset.start, step)
    if start and begin >= last:
        what = f"{begin:%Y-%m-%d %H:%M} is not before the end, {last:%Y-%m-%d %H:%M}"
        raise InputError(Problem("--start", what, "give an earlier start"))
    steps = max(-((begin - last) // step), 0)
    if steps < FEWEST_STEPS:
        raise InputError(_too_little(name, dataset.start, last, begin, step, steps))
    if steps > MOST_STEPS:
        what = f"{steps:,} steps of {format_duration(step)}; at most {MOST_STEPS:,} are walked"
        raise InputError(Problem("--every", what, "take longer steps, or a later --start"))
    return BacktestPlan(
        dataset=dataset,
        moments=tuple(begin + number * step for number in range(steps)),
        end=last,
        every=format_duration(step),
        metric=metric or spec.metric,
        rows=min(dataset.rows, MOST_ROWS),
        recipe=_recipe(project, name),
    )


def _wrong_metric(spec: ModelSpec, metric: str | None) -> list[Problem]:
    known = metrics_for(spec.objective)
    if metric is None or metric in known:
        return []
    what = f"no metric {metric!r} of a {spec.objective} model{nearest(metric, known)}"
    return [Problem("--metric", what, f"one of {', '.join(known)}")]


def _first_moment(spec: ModelSpec, first: datetime, step: timedelta) -> datetime:
    """When the training part holds as long a time as the others; at midnight for whole days."""
    validation, test = spec.split.validation, spec.split.test
    if isinstance(validation, timedelta) and isinstance(test, timedelta):
        gap = max(spec.split.gap, spec.label.delay)
        begin = first + 2 * (validation + test + gap) + spec.label.delay
    else:
        begin = first + 4 * spec.drift.window + spec.label.delay
    if step % _DAY:
        return begin
    midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if midnight == begin else midnight + _DAY


def _too_little(
    name: str, first: datetime, last: datetime, begin: datetime, step: timedelta, steps: int
) -> Problem:
    history = f"events from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"
    what = (
        f"{history} leave {steps} {'step' if steps == 1 else 'steps'} of {format_duration(step)} "
        f"after a first version of {begin:%Y-%m-%d %H:%M}; at least {FEWEST_STEPS} are needed"
    )
    return Problem(
        name, what, "wait for more data, or give an earlier --start or a shorter --every"
    )


def _recipe(project: Project, name: str) -> Recipe:
    from perennial.stores.bundles import open_stored
    from perennial.stores.registry import Registry

    champion = Registry(project.registry_url).champion(name)
    if champion is None:
        return Recipe(params={}, rounds=None, origin="XGBoost's defaults, as there is no champion")
    bundle = open_stored(champion, project)
    study = bundle.lineage["study"]
    return Recipe(
        params=bundle.spec.training.of_booster(study["best_params"]),
        rounds=study["best_rounds"],
        origin=f"what version {champion.version}, the champion, was trained with",
    )
