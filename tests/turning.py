"""A history that turns: what made a ride late keeps it in time from a certain day on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

MODEL_YAML = """\
name: rides
objective: binary
source: {kind: csv, uri: rides/*.csv, event_time: at, entity: [ride]}
label: {column: late, delay: 1d}
columns:
  ride: {type: integer, feature: false, nullable: false}
  rain: {type: float}
  crowd: {type: float}
  line: {type: category}
split: {kind: time, validation: 7d, test: 7d, window: 21d}
training: {rounds: 40, early_stopping_rounds: 10}
tuning:
  trials: 2
  space: {max_depth: [2, 4], learning_rate: {low: 0.1, high: 0.4, log: true}}
gates:
  - {metric: roc_auc, min: 0.75}
  - {beats: champion, metric: logloss, first_version: passed}
drift: {window: 7d}
retrain: {on: [drift, performance], cooldown: 1d}
"""
START = pd.Timestamp("2025-01-01", tz="UTC")
DAYS, TURN, A_DAY = 140, 75, 120


def rides(days: int = DAYS, turn: int = TURN, a_day: int = A_DAY, seed: int = 3) -> pd.DataFrame:
    """Rides at even times of each day; from the day ``turn`` on, rain keeps people at home."""
    random = np.random.default_rng(seed)
    n = days * a_day
    frame = pd.DataFrame({"at": START + pd.to_timedelta(np.arange(n) * 86_400 // a_day, unit="s")})
    frame["ride"] = np.arange(n)
    frame["rain"] = random.normal(0, 1, n).round(3)
    frame["crowd"] = random.normal(0, 1, n).round(3)
    frame["line"] = random.choice(["a", "b", "c"], n)
    sign = np.where(np.arange(n) < turn * a_day, 1.0, -1.0)
    score = 2.0 * sign * frame["rain"] + 0.5 * frame["crowd"] + 0.3 * (frame["line"] == "b")
    late = random.random(n) < 1 / (1 + np.exp(-score))
    frame["late"] = np.where(late, "true", "false")
    return frame


def write_project(root: Path, frame: pd.DataFrame, model_yaml: str = MODEL_YAML) -> Path:
    """A project with the model and its data. Returns its folder."""
    (root / "models" / "rides").mkdir(parents=True, exist_ok=True)
    (root / "models" / "rides" / "model.yaml").write_text(model_yaml)
    (root / "rides").mkdir(exist_ok=True)
    told = frame.assign(at=frame["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    told.to_csv(root / "rides" / "rides.csv", index=False)
    return root


def ingest(root: Path) -> None:
    """What a run of continuous training does before it trains."""
    from perennial.stores import sources, staging, tables
    from perennial.stores.project import Project

    project = Project(root)
    _, spec = project.load_model("rides")
    table = str(project.folder("tables", "rides"))
    source = sources.inspect(spec, root, tables.watermark(spec, table), None)
    staged = staging.stage(spec, root, source, project.folder("staging", "rides"))
    tables.publish(spec, staged, table, str(project.folder("quarantine", "rides")))
