"""A small model in service, for tests of the drift watch: a version with its evaluation, a log of
its predictions, labels that come later."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost as xgb

from perennial.bundle.outputs import output_columns
from perennial.bundle.predictor import Predictor
from perennial.bundle.read import Bundle, open_bundle
from perennial.bundle.write import BundleContent, write_bundle
from perennial.contracts.verdicts import EvaluationReport, Judgement, Outcome, ServingCheck
from perennial.data.encoding import SchemaBuilder, encode
from perennial.data.features import FeatureProgram
from perennial.learning.evaluation import measure
from perennial.learning.holdout import Holdout
from perennial.learning.matrices import feature_types
from perennial.spec import ModelSpec, parse_spec
from perennial.stores.predictions.columns import TIMESTAMP
from perennial.stores.predictions.tables import commit_rows
from perennial.stores.project import Project
from perennial.stores.promises import HOLDOUT
from perennial.stores.registry import Registry

MODEL = "parcels"
TRAINED = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2026, 5, 15, tzinfo=UTC)
DAY = timedelta(days=1)
SPEC = """
name: parcels
objective: {objective}
source: {{kind: csv, uri: parcels.csv, event_time: sent, entity: [customer]}}
label: {{column: outcome, delay: {delay}}}
columns:
  sent: {{type: datetime}}
  customer: {{type: string}}
  distance: {{type: float, min: 0, max: 5000}}
  rain: {{type: float}}
  items: {{type: integer, nullable: false}}
  express: {{type: boolean}}
  depot: {{type: category}}
