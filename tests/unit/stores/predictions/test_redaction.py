"""What of a person is kept: a hash that only the key's owner can make, or nothing."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from perennial.contracts.errors import InputError
from perennial.spec import ModelSpec, parse_spec
from perennial.stores.predictions import Redaction
from tests.logged import prediction_rows

KEY = {"PERENNIAL_HASH_KEY": "a secret of more than sixteen characters"}


def spec(log: str) -> ModelSpec:
    return parse_spec(f"""
name: m
objective: binary
source: {{kind: csv, uri: rows.csv}}
label: {{column: late}}
split: {{kind: random, validation: 0.2, test: 0.2}}
columns:
  customer: {{type: string}}
  friend: {{type: string}}
  age: {{type: integer}}
  income: {{type: float}}
log: {log}
""")


BATCH = prediction_rows(
    ["1", "2", "3"],
    {
        "customer": ["ann", "bob", None],
        "friend": ["bob", "ann", "ann"],
        "age": pa.array([40, None, 40], pa.int64()),
        "income": [1.0, 2.0, 3.0],
    },
)


def test_a_hashed_value_is_the_same_wherever_it_stands_in_a_column() -> None:
    redaction = Redaction.of(spec("{hash: [friend, age]}"), KEY)
    kept = redaction.apply(BATCH)
    assert kept.schema.names == BATCH.schema.names
    friend, age = kept["friend"].to_pylist(), kept["age"].to_pylist()
    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in friend)
    assert friend[1] == friend[2] != friend[0]
    assert age[0] == age[2] is not None
    assert age[1] is None
    assert redaction.apply(BATCH.slice(2))["friend"].to_pylist() == [friend[2]]
    assert kept["customer"] == BATCH["customer"]


def test_columns_and_keys_have_hashes_of_their_own() -> None:
    kept = Redaction.of(spec("{hash: [customer, friend]}"), KEY).apply(BATCH)
    assert kept["customer"][0].as_py() != kept["friend"][1].as_py()  # both ann
    other_key = {"PERENNIAL_HASH_KEY": "another secret of many characters"}
    other = Redaction.of(spec("{hash: [customer, friend]}"), other_key).apply(BATCH)
    assert kept["customer"][0] != other["customer"][0]


def test_a_hash_stays_the_same_from_release_to_release() -> None:
    kept = Redaction.of(spec("{hash: [customer]}"), KEY).apply(BATCH)
    assert kept["customer"][0].as_py() == "dbf1790e0004064f34d80e709e1c202d"


def test_of_an_omitted_column_nothing_is_kept() -> None:
    kept = Redaction.of(spec("{omit: [income, customer]}"), {}).apply(BATCH)
    left = [name for name in BATCH.schema.names if name not in ("income", "customer")]
    assert kept == BATCH.select(left)


def test_without_redaction_the_batch_is_the_very_same() -> None:
    assert Redaction.of(spec("{keep: 30d}"), {}).apply(BATCH) is BATCH


def test_rows_without_the_redacted_columns_are_no_mistake() -> None:
    redaction = Redaction.of(spec("{hash: [customer], omit: [income]}"), KEY)
    assert redaction.apply(prediction_rows(["1"])) == prediction_rows(["1"])


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ({}, "is not set"),
        ({"PERENNIAL_HASH_KEY": "short"}, "has 5 characters, 16 at least"),
    ],
)
def test_hashing_without_a_good_key_is_refused(key: dict[str, str], what: str) -> None:
    with pytest.raises(InputError) as error:
        Redaction.of(spec("{hash: [customer, age]}"), key)
    assert str(error.value) == (
        f"PERENNIAL_HASH_KEY: {what}; m hashes customer, age in its prediction log (set it to a "
        "long random secret, the same on every server, and keep it)"
    )
