from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import pyarrow as pa
import pytest

from perennial.contracts.errors import InputError
from perennial.data.frames import canonical_frame, schema_digest, table_columns
from perennial.spec import parse_spec
from perennial.spec.inputs import Column

COLUMNS = {
    "f": Column(type="float"),
    "i": Column(type="integer", nullable=False),
    "n": Column(type="integer"),
    "b": Column(type="boolean", nullable=False),
    "m": Column(type="boolean"),
    "c": Column(type="category"),
    "s": Column(type="string"),
    "t": Column(type="datetime"),
}
DTYPES = {
    "f": "float64", "i": "int64", "n": "float64", "b": "bool", "m": "float64", "c": "str",
    "s": "str", "t": "datetime64[us, UTC]",
}  # fmt: skip
ROWS = {
    "f": [1.5, None],
    "i": [1, 2],
    "n": [1, None],
    "b": [True, False],
    "m": [True, None],
    "c": ["x", None],
    "s": ["y", None],
    "t": ["2024-01-01", None],
}


def dtypes(frame: pd.DataFrame) -> Mapping[str, str]:
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def test_the_dtypes_follow_from_the_columns_alone() -> None:
    table = pa.table(ROWS)
    for rows in (table, table.slice(0, 1), table.slice(0, 0), pd.DataFrame(ROWS).astype(object)):
        assert dtypes(canonical_frame(rows, COLUMNS)) == DTYPES


def test_missing_values_are_nan() -> None:
    frame = canonical_frame(pa.table(ROWS), COLUMNS)
    assert frame.iloc[1][["f", "n", "m", "c", "s", "t"]].isna().all()


def test_a_canonical_frame_is_its_own_canonical_frame() -> None:
    frame = canonical_frame(pa.table(ROWS), COLUMNS)
    pd.testing.assert_frame_equal(canonical_frame(frame, COLUMNS), frame)


def test_columns_come_in_the_order_asked_for_and_no_others() -> None:
    frame = canonical_frame(pa.table(ROWS), {"s": COLUMNS["s"], "f": COLUMNS["f"]})
    assert list(frame.columns) == ["s", "f"]


def test_a_frame_keeps_its_index() -> None:
    rows = pd.DataFrame({"f": [1, 2]}, index=[7, 3])
    assert canonical_frame(rows, {"f": COLUMNS["f"]}).index.tolist() == [7, 3]


def test_values_of_several_types_become_text_for_a_category() -> None:
    rows = pd.DataFrame({"c": [1, "a", True, None]}, dtype=object)
    assert canonical_frame(rows, {"c": COLUMNS["c"]})["c"].tolist()[:3] == ["1", "a", "true"]


def test_every_mistake_is_told() -> None:
    rows = pd.DataFrame({"f": ["1", "x", "y"], "i": [1, None, 2], "ct": ["a", "b", "c"]})
    with pytest.raises(InputError) as caught:
        canonical_frame(rows, {name: COLUMNS[name] for name in ("f", "i", "c")})
    assert str(caught.value).splitlines() == [
        "column 'f', row 2: 'x' is not a number; so are 2 values",
        "column 'i': 1 of 3 values are missing (model.yaml says nullable: false)",
        "column 'c': no such column; did you mean 'ct'?",
    ]


def test_the_digest_changes_with_name_type_and_nullability_only() -> None:
    digest = schema_digest({"a": Column(type="float")})
    assert digest == schema_digest({"a": Column(type="float", min=3, feature=False)})
    for other in (
        {"b": Column(type="float")},
        {"a": Column(type="integer")},
        {"a": Column(type="float", nullable=False)},
    ):
        assert schema_digest(other) != digest


def test_a_table_has_event_time_entity_and_label_even_undeclared() -> None:
    text = """
    name: m
    objective: OBJECTIVE
    source: {kind: csv, uri: x.csv, event_time: at, entity: [id]}
    label: {column: y}
    columns: {a: {type: float}, id: {type: string}}
    """
    columns = table_columns(parse_spec(text.replace("OBJECTIVE", "binary")))
    assert list(columns) == ["at", "id", "a", "y"]
    assert (columns["at"].type, columns["at"].nullable) == ("datetime", False)
    assert (columns["y"].type, columns["y"].nullable) == ("category", True)
    assert table_columns(parse_spec(text.replace("OBJECTIVE", "regression")))["y"].type == "float"