drift: {{window: 7d}}
retrain: {{on: [drift, performance]}}
"""
CLASSES = {"binary": ("late", "on time"), "multiclass": ("a", "b", "c"), "regression": None}
_BOOSTERS = {
    "binary": {"objective": "binary:logistic"},
    "multiclass": {"objective": "multi:softprob", "num_class": 3},
    "regression": {"objective": "reg:squarederror"},
}
_commits = count(1)

Frame = pd.DataFrame
Change = Callable[[Frame], Frame]


def parcels(start: datetime, days: float, rows: int, seed: int) -> Frame:
    """Raw rows, sorted by time."""
    random = np.random.default_rng(seed)
    seconds = np.sort(random.integers(0, int(days * 86_400), rows))
    return pd.DataFrame(
        {
            "sent": pd.Timestamp(start).as_unit("us") + pd.to_timedelta(seconds, unit="s"),
            "customer": pd.Series([f"c-{seed}-{i}" for i in range(rows)], dtype="str"),
            "distance": random.gamma(4.0, 60.0, rows).round(1),
            "rain": random.exponential(2.0, rows).round(2),
            "items": random.integers(1, 9, rows),
            "express": random.choice([1.0, 0.0, np.nan], rows, p=[0.3, 0.6, 0.1]),
            "depot": pd.Series(random.choice(["north", "south", "west"], rows), dtype="str"),
        }
    )


def outcomes(frame: Frame, objective: str, seed: int, turned: bool = False) -> np.ndarray:
    """What becomes of parcels: class indices, or a number; ``turned``: the other way round."""
    random = np.random.default_rng(seed)
    score = 0.012 * (frame["distance"] - 240) + 0.5 * (frame["rain"] - 2)
    score += 0.8 * (frame["depot"] == "north")
    score = (-score if turned else score).to_numpy()
    if objective == "regression":
        return score + random.normal(0, 0.5 + 0.2 * np.abs(score))
    chance = 1 / (1 + np.exp(-score))
    if objective == "binary":  # class 1 is "on time"
        return (random.random(len(frame)) > chance).astype(float)
    return np.digitize(random.random(len(frame)) * (0.4 + chance), [0.3, 0.6]).astype(float)


@dataclass
class Watched:
    """A project whose model serves version 1, and what happens to it."""

    root: Path
    objective: str

    @property
    def project(self) -> Project:
        return Project(self.root)

    @property
    def spec(self) -> ModelSpec:
        return self.project.load_model(MODEL)[1]

    @property
    def bundle(self) -> Bundle:
        ref = Registry(self.project.registry_url).version(MODEL, 1).ref
        return open_bundle(Path(ref.uri), ref.digest)

    def edit(self, old: str, new: str) -> None:
        path = self.root / "models" / MODEL / "model.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def traffic(
        self,
        rows: int = 2000,
        *,
        seed: int = 5,
        start: datetime = END - 7 * DAY,
        days: float = 7,
        change: Change = lambda frame: frame,
        version: int = 1,
        arm: str = "champion",
    ) -> tuple[Frame, list[str]]:
        """Rows as they came, and their ids: predicted by the version and logged when they came."""
        frame = change(parcels(start, days, rows, seed))
        ids = [f"{arm}-{version}-{seed}-{start:%m%d}-{i}" for i in range(len(frame))]
        self.log(frame, ids, self.predict(frame), version=version, arm=arm)
        return frame, ids

    def predict(self, frame: Frame) -> np.ndarray:
        return Predictor(self.bundle).predict(frame).values

    def log(
        self,
        frame: Frame,
        ids: list[str],
        values: np.ndarray,
        *,
        version: int = 1,
        arm: str = "champion",
        types: Mapping[str, pa.DataType] | None = None,
    ) -> None:
        """Put rows into the log as a server does; ``types`` other than its own."""
        rows = len(frame)
        usual = {
            "customer": pa.string(),
            "distance": pa.float64(),
            "rain": pa.float64(),
            "items": pa.int64(),
            "express": pa.bool_(),
            "depot": pa.string(),
        } | dict(types or {})
        columns: dict[str, Any] = {
            "_id": pa.array(ids, pa.string()),
            "_request_id": pa.array(ids, pa.string()),
            "_time": pa.array(frame["sent"], TIMESTAMP),
            "_version": pa.repeat(pa.scalar(version, pa.int64()), rows),
            "_arm": pa.repeat(pa.scalar(arm), rows),
            "_latency_ms": pa.repeat(pa.scalar(0.5), rows),
            **output_columns(CLASSES[self.objective], values),
            "sent": pa.array(frame["sent"], TIMESTAMP),
        }
        for name in [c for c in frame.columns if c != "sent"]:
            kind = usual.get(name, pa.float64())
            columns[name] = pa.array(frame[name], from_pandas=True).cast(kind)
        self._commit("predictions", pa.table(columns))

    def label(
        self,
        frame: Frame,
        ids: list[str],
        *,
        turned: bool = False,
        seed: int = 9,
        received: datetime | None = None,
    ) -> None:
        """Labels by id, two days after each event unless ``received`` says when."""
        y = outcomes(frame, self.objective, seed, turned)
        names = CLASSES[self.objective]
        values = y if names is None else [names[int(value)] for value in y]
        when = frame["sent"] + 2 * DAY if received is None else [received] * len(frame)
        self.put_labels(ids, values, when)

    def put_labels(self, ids: list[str], values: Any, when: Any) -> None:
        kind = pa.float64() if self.objective == "regression" else pa.string()
        columns = {
            "_received_at": pa.array(when, TIMESTAMP),
            "_id": pa.array(ids, pa.string()),
            "label": pa.array(list(values), kind),
        }
        self._commit("labels", pa.table(columns))

    def _commit(self, kind: Any, rows: pa.Table) -> None:
        uri = str(self.project.folder(kind, MODEL))
        assert commit_rows(uri, kind, f"writer-{next(_commits)}", 1, [rows]).rows == rows.num_rows


def make_watched(root: Path, objective: str = "binary", delay: str = "1d") -> Watched:
    """A project whose version was trained on 60 days and evaluated on the 20 that followed."""
    text = SPEC.format(objective=objective, delay=delay)
    folder = root / "models" / MODEL
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(text)
    place, spec = Watched(root, objective), parse_spec(text)
    training = parcels(TRAINED, 60, 5000, 1)
    program = FeatureProgram.load("", spec)
    builder = SchemaBuilder(program, spec)
    features = program.columns(training, {})
    builder.add(features)
    schema = builder.schema(CLASSES[objective])
    matrix, _ = encode(features, schema)
    booster = xgb.train(
        {**_BOOSTERS[objective], "max_depth": 3, "learning_rate": 0.2, "nthread": 2, "seed": 1},
        xgb.QuantileDMatrix(
            matrix, label=outcomes(training, objective, 1), feature_types=feature_types(schema)
        ),
        num_boost_round=50,
    )
    reference = io.BytesIO()
    training.to_parquet(reference)
    content = BundleContent(
        spec=spec, schema=schema, booster=bytes(booster.save_raw("ubj")), features_source="",
        state={}, reference=reference.getvalue(), profile={}, metrics={}, lineage={"made": "here"},
    )  # fmt: skip
    project = place.project
    ref = write_bundle(project.folder("bundles", MODEL), content)
    opened = open_bundle(Path(ref.uri), ref.digest)

    held_out = parcels(TRAINED + 60 * DAY, 20, 3000, 2)
    y, predictor = outcomes(held_out, objective, 2), Predictor(opened)
    frame = predictor.frame(held_out)
    p = predictor.predict_frame(frame).values
    found = measure(spec, y, p, None, held_out, seed=1)
    report = EvaluationReport(
        model=MODEL, objective=spec.objective, bundle_digest=ref.digest, champion=None,
        champion_digest=None, holdout_rows=len(held_out),
        holdout_start=held_out["sent"].min().isoformat(),
        holdout_end=held_out["sent"].max().isoformat(), estimates=found.estimates, comparisons=(),
        slices=(), calibration=(), curves=(), champion_curves=(), importance={},
        unseen_categories={}, judgement=Judgement(outcome=Outcome.PASSED, reason="", verdicts=()),
        serving=ServingCheck(
            loaded=True, identical=True, rows=1, max_abs_difference=0, p50_ms=1, p99_ms=1
        ),
    )  # fmt: skip
    evaluation = project.folder("reports", MODEL) / "evaluated"
    evaluation.mkdir(parents=True)
    (evaluation / "evaluation.json").write_text(report.model_dump_json())
    holdout = Holdout.sample(spec.objective, y, p, predictor.matrix(frame), seed=1)
    pq.write_table(holdout.to_table(), evaluation / HOLDOUT)

    registry = Registry(project.registry_url)
    registry.register(
        MODEL, ref, params={}, metrics={e.metric: e.value for e in found.estimates}, judgement={},
        links={"report": str(evaluation / "evaluation.html")}, actor="tests", reason="passed",
        now=TRAINED,
    )  # fmt: skip
    registry.promote(
        MODEL, 1, expected_generation=0, actor="tests", reason="better", evidence={},
        cause="first", now=TRAINED,
    )  # fmt: skip
    return place
