"""Tuning against the ordinary loop: how long until a study is as good as the loop's best.

    python -m benchmarks.tuning [--rows N] [--trials N] [--repeats N] [--quick]

The ordinary loop is ``study.optimize`` around ``xgb.train``: a matrix a trial, one trial at a time
on all threads, no pruning, from nothing; the study is kept in memory and tracked nowhere. Ours is
``perennial.learning.tuning.tune`` as a flow runs it, with its database and its tracking in W&B
(offline). In between, what makes the difference is added one by one. All search the same space with
the same sampler, early stopping, limit of rounds and number of trials, on the flights of 2013 until
the end of October, the last fourteen days of them for validation. The former version whose best
parameters start ours is a study of its own on the flights until the end of September; a monthly
retraining finds it in the registry, so its time is not counted.

Variants take turns; each repeat has another seed, the same for all of them. Reported are medians.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import optuna
import pandas as pd
import xgboost as xgb

from benchmarks.harness import console, machine, show, write_flights
from perennial.contracts.features import Feature, FeatureSchema
from perennial.learning.matrices import MAX_BIN, Matrices, feature_names, feature_types, quantised
from perennial.learning.space import Params, distributions, searched
from perennial.learning.tracking import StudyTracker
from perennial.learning.training import Watch, booster_params
from perennial.learning.tuning import tune
from perennial.spec import ModelSpec

FORMER, NOW = pd.Timestamp("2013-10-01", tz="UTC"), pd.Timestamp("2013-11-01", tz="UTC")
VALIDATION = pd.Timedelta(days=14)
CATEGORIES = ("carrier", "origin", "dest")
NUMBERS = (
    "distance", "hour", "minute", "sched_arr_time", "weekday", "temp", "dewp", "humid", "wind_dir",
    "wind_speed", "wind_gust", "precip", "pressure", "visib",
)  # fmt: skip

Curve = list[tuple[float, float]]
"""A study as it went: seconds since its start and the best value, after each trial."""


@dataclass(frozen=True)
class Variant:
    """A way to search, and what it adds to the one above it."""

    name: str
    run: Callable[[Matrices, ModelSpec, Sequence[Params]], Curve]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table, return its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning")
    parser.add_argument(
        "--rows", type=int, default=0, help="of the flights, evenly; all by default"
    )
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small and once: that it works")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.rows, arguments.trials, arguments.repeats = 20_000, 4, 1

    flights = _flights(arguments.rows)
    now, before = _matrices(flights, NOW), _matrices(flights, FORMER)
    console.print(
        f"{len(now.x_train)} rows to train on, {len(now.x_validation)} to validate, "
        f"{now.x_train.shape[1]} features; {arguments.trials} trials, {arguments.repeats} repeats"
    )
    curves: dict[str, list[Curve]] = {variant.name: [] for variant in VARIANTS}
    for repeat in range(arguments.repeats):
        _, former = _ours(before, _spec(arguments.trials, 100 + repeat), [])
        turn = repeat % len(VARIANTS)
        for variant in (*VARIANTS[turn:], *VARIANTS[:turn]):
            curve = variant.run(now, _spec(arguments.trials, repeat), [former])
            curves[variant.name].append(curve)
            console.print(
                f"  repeat {repeat + 1}, {variant.name}: {curve[-1][0]:.1f} s, "
                f"best {curve[-1][1]:.5f}"
            )
    return _report(curves)


def _report(curves: Mapping[str, Sequence[Curve]]) -> dict[str, Any]:
    """The table: time to the ordinary loop's best, and to within a thousandth of it (a tenth of the
    sampling error of these validation rows). A study that did not get there counts with all its
    time."""
    ordinary = curves[VARIANTS[0].name]
    targets = [curve[-1][1] for curve in ordinary]
    figures: dict[str, Any] = {}
    for name, runs in curves.items():
        figures[name] = {
            "trial": median(curve[-1][0] / len(curve) for curve in runs),
            "whole": median(curve[-1][0] for curve in runs),
            "best": median(curve[-1][1] for curve in runs),
        }
        for key, slack in (("exact", 1.0), ("near", 1.001)):
            reached = [
                next((at for at, best in curve if best <= target * slack), None)
                for curve, target in zip(runs, targets, strict=True)
            ]
            times = [
                curve[-1][0] if at is None else at for curve, at in zip(runs, reached, strict=True)
            ]
            figures[name] |= {
                key: median(times),
                f"{key}_reached": sum(at is not None for at in reached),
            }
    base = figures[VARIANTS[0].name]
    for figure in figures.values():
        for key in ("exact", "near"):
            figure[f"{key}_ratio"] = figure[key] / base[key]
    show(
        "Time to the ordinary loop's best logloss, and to within 0.1 % of it",
        (
            "",
            "s a trial",
            "ratio",
            "all, s",
            "best",
            "reached",
            "s",
            "ratio",
            "0.1 %",
            "s",
            "ratio",
        ),
        [
            (
                name,
                f"{f['trial']:.2f}",
                f"{f['trial'] / base['trial']:.2f}",
                f"{f['whole']:.1f}",
                f"{f['best']:.5f}",
                f"{f['exact_reached']} of {len(ordinary)}",
                f"{f['exact']:.1f}",
                f"{f['exact_ratio']:.2f}",
                f"{f['near_reached']} of {len(ordinary)}",
                f"{f['near']:.1f}",
                f"{f['near_ratio']:.2f}",
            )
            for name, f in figures.items()
        ],
    )
    return figures


def _ordinary(matrices: Matrices, spec: ModelSpec, *, shared: bool) -> Curve:
    """A study of its own, one trial at a time on all threads."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=spec.training.seed))
    domains = distributions(searched(spec))
    times, values = [], []
    started = time.perf_counter()
    parts = quantised(matrices, MAX_BIN, cores()) if shared else None
    for _ in range(spec.tuning.trials):
        trial = study.ask(domains)
        train, validation = parts or _plain(matrices)
        watch = Watch(spec)
        xgb.train(
            booster_params(matrices.schema, spec, trial.params, cores()),
            train,
            spec.training.rounds,
            evals=[(validation, "validation")],
            callbacks=[watch],
            verbose_eval=False,
        )
        study.tell(trial, watch.best_value)
        times.append(time.perf_counter() - started)
        values.append(watch.best_value)
    return _curve(times, values)


