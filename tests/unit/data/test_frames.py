from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pytest

from perennial.contracts.errors import InputError
from perennial.contracts.features import ColumnType, InputColumn
from perennial.data.frames import (
    Layout,
    arrow_columns,
    arrow_schema,
    canonical_frame,
    column_series,
    schema_digest,
    table_columns,
    table_rows,
    to_arrow,
)
from perennial.data.parsing import TYPES
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


# Plain values, and what is only carried along.

JSON = {
    name: [values[0], None if COLUMNS[name].nullable else values[1]]
    for name, values in ROWS.items()
}


def refusal(rows: object, columns: Mapping[str, Column]) -> list[str]:
    with pytest.raises(InputError) as caught:
        canonical_frame(rows, columns)  # type: ignore[arg-type]
    return str(caught.value).splitlines()


def test_plain_values_make_the_frame_that_a_table_makes() -> None:
    frame = canonical_frame(JSON, COLUMNS)
    assert dtypes(frame) == DTYPES
    pd.testing.assert_frame_equal(frame, canonical_frame(pa.table(JSON), COLUMNS))
    assert dtypes(canonical_frame({name: [] for name in COLUMNS}, COLUMNS)) == DTYPES


def test_a_uuid_is_the_same_text_in_whatever_form_it_comes() -> None:
    keys = [UUID(int=7), None, UUID(int=2**100), UUID(int=7)]
    texts = [None if key is None else str(key) for key in keys]
    arrow = pa.array(keys, pa.uuid())
    columns = {"k": Column(type="string")}
    expected = canonical_frame({"k": texts}, columns)
    for values in (keys, arrow, pa.chunked_array([arrow.slice(0, 1), arrow.slice(1)])):
        rows = {"k": values} if isinstance(values, list) else pa.table({"k": values})
        pd.testing.assert_frame_equal(canonical_frame(rows, columns), expected)
    for series in (
        pd.Series(keys, dtype=object),
        pd.Series(pd.Categorical(keys)),
        pd.Series(arrow, dtype=pd.ArrowDtype(pa.uuid())),
    ):
        frame = pd.DataFrame({"k": series})
        pd.testing.assert_frame_equal(canonical_frame(frame, columns), expected)


def test_a_canonical_frame_is_an_ordinary_frame() -> None:
    made = canonical_frame(JSON, COLUMNS)
    ordinary = pd.DataFrame({name: made[name].tolist() for name in made}).astype(made.dtypes)
    pd.testing.assert_frame_equal(made, ordinary)
    for operation in (
        lambda frame: pd.concat([frame, frame]),
        lambda frame: frame.assign(f=frame["f"] + 1).sort_values("i", ascending=False),
        lambda frame: frame.copy().dropna(),
    ):
        pd.testing.assert_frame_equal(operation(made), operation(ordinary))


def test_infinity_is_no_number_in_any_form_and_told_with_its_row() -> None:
    columns = {"f": Column(type="float"), "g": Column(type="float"), "i": Column(type="integer")}
    values = {
        "f": [1.0, 2.0, math.inf],
        "g": [-math.inf, math.inf, None],
        "i": [math.inf, 1.0, 2.0],
    }
    told = ["column 'f', row 3: inf is not a number",
            "column 'g', row 1: -inf is not a number; so are 2 values",
            "column 'i', row 1: inf is not a whole number"]  # fmt: skip
    for rows in (
        values,
        pa.table(values),
        pd.DataFrame(values),
        pd.DataFrame(values, dtype=object),
    ):
        assert refusal(rows, columns) == told


def test_nan_is_missing_in_plain_values_too() -> None:
    frame = canonical_frame({"f": [math.nan, 1]}, {"f": COLUMNS["f"]})
    assert frame["f"].isna().tolist() == [True, False]
    required = Column(type="float", nullable=False)
    assert refusal({"f": [math.nan, 1]}, {"f": required}) == [
        "column 'f': 1 of 2 values are missing (model.yaml says nullable: false)"
    ]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("float", True, 1.0), ("float", " 2.5 ", 2.5), ("float", 2**70, 2.0**70),
        ("integer", 5.0, 5), ("integer", "5", 5), ("integer", True, 1),
        ("boolean", 1, True), ("boolean", "False", False), ("boolean", 0.0, False),
        ("category", 7, "7"), ("category", 7.0, "7"), ("category", True, "true"),
        ("string", 2**64, "18446744073709551616"),
        ("datetime", "2024-05-01T08:00:00+02:00", pd.Timestamp("2024-05-01 06:00", tz="UTC")),
    ],
)  # fmt: skip
def test_a_plain_value_of_another_type_is_read_as_a_source_would_be(
    kind: ColumnType, value: object, expected: object
) -> None:
    frame = canonical_frame({"x": [value]}, {"x": Column(type=kind, nullable=False)})
    assert frame["x"].tolist() == [expected]


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("float", "heavy", "'heavy' is not a number"),
        ("float", [1.0], "[1.0] is not a number"),
        ("integer", 1.5, "1.5 is not a whole number"),
        ("integer", 2**63, "9223372036854775808 is not a whole number"),
        ("boolean", 2, "2 is not true or false"),
        ("category", {"a": 1}, "{'a': 1} is not text"),
        ("string", "\ud800", "'\\ud800' is not text"),
        ("datetime", 1714550400, "1714550400 is not a time (ISO 8601 such as 2013-07-01 06:00:00; "
         "epochs are not guessed)"),
    ],
)  # fmt: skip
def test_a_plain_value_that_does_not_parse_is_told_with_its_row(
    kind: ColumnType, value: object, told: str
) -> None:
    assert refusal({"x": [None, value]}, {"x": Column(type=kind)}) == [f"column 'x', row 2: {told}"]


