"""What tells entities apart in the rows of a request: the same in every form their values come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from perennial.contracts.errors import InputError
from perennial.contracts.features import ColumnType, FeatureSchema, InputColumn
from perennial.contracts.routes import Arm
from perennial.data.frames import table_rows
from perennial.decisions.routing import assign
from perennial.serving.batching import INLINE_ROWS
from perennial.serving.rows import Columns, Objects, Reads, RequestRows, Table, from_table
from perennial.spec import parse_spec

SPEC = """
name: parcels
objective: regression
source: {{kind: csv, uri: data.csv, event_time: sent, entity: [{entity}]}}
label: {{column: price, delay: 1d}}
columns:
  customer: {{type: integer}}
  depot: {{type: string}}
  opened: {{type: datetime}}
  loyal: {{type: boolean}}
  weight: {{type: float}}
"""
TYPES: dict[str, ColumnType] = {
    "customer": "integer", "depot": "string", "opened": "datetime", "loyal": "boolean",
    "weight": "float",
}  # fmt: skip
COLUMNS = {n: InputColumn(name=n, type=t, nullable=True) for n, t in TYPES.items()}
Form = Callable[[Mapping[str, Sequence[Any]]], RequestRows]


def reads(*entity: str) -> Reads:
    spec = parse_spec(SPEC.format(entity=", ".join(entity)))
    return Reads(spec, FeatureSchema(features=(), inputs=(), classes=None), COLUMNS)


def as_objects(columns: Mapping[str, Sequence[Any]]) -> RequestRows:
    rows = zip(*columns.values(), strict=True)
    return Objects([dict(zip(columns, row, strict=True)) for row in rows])


def as_columns(columns: Mapping[str, Sequence[Any]]) -> RequestRows:
    return Columns(columns, len(next(iter(columns.values()))))


def as_table(columns: Mapping[str, Sequence[Any]]) -> RequestRows:
    return Table(pa.table(dict(columns)))


FORMS = pytest.mark.parametrize("form", [as_objects, as_columns, as_table])


@FORMS
def test_keys_stay_what_they_are_for_a_canary_may_be_under_way(form: Form) -> None:
    rows = form({"customer": [17, -3, 2**62], "depot": ["north", "süd 1", " x "]})

    assert rows.keys(reads("customer")) == ["17", "-3", "4611686018427387904"]
    assert rows.keys(reads("depot")) == ["north", "süd 1", " x "]
    assert rows.keys(reads("depot", "customer")) == [
        "north\x1f17", "süd 1\x1f-3", " x \x1f4611686018427387904",
    ]  # fmt: skip


def test_customers_stay_with_the_versions_that_they_have() -> None:
    arms = [Arm(version=1, weight=70), Arm(version=2, weight=30)]
    found = as_objects({"customer": range(20)}).keys(reads("customer"))

    assert assign([key for key in found if key], arms, "parcels") == [
        2, 1, 1, 2, 1, 1, 2, 2, 1, 1, 2, 1, 1, 1, 2, 1, 2, 1, 1, 1,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "same", "key"),
    [
        ("customer", [17, 17.0, "17", "017", " 17", "17.0", "+17"], "17"),
        ("customer", [-(2**62), str(-(2**62))], "-4611686018427387904"),
        ("depot", ["17", 17], "17"),
        ("depot", ["NA"], "NA"),
        ("loyal", [True, 1, 1.0, "true", "TRUE", "1"], "True"),
        ("weight", [0.5, "0.5", " .5", "5e-1"], "0.5"),
        ("weight", [2, 2.0, "2", "2.00"], "2.0"),
        (
            "opened",
            [
                "2026-03-01T06:00:00Z", "2026-03-01 06:00", "2026-03-01T07:00:00+01:00",
                datetime(2026, 3, 1, 6), datetime(2026, 3, 1, 6, tzinfo=UTC),
            ],
            "2026-03-01 06:00:00+00:00",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", [as_objects, as_columns])
def test_one_entity_has_one_key_in_whichever_type_its_values_come(
    form: Form, column: str, same: list[Any], key: str
) -> None:
    together = form({column: same}).keys(reads(column))
    alone = [form({column: [value]}).keys(reads(column)) for value in same]

    assert together == [key] * len(same)
    assert alone == [[key]] * len(same)


def test_a_column_of_floats_as_pandas_makes_it_of_missing_integers_has_the_same_keys() -> None:
    frame = pd.DataFrame({"customer": [17, None, 4]})

    found = Table(pa.Table.from_pandas(frame)).keys(reads("customer"))

    assert found == ["17", None, "4"]


@pytest.mark.parametrize("count", [1, INLINE_ROWS, INLINE_ROWS + 1])
def test_a_decimal_s_last_digit_and_a_short_float_s_first_tell_entities_apart(count: int) -> None:
    numbers = [Decimal(2**60 + i) for i in range(count)]
    rows = from_table(pa.table({"customer": pa.array(numbers, pa.decimal128(20, 0))}))
    assert rows.keys(reads("customer")) == [str(number) for number in numbers]
    short = np.full(count, 0.1, np.float32)
    for brought in (from_table(pa.table({"depot": short})), Columns({"depot": short}, count)):
        assert brought.keys(reads("depot")) == ["0.1"] * count


@pytest.mark.parametrize("count", [3, INLINE_ROWS + 1])
def test_rows_are_taken_from_arrays_as_from_lists(count: int) -> None:
    numbers = np.arange(count) / 4
    depots = [f"d-{i % 2}" for i in range(count)]
    forms = (
        as_columns({"weight": numbers.tolist(), "depot": depots}),
        Columns({"weight": numbers, "depot": pa.chunked_array([depots[:1], depots[1:]])}, count),
        from_table(pa.table({"weight": numbers, "depot": depots})),
    )
    both = {name: COLUMNS[name] for name in ("weight", "depot")}
    for rows in forms:
        taken = rows.take([2, 0])
        batch = table_rows(taken.columns(reads("depot")), both)
        assert taken.count == 2
        assert batch.to_pydict() == {"weight": [0.5, 0.0], "depot": ["d-0", "d-0"]}


def test_all_columns_that_do_not_parse_are_told() -> None:
    moments = pa.array([2**62], pa.timestamp("s"))
    table = pa.table({"customer": [1.5], "loyal": [Decimal("0.5")], "opened": moments})
    with pytest.raises(InputError) as caught:
        from_table(table).columns(reads())
    assert [problem.where for problem in caught.value.problems] == [
        "column 'customer', row 1", "column 'opened', row 1", "column 'loyal', row 1"
    ]  # fmt: skip


@FORMS
def test_null_is_advised_only_where_a_value_may_be_missing(form: Form) -> None:
    inputs = tuple(InputColumn(name=n, type=TYPES[n], nullable=n != "weight") for n in TYPES)
    schema = FeatureSchema(features=(), inputs=inputs, classes=None)
    reader = Reads(parse_spec(SPEC.format(entity="depot")), schema, {c.name: c for c in inputs})

    with pytest.raises(InputError) as caught:
        form({"customer": [17], "opened": [None], "loyal": [True]}).columns(reader)

    assert [str(problem) for problem in caught.value.problems] == [
        "column 'depot': is absent (send its value, or null when it is not known)",
        "column 'weight': is absent (send its value)",
    ]


@FORMS
def test_an_entity_that_is_missing_has_no_key(form: Form) -> None:
    assert form({"customer": ["", "NA", " null ", "3", None]}).keys(reads("customer")) == [
        None, None, None, "3", None,
    ]  # fmt: skip
    assert form({"depot": ["", None, "x"]}).keys(reads("depot")) == [None, None, "x"]
    both = form({"depot": ["x", "", "y"], "customer": ["1", "2", "nan"]})
    assert both.keys(reads("depot", "customer")) == ["x\x1f1", None, None]


@FORMS
def test_rows_without_the_entity_s_columns_have_no_keys(form: Form) -> None:
    rows = form({"customer": [1, 2]})

    assert rows.keys(reads("depot")) == rows.keys(reads("customer", "depot")) == [None, None]
    assert rows.keys(reads()) == [None, None]


@FORMS
def test_an_entity_that_does_not_parse_is_told_with_its_row(form: Form) -> None:
    with pytest.raises(InputError) as caught:
        form({"customer": ["1", "2", "two", "4"]}).keys(reads("customer"))

    assert str(caught.value) == "column 'customer', row 3: 'two' is not a whole number"