def _plain(matrices: Matrices) -> tuple[xgb.DMatrix, xgb.DMatrix]:
    """Both parts as a script makes them anew in every trial."""
    train, validation = (
        xgb.DMatrix(
            x,
            label=y,
            feature_types=feature_types(matrices.schema),
            feature_names=feature_names(matrices.schema),
            enable_categorical=True,
            nthread=cores(),
        )
        for x, y in (
            (matrices.x_train, matrices.y_train),
            (matrices.x_validation, matrices.y_validation),
        )
    )
    return train, validation


def _ours(
    matrices: Matrices,
    spec: ModelSpec,
    former: Sequence[Params],
    *,
    batch: int = 4,
    prune: bool = True,
) -> tuple[Curve, Params]:
    """A study as a flow runs it, and its best parameters."""
    tuning = spec.tuning.model_copy(update={"batch": batch, "prune": prune})
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = tune(
            spec.model_copy(update={"tuning": tuning}),
            matrices,
            study_name="study",
            storage_url=f"sqlite:///{folder}/studies.db",
            warm_start=former,
            tracker=StudyTracker(spec.name, Path(folder)),
            workers=cores(),
            progress=lambda *_: times.append(time.perf_counter() - started),
        )
    values = [r.value if r.state == "complete" else None for r in result.records]
    return _curve(times, values), result.best_params


def _curve(times: Sequence[float], values: Sequence[float | None]) -> Curve:
    found = [math.inf if value is None else value for value in values]
    return list(zip(times, accumulate(found, min), strict=True))


VARIANTS = (
    Variant("ordinary loop", lambda m, s, _: _ordinary(m, s, shared=False)),
    Variant("+ one shared matrix", lambda m, s, _: _ordinary(m, s, shared=True)),
    Variant("+ trials side by side", lambda m, s, _: _ours(m, s, [], prune=False)[0]),
    Variant("+ pruning", lambda m, s, _: _ours(m, s, [])[0]),
    Variant("+ warm start (ours)", lambda m, s, former: _ours(m, s, former)[0]),
)


def _spec(trials: int, seed: int) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "flights",
            "objective": "binary",
            "source": {"kind": "csv", "uri": "flights.csv", "event_time": "time_hour"},
            "label": {"column": "delayed"},
            "columns": {"distance": {"type": "float"}},
            "training": {"seed": seed},
            "tuning": {"trials": trials, "timeout": "1d"},
        }
    )


def _flights(rows: int) -> pd.DataFrame:
    """The flights that arrived, in order of time, with a label and what is known beforehand."""
    with tempfile.TemporaryDirectory() as folder:
        months = [pd.read_csv(path) for path in write_flights(Path(folder))]
    flights = pd.concat(months, ignore_index=True)
    flights = flights[flights["delayed"].notna()]
    flights["time"] = pd.to_datetime(flights["time_hour"], utc=True)
    flights = flights[flights["time"] < NOW].reset_index(drop=True)
    flights["hour"] = flights["sched_dep_time"] // 100
    flights["minute"] = flights["sched_dep_time"] % 100
    flights["weekday"] = flights["time"].dt.dayofweek
    for name in CATEGORIES:
        flights[name] = flights[name].astype("category")
    if not 0 < rows < len(flights):
        return flights
    return flights.iloc[np.linspace(0, len(flights) - 1, rows).astype(int)]


def _matrices(flights: pd.DataFrame, now: pd.Timestamp) -> Matrices:
    """All flights before ``now``, the last fourteen days of them for validation."""
    known = flights[flights["time"] < now]
    x = np.column_stack(
        [known[name].cat.codes for name in CATEGORIES] + [known[name] for name in NUMBERS]
    ).astype(np.float32)
    y = (known["delayed"].astype(str).str.lower() == "true").to_numpy(np.float32)
    late = (known["time"] >= now - VALIDATION).to_numpy()
    categories = (
        Feature(name=name, levels=tuple(flights[name].cat.categories)) for name in CATEGORIES
    )
    schema = FeatureSchema(
        inputs=(),
        features=(*categories, *(Feature(name=name) for name in NUMBERS)),
        classes=("false", "true"),
    )
    return Matrices(x[~late], y[~late], x[late], y[late], schema)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    console.print(machine())
    main()
