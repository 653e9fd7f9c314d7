"""Training written by hand, without Prefect or Perennial's stages: what the flow is compared with.

    python -m benchmarks.bare_script MODEL_FOLDER OUTPUT_FOLDER AS_OF

It does the work of ``flows.continuous_training`` for a first version of a model with two classes
and a split by time, with the same libraries, in one process that keeps everything in memory: reads
the same CSV files and checks types and ranges, writes a Delta table, splits, runs features.py with
Hamilton, encodes, searches with Optuna (SQLite) and logs each trial in W&B, fits the final booster,
measures it with bootstrap intervals, loads it in a fresh process and writes an HTML page.

What would be the same code again is called: Perennial's pure functions that read model.yaml, bin
the matrix, propose, watch and prune a trial, fit, and measure. So both come to the same model, and
the difference in time is what stages, contracts, caching, audit and Prefect cost.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import wandb
import xgboost as xgb
from deltalake import DeltaTable, write_deltalake
from hamilton import registry

registry.disable_autoload()  # Hamilton would load every plotting library that is installed
registry.load_extension("pandas")

from hamilton import driver  # noqa: E402

from perennial.contracts.features import Feature, FeatureSchema  # noqa: E402
from perennial.contracts.verdicts import Curve  # noqa: E402
from perennial.data.feature_code import FITTED_TAG  # noqa: E402
from perennial.learning.evaluation import Measurement, measure  # noqa: E402
from perennial.learning.matrices import MAX_BIN, Fitting, Matrices, quantised  # noqa: E402
from perennial.learning.pruning import EVERY, hopeless  # noqa: E402
from perennial.learning.space import distributions, propose, searched, starting_points  # noqa: E402
from perennial.learning.training import Watch, booster_params, train_booster  # noqa: E402
from perennial.spec import ModelSpec, load_spec  # noqa: E402

_ARROW = {
    "float": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_(),
    "category": pa.string(), "string": pa.string(), "datetime": pa.timestamp("us", tz="UTC"),
}  # fmt: skip
_SINGLE_REQUESTS = 320


def main(model: Path, output: Path, as_of: datetime) -> dict[str, Any]:
    """Train, and return what came of it: the best parameters and the metrics on the test part."""
    output.mkdir(parents=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    spec = load_spec(model / "model.yaml")
    rows = _ingest(spec, model.parents[1], output, as_of)
    parts = _split(spec, rows, as_of)
    features = Features(model / "features.py", spec)
    state = features.fit(rows[parts == 0])
    frame = features.compute(rows, state)
    levels = _levels(frame[parts == 0])
    x = _encode(frame, levels)
    y = _labels(rows[spec.label.column])
    schema = FeatureSchema(
        inputs=(),
        features=tuple(Feature(name=name, levels=levels.get(name)) for name in map(str, frame)),
        classes=("no", "yes"),
    )
    matrices = Matrices(x[parts == 0], y[parts == 0], x[parts == 1], y[parts == 1], schema)
    best = _tune(spec, matrices, output, cores or 1)
    fitted: Fitting = "train+validation" if spec.training.refit else "train"
    rounds = best.user_attrs["rounds"]
    booster = train_booster(matrices, spec, best.params, rounds, cores or 1, fitted)
    booster.save_model(output / "model.ubj")
    (output / "model.json").write_text(json.dumps({"levels": levels, "state": state}))

    test = rows[parts == 2].reset_index(drop=True)
    expected = booster.inplace_predict(x[parts == 2], missing=np.nan)
    found = measure(spec, y[parts == 2], expected, None, test, seed=spec.split.seed)
    np.save(output / "expected.npy", expected)
    test.to_parquet(output / "test.parquet")
    command = [sys.executable, "-m", "benchmarks.bare_script", "check", str(model), str(output)]
    checked = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    (output / "report.html").write_text(_page(spec, found, booster, checked), encoding="utf-8")
    metrics = {estimate.metric: estimate.value for estimate in found.estimates}
    return {"params": best.params, "rounds": rounds, "metrics": metrics, **checked}


def _ingest(spec: ModelSpec, root: Path, output: Path, as_of: datetime) -> pd.DataFrame:
    """Read, check and store the rows; give them back in the order of time and entity."""
    types = {name: _ARROW[column.type] for name, column in spec.columns.items()}
    assert spec.source.event_time is not None
    types[spec.source.event_time] = _ARROW["datetime"]
    wanted = list(dict.fromkeys((*types, spec.label.column)))
    options = pacsv.ConvertOptions(
        column_types=types, include_columns=wanted, strings_can_be_null=True
    )
    paths = sorted(root.glob(spec.source.uri))
    tables = [pacsv.read_csv(path, convert_options=options) for path in paths]
    rows = pa.concat_tables(tables).to_pandas()
    good = pd.Series(True, index=rows.index)
    for name, column in spec.columns.items():
        values, missing = rows[name], rows[name].isna()
        if not column.nullable:
            good &= ~missing
        if column.allowed is not None:
            good &= missing | values.isin(column.allowed)
        if column.min is not None:
            good &= missing | (values >= column.min)
        if column.max is not None:
            good &= missing | (values <= column.max)
    rows[~good].to_parquet(output / "bad.parquet")
    kept = rows[good].drop_duplicates(list(spec.identity), keep="last")
    table = str(output / "table")
    write_deltalake(table, pa.Table.from_pandas(kept, preserve_index=False))
    stored: pd.DataFrame = DeltaTable(table).to_pyarrow_table().to_pandas()
    for name, column in spec.columns.items():
        if column.type == "boolean" and name != spec.label.column:
            stored[name] = stored[name].astype("float64")
    stored = stored[stored[spec.source.event_time] <= as_of]
    stored = stored.sort_values(list(spec.identity))
    return stored.reset_index(drop=True)


def _split(spec: ModelSpec, rows: pd.DataFrame, as_of: datetime) -> np.ndarray:
    """By time, counted back from the last row whose label is known: 0 train, 1 validation, 2 test,
    -1 unused."""
    delay = pd.Timedelta(spec.label.delay)
    gap = max(pd.Timedelta(spec.split.gap), delay)
    times = rows[spec.source.event_time]
    known = rows[spec.label.column].notna() & (times <= as_of - delay)
    end = times[known].max() + pd.Timedelta(1, "us")
    test = end - pd.Timedelta(spec.split.test)
    validation = test - gap - pd.Timedelta(spec.split.validation)
    parts = np.full(len(rows), -1, dtype=np.int8)
    parts[known & (times < validation - gap)] = 0
    parts[known & (times >= validation) & (times < test - gap)] = 1
    parts[known & (times >= test)] = 2
    return parts


class Features:
    """features.py run by Hamilton."""

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        found = importlib.util.spec_from_file_location("features", path)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules["features"] = module
        found.loader.exec_module(module)
        self._driver = driver.Builder().with_modules(module).build()
        variables = self._driver.list_available_variables()
        self._fitted = [variable.name for variable in variables if FITTED_TAG in variable.tags]
        self._inputs = [variable.name for variable in variables if variable.is_external_input]
        self._made = [
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value)
            and value.__module__ == "features"
            and not name.startswith("_")
            and name not in self._fitted
        ]
        self._raw = list(spec.feature_columns)

    def fit(self, rows: pd.DataFrame) -> dict[str, Any]:
        """The fitted functions' values on training rows."""
        values: dict[str, Any] = self._driver.execute(self._fitted, inputs=self._columns(rows))
        return values

    def compute(self, rows: pd.DataFrame, state: Mapping[str, Any]) -> pd.DataFrame:
        """All features of rows, in order."""
        columns = self._columns(rows)
        values = self._driver.execute(self._made, inputs=columns, overrides=dict(state))
        return pd.DataFrame({**{name: rows[name] for name in self._raw}, **values}, copy=False)

    def _columns(self, rows: pd.DataFrame) -> dict[str, pd.Series]:
        return {name: rows[name] for name in self._inputs if name in rows}


