"""The models that come with the project: their definitions, their data, and that they learn."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score

from perennial.contracts.errors import InputError
from perennial.data.encoding import SchemaBuilder, encode, encode_label, label_classes
from perennial.data.features import FeatureProgram
from perennial.data.frames import canonical_frame, table_columns
from perennial.data.leaks import check_row_local
from perennial.data.splits import assign
from perennial.learning.matrices import feature_types
from perennial.spec import ModelSpec, load_spec

MODELS = Path(__file__).parents[3] / "models"
FLIGHTS, PATIENTS, DIGITS = "flight_delay", "diabetes_progression", "digits"


def write(model: str, folder: Path) -> list[Path]:
    paths: list[Path] = runpy.run_path(str(MODELS / model / "data.py"))["write"](folder)
    return paths


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """The files of a model's data, written once."""
    return cache(lambda model: write(model, tmp_path_factory.mktemp(model)))


def model(name: str) -> tuple[ModelSpec, FeatureProgram]:
    spec = load_spec(MODELS / name / "model.yaml")
    code = MODELS / name / "features.py"
    return spec, FeatureProgram.load(code.read_text() if code.exists() else "", spec)


def table(spec: ModelSpec, paths: list[Path]) -> pd.DataFrame:
    raw = pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)
    return canonical_frame(raw, table_columns(spec))


def trained(
    spec: ModelSpec,
    program: FeatureProgram,
    training: pd.DataFrame,
    test: pd.DataFrame,
    params: dict[str, Any],
    rounds: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of the test rows."""
    state = program.fit(training)
    check_row_local(program, training[:3000], state)
    features = program.compute(training, state)
    builder = SchemaBuilder(program, spec)
    builder.add(features)
    label = spec.label.column
    classes = label_classes(training[label], spec)
    schema = builder.schema(classes)
    matrix = xgb.QuantileDMatrix(
        encode(features, schema)[0],
        encode_label(training[label], spec, classes),
        feature_types=feature_types(schema),
        enable_categorical=True,
    )
    booster = xgb.train({"seed": 7, **params}, matrix, rounds)
    predicted = booster.inplace_predict(encode(program.compute(test, state), schema)[0])
    return predicted, encode_label(test[label], spec, classes)


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/model.yaml")), ids=lambda p: p.parent.name)
def test_every_model_loads_and_helps_the_editor(path: Path) -> None:
    first = path.read_text(encoding="utf-8").split("\n")[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert (path.parent / first.removeprefix(prefix)).resolve().name == "model.schema.json"
    spec, program = model(path.parent.name)
    assert spec.name.replace("-", "_") == path.parent.name
    assert spec.label.column not in program.inputs
    assert len(program.features) > 5


@pytest.mark.parametrize("name", [PATIENTS, DIGITS])
def test_written_twice_the_data_is_the_same_to_the_byte(name: str, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write(name, tmp_path)]
    assert [path.read_bytes() for path in write(name, tmp_path)] == first
    assert sorted(tmp_path.iterdir()) == write(name, tmp_path)


def test_flights_are_a_file_a_month_and_written_once(data: Callable[[str], list[Path]]) -> None:
    paths = data(FLIGHTS)
    assert [path.name for path in paths] == [f"flights-2013-{m:02}.csv" for m in range(1, 13)]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    assert write(FLIGHTS, paths[0].parent) == paths
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == before
    assert sorted(paths[0].parent.iterdir()) == paths


def test_a_flight_is_known_by_its_identity_and_tells_nothing_of_what_happened_after(
    data: Callable[[str], list[Path]],
) -> None:
    spec, program = model(FLIGHTS)
    frame = table(spec, data(FLIGHTS))
    assert len(frame) == 336_776
    assert not frame.duplicated(list(spec.identity)).any()
    after = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"}
    assert not after & set(pd.read_csv(data(FLIGHTS)[0], nrows=0).columns)
    assert "delayed" not in (*program.inputs, *program.fit_inputs)
    missing = frame["delayed"].isna()
    assert missing.sum() == 9_430  # cancelled or diverted
    assert frame["delayed"].mean() == pytest.approx(0.2372, abs=1e-4)


def test_no_real_flight_breaks_the_rules_of_its_columns(data: Callable[[str], list[Path]]) -> None:
    spec, _ = model(FLIGHTS)
    frame = table(spec, data(FLIGHTS))
    for name, column in spec.columns.items():
        values = frame[name].dropna()
        assert column.nullable or len(values) == len(frame), name
        assert column.min is None or values.min() >= column.min, name
        assert column.max is None or values.max() <= column.max, name
        assert column.allowed is None or set(values) == set(column.allowed), name


def test_winter_flights_predict_march(data: Callable[[str], list[Path]]) -> None:
    spec, program = model(FLIGHTS)
    frame = table(spec, data(FLIGHTS)[:3]).dropna(subset="delayed")
    march = (frame["time_hour"] >= pd.Timestamp("2013-03-01T05:00Z")).to_numpy()
    predicted, late = trained(
        spec,
        program,
        frame[~march],
        frame[march],
        {"objective": "binary:logistic", "learning_rate": 0.2, "max_depth": 5},
        40,
    )
    assert roc_auc_score(late, predicted) > 0.67


def test_a_flights_time_split_honours_the_delay_of_its_label(
    data: Callable[[str], list[Path]],
) -> None:
    spec, _ = model(FLIGHTS)
    frame = table(spec, data(FLIGHTS)[:3])
    parts = assign(frame, spec, pd.Timestamp("2013-03-15", tz="UTC").to_pydatetime())
    times = frame["time_hour"]
    assert times[parts == 2].max() == pd.Timestamp("2013-03-13T00:00Z")
    assert times[parts == 0].max() + spec.label.delay < times[parts == 1].min()
    assert times[parts == 1].max() + spec.label.delay < times[parts == 2].min()


@pytest.mark.parametrize(
    ("name", "params", "rounds", "score", "least"),
    [
        (PATIENTS, {"learning_rate": 0.05, "max_depth": 2}, 80, r2_score, 0.3),
        (
            DIGITS,
            {"objective": "multi:softprob", "num_class": 10, "learning_rate": 0.4, "max_depth": 3},
            30,
            lambda y, p: accuracy_score(y, p.argmax(axis=1)),
            0.93,
        ),
    ],
)
def test_the_small_models_learn(
    name: str,
    params: dict[str, Any],
    rounds: int,
    score: Callable[[np.ndarray, np.ndarray], float],
    least: float,
    data: Callable[[str], list[Path]],
) -> None:
    spec, program = model(name)
    frame = table(spec, data(name))
    parts = assign(frame, spec, None)
    predicted, truth = trained(spec, program, frame[parts == 0], frame[parts == 2], params, rounds)
    assert score(truth, predicted) > least


def test_a_flight_without_its_columns_is_refused(data: Callable[[str], list[Path]]) -> None:
    spec, program = model(FLIGHTS)
    frame = table(spec, data(FLIGHTS)[:1])[:10]
    with pytest.raises(InputError, match=r"^features: no column 'wind_dir'"):
        program.compute(frame.drop(columns="wind_dir"), program.fit(frame))
