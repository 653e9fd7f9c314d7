"""A project of many small models, made without training flows: what is measured is what they cost
once they are there."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost as xgb

from perennial.bundle.write import BundleContent, write_bundle
from perennial.data.encoding import SchemaBuilder, encode
from perennial.data.features import FeatureProgram
from perennial.learning.matrices import feature_types
from perennial.spec import parse_spec
from perennial.stores.project import Project
from perennial.stores.registry import Registry

NUMBERS = tuple(f"number_{i}" for i in range(8))
LEVELS = ("north", "south", "east", "west")
_SPEC = """\
name: {name}
objective: binary
source: {{kind: csv, uri: data.csv, event_time: at, entity: [customer]}}
label: {{column: outcome, delay: 1d}}
columns:
  customer: {{type: string}}
  region: {{type: category}}
{numbers}
retrain: {{schedule: "0 6 * * 1"}}
"""
_ROUNDS = 200
_ROWS = 3_000


def spec_text(name: str) -> str:
    return _SPEC.format(name=name, numbers="\n".join(f"  {n}: {{type: float}}" for n in NUMBERS))


def model_names(count: int) -> list[str]:
    return [f"model-{number:03d}" for number in range(count)]


def inputs(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """The model's inputs: numbers, a region, and who it is about."""
    found: dict[str, np.ndarray] = {name: random.normal(size=rows) for name in NUMBERS}
    found["region"] = random.choice(LEVELS, rows)
    found["customer"] = random.integers(0, 100_000, rows).astype(str)
    return found


def write_models(root: Path, names: list[str], versions: int = 1) -> Project:
    """A project with these models, of each so many versions, the first of which is champion."""
    project = Project(root)
    project.home.mkdir(parents=True)
    frame = _rows(1).assign(outcome="no")
    frame.to_csv(root / "data.csv", index=False, date_format="%Y-%m-%dT%H:%M:%SZ")
    registry = Registry(project.registry_url)
    booster = b""
    for name in names:
        folder = project.models / name.replace("-", "_")
        folder.mkdir(parents=True)
        (folder / "model.yaml").write_text(spec_text(name), encoding="utf-8")
        for seed in range(1, versions + 1):
            content = _content(name, seed, booster)
            booster = content.booster or b""  # trees cost the same whoever has them
            made = write_bundle(project.folder("bundles", name), content)
            now = datetime.now(UTC)
            registry.register(
                name, made, params={}, metrics={"logloss": 0.5}, judgement={}, links={},
                actor="benchmark", reason="passed", now=now,
            )  # fmt: skip
        registry.promote(
            name, 1, expected_generation=0, actor="benchmark", reason="the first", evidence={},
            cause="first", now=now,
        )  # fmt: skip
    registry.close()
    return project


def _rows(seed: int) -> pd.DataFrame:
    rows = pd.DataFrame(inputs(np.random.default_rng(seed), _ROWS))
    start = pd.Timestamp("2026-01-01", tz="UTC").as_unit("us")
    rows["at"] = start + pd.to_timedelta(np.arange(_ROWS), unit="min")
    return rows.astype({"region": "str", "customer": "str"})


def _content(name: str, seed: int, booster: bytes) -> BundleContent:
    spec = parse_spec(spec_text(name))
    random, rows = np.random.default_rng(seed), _rows(seed)
    program = FeatureProgram.load("", spec)
    state = program.fit(rows)
    features = program.columns(rows, state)
    builder = SchemaBuilder(program, spec)
    builder.add(features)
    schema = builder.schema(("no", "yes"))
    if not booster:
        matrix, _ = encode(features, schema)
        label = (rows[NUMBERS[0]] + random.normal(size=_ROWS) > 0).astype(float)
        data = xgb.QuantileDMatrix(matrix, label=label, feature_types=feature_types(schema))
        parameters = {"objective": "binary:logistic", "max_depth": 6, "seed": 1}
        booster = bytes(xgb.train(parameters, data, num_boost_round=_ROUNDS).save_raw("ubj"))
    reference = io.BytesIO()
    rows.head(2_000).to_parquet(reference)
    return BundleContent(
        spec=spec, schema=schema, booster=booster, features_source="", state=state,
        reference=reference.getvalue(), profile={"rows": _ROWS}, metrics={"logloss": 0.5},
        lineage={"seed": seed},
    )  # fmt: skip