def _levels(frame: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    texts = [name for name in map(str, frame) if isinstance(frame[name].dtype, pd.StringDtype)]
    return {name: tuple(sorted(frame[name].dropna().unique())) for name in texts}


def _encode(frame: pd.DataFrame, levels: Mapping[str, Sequence[str]]) -> np.ndarray:
    matrix = np.empty(frame.shape, dtype=np.float32)
    for i, name in enumerate(map(str, frame)):
        if name in levels:
            codes = frame[name].map({level: i for i, level in enumerate(levels[name])})
            matrix[:, i] = codes.astype("float64")
        else:
            matrix[:, i] = frame[name]
    return matrix


def _labels(values: pd.Series) -> np.ndarray:
    """1 for the greater of two values; NaN where it is missing."""
    labels: np.ndarray = (values == values.dropna().max()).to_numpy(np.float32)
    labels[values.isna()] = np.nan
    return labels


@dataclass
class _Trial:
    params: dict[str, float | int]
    pruned: bool
    value: float
    rounds: int
    trained: int


def _tune(
    spec: ModelSpec, matrices: Matrices, output: Path, cores: int
) -> optuna.trial.FrozenTrial:
    """Search in rounds of trials side by side, each trial a W&B run. Returns the best trial."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="bare", storage=f"sqlite:///{output}/studies.db")
    space, batch, total = searched(spec), spec.tuning.batch, spec.tuning.trials
    starts = starting_points(space, [], spec.tuning.warm_start)
    parallel = min(cores, batch)
    data = quantised(matrices, MAX_BIN, cores)

    def run(number: int, params: dict[str, float | int], finished: list[float]) -> _Trial:
        tracked = _track(output, f"trial {number}", params)

        def look(watch: Watch) -> str:
            rounds = len(watch.losses)
            if rounds == 1 or rounds % 5 == 0:
                point = {"validation": watch.losses[-1], "best": watch.best_value}
                tracked.log(point, step=rounds)
            lost = rounds % EVERY == 0 and hopeless(
                watch.best_losses, finished, spec.training.rounds
            )
            return "hopeless" if lost else ""

        watch = Watch(spec, look)
        settings = booster_params(matrices.schema, spec, params, max(1, cores // parallel))
        booster = xgb.train(
            settings,
            data[0],
            spec.training.rounds,
            evals=[(data[1], "validation")],
            callbacks=[watch],
            verbose_eval=False,
        )
        gains = booster.get_score(importance_type="total_gain")
        pruned = watch.stopped == "hopeless"
        tracked.summary.update({"value": watch.best_value, "pruned": pruned, "gains": gains})
        tracked.finish()
        return _Trial(params, pruned, watch.best_value, watch.best_rounds, len(watch.losses))

    overview = _track(output, "study", {"trials": total})
    with ThreadPoolExecutor(parallel) as pool:
        for first in range(0, total, batch):
            history = study.get_trials(deepcopy=False)
            complete = optuna.trial.TrialState.COMPLETE
            finished = [float(t.value or 0.0) for t in history if t.state == complete]
            found = propose(
                space, history, greater_is_better=False, seed=(spec.training.seed, first)
            )
            numbers = range(first, min(first + batch, total))
            asked = [starts[n] if n < len(starts) else next(found) for n in numbers]
            for trial in pool.map(run, numbers, asked, [finished] * len(asked)):
                study.add_trial(
                    optuna.trial.create_trial(
                        state=optuna.trial.TrialState.PRUNED if trial.pruned else complete,
                        value=trial.value,
                        params=trial.params,
                        distributions=distributions(space),
                        intermediate_values={trial.trained: trial.value},
                        user_attrs={"rounds": trial.rounds},
                    )
                )
                overview.log({"value": trial.value, "best": study.best_value})
    overview.summary.update(study.best_params)
    overview.finish()
    wandb.teardown()
    return study.best_trial


def _track(output: Path, name: str, config: Mapping[str, Any]) -> Any:
    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, disable_code=True, x_disable_meta=True,
        x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
    )  # fmt: skip
    return wandb.init(
        project="bare", group="bare", name=name, dir=str(output), config=dict(config),
        mode="offline", reinit="create_new", settings=settings,
    )  # fmt: skip


def check(model: Path, output: Path) -> dict[str, Any]:
    """In a fresh process: the same predictions from the files alone, and how long one row takes."""
    spec = load_spec(model / "model.yaml")
    features = Features(model / "features.py", spec)
    kept = json.loads((output / "model.json").read_text())
    booster = xgb.Booster()
    booster.load_model(output / "model.ubj")

    def predict(rows: pd.DataFrame) -> np.ndarray:
        x = _encode(features.compute(rows, kept["state"]), kept["levels"])
        values: np.ndarray = booster.inplace_predict(x, missing=np.nan)
        return values

    rows = pd.read_parquet(output / "test.parquet")
    expected = np.load(output / "expected.npy")
    identical = predict(rows).tobytes() == expected.tobytes()
    booster.set_param({"nthread": 1})  # one row doesn't pay for waking other threads
    times = []
    for i in np.linspace(0, len(rows) - 1, _SINGLE_REQUESTS).astype(int):
        started = time.perf_counter()
        alone = predict(rows.iloc[i : i + 1].reset_index(drop=True))
        times.append(time.perf_counter() - started)
        identical &= bool(alone[0] == expected[i])
    return {"identical": identical, "p99_ms": 1000 * float(np.percentile(times, 99))}


def _page(
    spec: ModelSpec, found: Measurement, booster: xgb.Booster, checked: Mapping[str, Any]
) -> str:
    estimates = pd.DataFrame([estimate.model_dump() for estimate in found.estimates])
    slices = pd.DataFrame(
        [{"column": s.column, "level": s.level, **s.estimate.model_dump()} for s in found.slices]
    )
    bins = pd.DataFrame([bin_.model_dump() for bin_ in found.calibration])
    gains = pd.Series(booster.get_score(importance_type="total_gain")).sort_values().to_frame()
    tables = (estimates, slices, bins, gains, pd.Series(dict(checked)).to_frame())
    drawn = "".join(_drawing(curve) for curve in found.curves)
    return f"<h1>{spec.name}</h1>{drawn}{''.join(table.to_html() for table in tables)}"


def _drawing(curve: Curve) -> str:
    points = zip(curve.x, curve.y, strict=True)
    line = " ".join(f"{300 * a:.1f},{300 * (1 - b):.1f}" for a, b in points)
    return (
        f'<h2>{curve.name}</h2><svg width="300" height="300">'
        f'<polyline fill="none" stroke="black" points="{line}"/></svg>'
    )


if __name__ == "__main__":
    if sys.argv[1] == "check":
        print(json.dumps(check(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        came = main(Path(sys.argv[1]), Path(sys.argv[2]), datetime.fromisoformat(sys.argv[3]))
        print(json.dumps(came))
