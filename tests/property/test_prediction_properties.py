"""A row predicts what the training path predicts for it: alone, in any batch, in any form."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.bundle.write import BundleContent, write_bundle
from perennial.data.encoding import SchemaBuilder, encode
from perennial.data.features import FeatureProgram
from perennial.learning.matrices import feature_types
from perennial.spec import parse_spec

SPEC = parse_spec("""
name: parcels
objective: binary
source: {kind: csv, uri: x.csv, event_time: sent, entity: [parcel]}
label: {column: late}
split: {kind: random, validation: 0.2, test: 0.2}
columns:
  parcel: {type: integer, nullable: false, feature: false}
  sent: {type: datetime}
  weight: {type: float}
  volume: {type: float, nullable: false}
  items: {type: integer, nullable: false}
  stops: {type: integer}
  insured: {type: boolean}
  express: {type: boolean, nullable: false}
  depot: {type: category}
  note: {type: string}
""")
FIRST = """
import numpy as np
import pandas as pd
from perennial.data.features import fitted

@fitted
def usual_weight(weight: pd.Series, depot: pd.Series) -> dict[str, float]:
    return weight.groupby(depot).mean().dropna().sort_index().to_dict()

def over(weight: pd.Series, depot: pd.Series, usual_weight: dict[str, float]) -> pd.Series:
    return weight - depot.map(usual_weight)

def bent(weight: pd.Series, volume: pd.Series) -> pd.Series:
    return np.exp(-weight.abs() / 7) + np.sin(volume) + np.abs(volume) ** 0.3

def hour(sent: pd.Series) -> pd.Series:
    return sent.dt.hour

def words(note: pd.Series) -> pd.Series:
    return note.str.len()

def kind(depot: pd.Series, express: pd.Series) -> pd.Series:
    return depot + np.where(express, "!", "")
"""
SECOND = """
import numpy as np
import pandas as pd

def over(weight: pd.Series, items: pd.Series) -> pd.Series:
    return weight / (items.abs() + 1)

def minute(sent: pd.Series) -> pd.Series:
    return sent.dt.minute + np.cos(sent.dt.hour)
"""
COLUMNS = ["sent", "weight", "volume", "items", "stops", "insured", "express", "depot", "note"]
DEPOTS = ["north", "south", "west", "Öland"]


def canonical(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of plain values as the frame that training reads from its table."""
    return pd.DataFrame(
        {
            "sent": pd.to_datetime(
                [row["sent"] for row in rows], utc=True, format="ISO8601"
            ).as_unit("us"),
            "weight": np.array([row["weight"] for row in rows], dtype=float),
            "volume": np.array([row["volume"] for row in rows], dtype=float),
            "items": np.array([row["items"] for row in rows], dtype=np.int64),
            "stops": np.array([row["stops"] for row in rows], dtype=float),
            "insured": np.array([row["insured"] for row in rows], dtype=float),
            "express": np.array([row["express"] for row in rows], dtype=bool),
            "depot": pd.array([row["depot"] or None for row in rows], dtype="str"),
            "note": pd.array([row["note"] or None for row in rows], dtype="str"),
        }
    )


@dataclass(frozen=True)
class Version:
    predictor: Predictor
    program: FeatureProgram
    content: BundleContent

    def expected(self, rows: list[dict[str, Any]]) -> tuple[np.ndarray, dict[str, int]]:
        """Predictions by the training path: the matrix of the whole table, and the booster."""
        features = self.program.compute(canonical(rows), self.content.state)
        matrix, unseen = encode(features, self.content.schema)
        booster = xgb.Booster(model_file=bytearray(self.content.booster))
        types = feature_types(self.content.schema)
        return booster.predict(xgb.DMatrix(matrix, feature_types=types)), unseen