@pytest.mark.parametrize(
    ("values", "number"),
    [
        (pa.array([2**62], pa.timestamp("us")), 2**62),
        (pa.array([2**31 - 1], pa.int32()).view(pa.date32()), 2**31 - 1),
        (pa.array([7], pa.timestamp("s", "no/where")), 7),
    ],
)
def test_a_time_that_python_does_not_know_is_told_by_its_number(values: Any, number: int) -> None:
    assert refusal(pa.table({"x": values}), {"x": Column(type="string")}) == [
        f"column 'x', row 1: {number} is not text"
    ]


def test_columns_that_are_given_twice_or_differ_in_length_are_refused() -> None:
    twice = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["f", "f"])
    for rows in (twice, twice.to_pandas()):
        assert refusal(rows, {"f": COLUMNS["f"]}) == [
            "column 'f': there are several columns of this name"
        ]
    assert refusal({"f": [1.0], "c": ["x", "y"]}, {n: COLUMNS[n] for n in ("f", "c")}) == [
        "column 'c': has 2 values, the first column 1"
    ]


def test_carried_columns_may_be_absent_and_keep_their_table_type_to_the_last_digit() -> None:
    kinds = {"id": "integer", "at": "datetime", "who": "string", "f": "integer"}
    carried = {n: InputColumn(name=n, type=k, nullable=False) for n, k in kinds.items()}
    layout = Layout({"f": COLUMNS["f"]}, carried)
    assert list(layout.carried) == ["id", "at", "who"]
    frame = layout.frame({"id": [2**53 + 1, None], "f": [0.5, None], "at": ["2024-05-01", None]})
    batch = to_arrow(frame, layout.columns | layout.carried)
    assert batch.schema.types == [pa.float64(), pa.int64(), TYPES["datetime"], pa.string()]
    assert batch.to_pydict() == {
        "f": [0.5, None],
        "id": [2**53 + 1, None],
        "at": [datetime(2024, 5, 1, tzinfo=UTC), None],
        "who": [None, None],
    }
    with pytest.raises(InputError, match="column 'id', row 1: 'x' is not a whole number"):
        layout.frame({"f": [1.0], "id": ["x"]})


@pytest.mark.parametrize("nullable", [True, False])
def test_a_large_integer_that_is_an_input_and_carried_is_stored_exactly(nullable: bool) -> None:
    columns = {"id": InputColumn(name="id", type="integer", nullable=nullable)}
    ids = [2**53 + 1, None, -(2**62) - 1, 7] if nullable else [2**53 + 1, -(2**62) - 1]
    texts = [None if each is None else str(each) for each in ids]
    layout = Layout(columns, columns)
    for rows in ({"id": ids}, {"id": texts}, pa.table({"id": ids}), pa.table({"id": texts})):
        read = layout.read(rows)
        assert arrow_columns(read, columns)[0].equals(pa.array(ids, pa.int64()))
        pd.testing.assert_frame_equal(read.frame, canonical_frame(rows, columns))


def test_what_is_read_is_the_frame_by_column_and_makes_one_only_when_asked() -> None:
    layout = Layout(COLUMNS, {"id": InputColumn(name="id", type="integer", nullable=False)})
    for rows in (JSON, canonical_frame(JSON, COLUMNS), table_rows(JSON, COLUMNS)):
        read = layout.read(rows)
        batch = to_arrow(read, layout.columns | layout.carried)
        assert len(read) == batch.num_rows
        assert "frame" not in vars(read)
        frame = read.frame
        assert list(read.arrays) == list(frame)
        for name, array in read.arrays.items():
            assert pd.Series(array, name=name).equals(frame[name]), name
        assert batch.equals(to_arrow(frame, layout.columns | layout.carried))


def test_a_frame_goes_to_arrow_in_table_types() -> None:
    frame = canonical_frame(JSON, COLUMNS)
    batch = to_arrow(frame, COLUMNS)
    assert batch.schema.equals(arrow_schema(COLUMNS))
    assert batch.equals(table_rows(JSON, COLUMNS))
    assert to_arrow(frame.head(0), COLUMNS).num_rows == 0
    largest = canonical_frame({"n": [2**63 - 1, None]}, {"n": COLUMNS["n"]})
    assert to_arrow(largest, {"n": COLUMNS["n"]})["n"].to_pylist() == [2**63 - 1024, None]


def test_rows_in_table_types_keep_integers_exact_beside_missing_ones() -> None:
    rows = table_rows({"n": [2**53 + 1, None]}, {"n": COLUMNS["n"]})
    assert rows["n"].to_pylist() == [2**53 + 1, None]
    with pytest.raises(InputError) as caught:
        table_rows({"n": ["x"]}, {"n": COLUMNS["n"], "c": COLUMNS["c"]})
    assert str(caught.value).splitlines() == [
        "column 'n', row 1: 'x' is not a whole number",
        "column 'c': no such column",
    ]


def test_a_series_of_a_frame_is_the_frames_own_until_it_is_changed() -> None:
    frame = canonical_frame(JSON, COLUMNS)
    before = frame.copy(deep=True)
    for name, series in column_series(frame, {name: i for i, name in enumerate(COLUMNS)}).items():
        pd.testing.assert_series_equal(series, frame[name])
        series.iloc[0] = series.iloc[1]
    pd.testing.assert_frame_equal(frame, before)
