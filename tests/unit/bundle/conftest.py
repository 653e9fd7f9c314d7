"""Small real bundles: trained here, on made-up rows with categories, times and missing values."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from perennial.bundle.predictor import member_program
from perennial.bundle.read import open_bundle
from perennial.bundle.write import BundleContent, write_bundle
from perennial.contracts.refs import Member
from perennial.data.encoding import SchemaBuilder, encode
from perennial.data.features import FeatureProgram
from perennial.learning.matrices import feature_types
from perennial.spec import parse_spec

ROWS = 400
CLASSES = {"binary": ("false", "true"), "multiclass": ("a", "b", "c"), "regression": None}
OBJECTIVES = {
    "binary": {"objective": "binary:logistic"},
    "multiclass": {"objective": "multi:softprob", "num_class": 3},
    "regression": {"objective": "reg:squarederror"},
}

SPEC = """
name: parcels
objective: {objective}
source: {{kind: csv, uri: parcels.csv, event_time: sent}}
label: {{column: outcome}}
columns:
  weight_kg: {{type: float}}
  items: {{type: integer, nullable: false}}
  insured: {{type: boolean}}
  depot: {{type: category}}
"""

FEATURES = '''
import pandas as pd

from perennial.data.features import fitted


def weight_per_item(weight_kg: pd.Series, items: pd.Series) -> pd.Series:
    """Kilograms."""
    return weight_kg / (items + 1)


def hour(sent: pd.Series) -> pd.Series:
    return sent.dt.hour


@fitted
def depot_share(depot: pd.Series) -> dict[str, float]:
    return depot.value_counts(normalize=True).to_dict()


def depot_size(depot: pd.Series, depot_share: dict[str, float]) -> pd.Series:
    return depot.map(depot_share)
'''


@dataclass(frozen=True)
class Made:
    """A bundle's content, the rows it was trained on, and the training path's predictions."""

    content: BundleContent
    rows: pd.DataFrame
    matrix: np.ndarray
    expected: np.ndarray
    expected_from_quantiles: np.ndarray


def raw_rows() -> pd.DataFrame:
    random = np.random.default_rng(11)
    weight = random.gamma(2.0, 3.0, ROWS)
    weight[random.random(ROWS) < 0.1] = np.nan
    insured = random.choice([1.0, 0.0, np.nan], ROWS)
    depot = pd.Series(random.choice(["north", "south", "west"], ROWS), dtype="str")
    depot[random.random(ROWS) < 0.05] = np.nan
    seconds = pd.to_timedelta(random.integers(0, 10**7, ROWS), unit="s")
    return pd.DataFrame(
        {
            "weight_kg": weight,
            "items": random.integers(1, 9, ROWS),
            "insured": insured,
            "depot": depot,
            "sent": pd.Timestamp("2025-03-01", tz="UTC").as_unit("us") + seconds,
        }
    )


def make(objective: str, features_source: str = FEATURES) -> Made:
    spec = parse_spec(SPEC.format(objective=objective))
    rows = raw_rows()
    program = FeatureProgram.load(features_source, spec)
    state = program.fit(rows)
    features = program.columns(rows, state)
    builder = SchemaBuilder(program, spec)
    builder.add(features)
    schema = builder.schema(CLASSES[objective])
    matrix, _ = encode(features, schema)
    score = np.nan_to_num(matrix[:, [0, 1, -1]]).sum(axis=1)
    label = {
        "binary": score > np.median(score),
        "multiclass": np.digitize(score, np.quantile(score, [0.3, 0.7])),
        "regression": score,
    }[objective].astype(np.float32)
    types = feature_types(schema)
    quantiles = xgb.QuantileDMatrix(matrix, label=label, feature_types=types)
    params = OBJECTIVES[objective] | {"seed": 3, "nthread": 1, "max_depth": 4}
    booster = xgb.train(params, quantiles, num_boost_round=12)
    reference = io.BytesIO()
    rows.head(50).to_parquet(reference)
    content = BundleContent(
        spec=spec,
        schema=schema,
        booster=bytes(booster.save_raw("ubj")),
        features_source=features_source,
        state=state,
        reference=reference.getvalue(),
        profile={"rows": ROWS},
        metrics={"logloss": 0.25, "unmeasured": None},
        lineage={"seed": 3, "libraries": {"xgboost": xgb.__version__}},
    )
    plain = booster.predict(xgb.DMatrix(matrix, feature_types=types))
    return Made(content, rows, matrix, plain, booster.predict(quantiles))


def make_ensemble(
    folder: Path, objective: str, weights: tuple[float, float] | None = (3.0, 1.0)
) -> BundleContent:
    """The content of an ensemble of two versions in ``folder``, of which the second takes no notice
    of most columns: their weighted mean, or a booster over them without ``weights``."""
    bundles = {}
    for name, source in (("parcels@1", FEATURES), ("parcels@2", "")):
        ref = write_bundle(folder / "members", make(objective, source).content)
        bundles[name] = open_bundle(Path(ref.uri), ref.digest)
    base, names = make(objective), list(bundles)
    text = SPEC.format(objective=objective).replace("parcels\n", "blend\n", 1)
    combine = "stacking" if weights is None else "mean"
    spec = parse_spec(f"{text}ensemble: {{of: [{', '.join(names)}], combine: {combine}}}\n")
    program = member_program(bundles, spec)
    features = program.compute(base.rows, {})
    builder = SchemaBuilder(program, spec)
    builder.add(features)
    schema = builder.schema(CLASSES[objective])
    booster = None
    if weights is None:
        matrix, _ = encode(features, schema)
        label = np.asarray(base.expected)
        label = label.argmax(axis=1) if label.ndim == 2 else label.round()
        params = OBJECTIVES[objective] | {"seed": 3, "nthread": 1, "max_depth": 2}
        booster = bytes(xgb.train(params, xgb.QuantileDMatrix(matrix, label=label), 4).save_raw())
    return dataclasses.replace(
        base.content,
        spec=spec,
        schema=schema,
        booster=booster,
        features_source="",
        state={},
        weights=None if weights is None else dict(zip(names, weights, strict=True)),
        members=tuple(
            (Member(name=name, model="parcels", version=i, digest=bundle.digest), bundle)
            for i, (name, bundle) in enumerate(bundles.items(), 1)
        ),
    )


@pytest.fixture(scope="session")
def made() -> Made:
    """A binary model."""
    return make("binary")


@pytest.fixture(scope="session", params=["binary", "multiclass", "regression"])
def each_made(request: pytest.FixtureRequest) -> Made:
    return make(request.param)


@pytest.fixture(scope="session")
def make_with() -> Callable[[str], Made]:
    """A binary model with another features.py."""
    return lambda source: make("binary", source)
