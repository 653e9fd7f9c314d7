"""What must hold for every matrix: a row's numbers don't depend on its company or its batch."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.contracts.features import Feature, FeatureSchema
from perennial.data.encoding import SchemaBuilder, encode
from perennial.data.features import FeatureProgram
from perennial.spec import parse_spec

SPEC = parse_spec("""
name: m
objective: regression
source: {kind: csv, uri: x.csv}
label: {column: y}
split: {kind: random, validation: 0.2, test: 0.2}
columns:
  number: {type: float}
  word: {type: category}
""")
CODE = """
import numpy as np
import pandas as pd
from perennial.data.features import fitted

@fitted
def share(word: pd.Series) -> dict[str, float]:
    return word.value_counts(normalize=True).sort_index().to_dict()

def common(word: pd.Series, share: dict[str, float]) -> pd.Series:
    return word.map(share)

def bent(number: pd.Series) -> pd.Series:
    return np.exp(-number.abs() / 7) + np.sin(number) + np.abs(number) ** 0.3

def pair(word: pd.Series, number: pd.Series) -> pd.Series:
    return word + np.where(number > 0, "+", "-")
"""
PROGRAM = FeatureProgram.load(CODE, SPEC)
words = st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["a", "b", "ä", "aa"]))
numbers = st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6))
tables = st.lists(st.tuples(numbers, words), min_size=1, max_size=60)
quick = settings(deadline=None, max_examples=50)


def frame(rows: list[tuple[float, str | None]]) -> pd.DataFrame:
    number, word = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "number": np.array(number, dtype=float),
            "word": pd.array([_encodable(w) for w in word], dtype="str"),
        }
    )


def _encodable(word: str | None) -> str | None:
    return None if word is None else word.encode("utf-8", "ignore").decode()


@quick
@given(tables, tables, st.integers(1, 60))
def test_the_matrix_of_a_table_is_that_of_its_rows_bit_for_bit(
    training: list[tuple[float, str | None]], rows: list[tuple[float, str | None]], batch: int
) -> None:
    known = frame([*training, (1.0, "a"), (2.0, "b")])
    state = PROGRAM.fit(known)
    builder = SchemaBuilder(PROGRAM, SPEC)
    builder.add(PROGRAM.compute(known, state))
    schema = builder.schema(None)

    table = frame(rows)
    whole, unseen = encode(PROGRAM.compute(table, state), schema)
    pieces = [table.iloc[i : i + batch] for i in range(0, len(table), batch)]
    encoded = [encode(PROGRAM.columns(piece, state), schema) for piece in pieces]
    again = np.concatenate([matrix for matrix, _ in encoded])
    assert whole.tobytes() == again.tobytes()
    for name in ("word", "pair"):
        assert unseen.get(name, 0) == sum(counted.get(name, 0) for _, counted in encoded)


@quick
@given(tables, st.integers(1, 60), st.randoms())
def test_the_schema_does_not_depend_on_batches_or_order(
    rows: list[tuple[float, str | None]], batch: int, random: object
) -> None:
    table = frame([*rows, (1.0, "a"), (2.0, "b")])
    state = PROGRAM.fit(table)
    features = PROGRAM.compute(table, state)
    once = SchemaBuilder(PROGRAM, SPEC)
    once.add(features)
    order = list(range(len(features)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = features.iloc[order]
    several = SchemaBuilder(PROGRAM, SPEC)
    for i in range(0, len(shuffled), batch):
        several.add(shuffled.iloc[i : i + batch])
    assert once.schema(None) == several.schema(None)
    for feature in once.schema(None).features:
        assert feature.levels is None or list(feature.levels) == sorted(feature.levels)


@quick
@given(st.lists(words, max_size=60), st.sets(st.text(max_size=3), max_size=30))
def test_codes_point_at_their_level_and_all_else_is_missing(
    values: list[str | None], levels: set[str]
) -> None:
    known = tuple(sorted({level.encode("utf-8", "ignore").decode() for level in levels}))
    column = pd.Series(pd.array([_encodable(value) for value in values], dtype="str"))
    schema = FeatureSchema(inputs=(), features=(Feature(name="w", levels=known),), classes=None)
    matrix, unseen = encode({"w": column}, schema)
    strange = 0
    for value, code in zip(column.tolist(), matrix[:, 0].tolist(), strict=True):
        if isinstance(value, str) and value in known:
            assert known[int(code)] == value
        else:
            assert np.isnan(code)
            strange += isinstance(value, str)
    assert unseen == ({"w": strange} if strange else {})