@cache
def version(source: str) -> Version:
    random = np.random.default_rng(5)
    rows = [
        {
            "sent": datetime.fromtimestamp(int(random.integers(10**9)), UTC).isoformat(),
            "weight": None if random.random() < 0.1 else random.gamma(2.0),
            "volume": random.normal(),
            "items": int(random.integers(1, 9)),
            "stops": None if random.random() < 0.1 else int(random.integers(5)),
            "insured": [None, True, False][random.integers(3)],
            "express": bool(random.random() < 0.5),
            "depot": [None, *DEPOTS][random.integers(5)],
            "note": ["", "fragile", "this way up"][random.integers(3)],
        }
        for _ in range(300)
    ]
    frame = canonical(rows)
    program = FeatureProgram.load(source, SPEC)
    state = program.fit(frame)
    features = program.compute(frame, state)
    builder = SchemaBuilder(program, SPEC)
    builder.add(features)
    schema = builder.schema(("false", "true"))
    matrix, _ = encode(features, schema)
    label = np.nan_to_num(matrix).sum(axis=1) % 2 > 1
    params = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1, "seed": 1}
    trained = xgb.train(
        params, xgb.QuantileDMatrix(matrix, label, feature_types=feature_types(schema)), 20
    )
    content = BundleContent(
        spec=SPEC,
        schema=schema,
        booster=bytes(trained.save_raw("ubj")),
        features_source=source,
        state=state,
        reference=b"",
        profile={},
        metrics={},
        lineage={},
    )
    with tempfile.TemporaryDirectory() as folder:
        ref = write_bundle(Path(folder), content)
        predictor = Predictor(open_bundle(Path(ref.uri), ref.digest))
    return Version(predictor, program, content)


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8"), max_size=4)


numbers = st.floats(-1e30, 1e30, width=64)
times = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))
row = st.fixed_dictionaries(
    {
        "sent": times.map(lambda moment: f"{moment.isoformat()}Z"),
        "weight": st.none() | numbers | st.integers(-(2**53), 2**53),
        "volume": numbers,
        "items": st.integers(-(2**50), 2**50),
        "stops": st.none() | st.integers(-(2**50), 2**50),
        "insured": st.none() | st.booleans(),
        "express": st.booleans(),
        "depot": st.none() | st.sampled_from(DEPOTS) | texts(),
        "note": st.none() | texts(),
    }
)
tables = st.builds(  # some long enough for the ways that suit many rows
    lambda rows, times: rows * times,
    st.lists(row, min_size=1, max_size=30),
    st.sampled_from([1, 1, 1, 20]),
)


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in COLUMNS}


@settings(deadline=None, max_examples=60)
@given(tables, st.data())
def test_any_partition_of_any_order_predicts_what_training_does_bit_for_bit(
    rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    made = version(FIRST)
    expected, strange = made.expected(rows)
    order = data.draw(st.permutations(range(len(rows))))
    ends = [*sorted(data.draw(st.sets(st.integers(1, len(rows))))), len(rows)]
    values, unseen = np.empty_like(expected), dict.fromkeys(strange, 0)
    for begin, end in zip([0, *ends], ends, strict=False):
        places = order[begin:end]
        if places:
            found = made.predictor.predict(columns([rows[place] for place in places]))
            values[places] = found.values
            for name, count in found.unseen.items():
                unseen[name] += count
    assert values.tobytes() == expected.tobytes()
    assert unseen == strange


@settings(deadline=None, max_examples=60)
@given(tables)
def test_plain_values_arrow_and_pandas_predict_what_training_does_bit_for_bit(
    rows: list[dict[str, Any]],
) -> None:
    made = version(FIRST)
    expected, unseen = made.expected(rows)
    plain = columns(rows)
    typed = {"weight": pa.float64(), "insured": pa.bool_(), "stops": pa.int64()}
    table = pa.table({name: pa.array(plain[name], typed.get(name)) for name in plain})
    forms = (
        plain,
        {name: tuple(values) for name, values in plain.items()},
        table,
        table.to_batches()[0],
        pd.DataFrame(plain, dtype=object),
        table.to_pandas(),
        canonical(rows),
        {name: [str(v) if v is not None else None for v in plain[name]] for name in plain},
    )
    for form in forms:
        found = made.predictor.predict(form)
        assert found.values.tobytes() == expected.tobytes()
        assert found.unseen == unseen


@settings(deadline=None, max_examples=20)
@given(st.lists(tables, min_size=2, max_size=8))
def test_two_versions_used_in_turn_by_several_threads_keep_to_their_own_code(
    batches: list[list[dict[str, Any]]],
) -> None:
    jobs = [(version(source), rows) for rows in batches for source in (FIRST, SECOND)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: job[0].predictor.predict(columns(job[1])).values, jobs))
    for (made, rows), values in zip(jobs, found, strict=True):
        assert values.tobytes() == made.expected(rows)[0].tobytes()
