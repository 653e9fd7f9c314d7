from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perennial.contracts.errors import InputError
from perennial.data.checks import Checked, RowChecks, texts_of
from perennial.spec import ModelSpec, parse_spec

MODEL = """
name: m
objective: binary
source: {kind: csv, uri: x.csv, event_time: at, entity: [id]}
label: {column: late}
columns:
  id: {type: string, nullable: false}
  km: {type: float, min: 0, max: 1234567.5}
  stops: {type: integer, min: 0, allowed: [0, 1, 2, 3]}
  zone: {type: category, allowed: [north, south]}
  late: {type: boolean}
"""
GOOD = {
    "at": "2024-01-01", "id": "a", "km": "1.5", "stops": "1", "zone": "north", "late": "true",
}  # fmt: skip


@pytest.fixture
def spec() -> ModelSpec:
    return parse_spec(MODEL)


def table(*rows: dict[str, Any]) -> Any:
    full = [{**GOOD, **row} for row in rows]
    return pa.table({name: pa.array([row[name] for row in full]) for name in GOOD})


def reasons(checked: Checked) -> dict[int, str]:
    return dict(zip(checked.bad_rows.tolist(), checked.reasons.to_pylist(), strict=True))


def test_good_rows_come_typed_with_their_positions(spec: ModelSpec) -> None:
    checked = RowChecks(spec).check(table({}, {"km": "far"}, {"late": None, "stops": None}))
    assert checked.good_rows.tolist() == [0, 2]
    assert checked.good.schema.types == [
        pa.timestamp("us", "UTC"), pa.string(), pa.float64(), pa.int64(), pa.string(), pa.bool_(),
    ]  # fmt: skip
    assert checked.good["stops"].to_pylist() == [1, None]


def test_each_rule_has_its_reason(spec: ModelSpec) -> None:
    checked = RowChecks(spec).check(
        table(
            {"km": "far"},
            {"km": "-0.5"},
            {"km": "1234567.75"},
            {"stops": "7"},
            {"stops": "1.5"},
            {"zone": "West"},
            {"id": ""},
            {"at": "NA"},
            {"at": "1704067200"},
            {"late": "perhaps"},
        )
    )
    assert reasons(checked) == {
        0: "column km: 'far' is not a number",
        1: "column km: -0.5 is below min 0",
        2: "column km: 1234567.75 is above max 1234567.5",
        3: "column stops: '7' is not an allowed value",
        4: "column stops: '1.5' is not a whole number",
        5: "column zone: 'West' is not an allowed value",
        6: "column id: empty, but nullable is false",
        7: "column at: empty, but every row needs its event time",
        8: "column at: '1704067200' is not a time (ISO 8601 such as 2013-07-01 06:00:00; "
        "epochs are not guessed)",
        9: "column late: 'perhaps' is not true or false",
    }
    assert {(fault.column, fault.rule) for fault in checked.faults} == {
        ("km", "type"), ("km", "min"), ("km", "max"), ("stops", "allowed"), ("stops", "type"),
        ("zone", "allowed"), ("id", "missing"), ("at", "missing"), ("at", "type"), ("late", "type"),
    }  # fmt: skip


def test_a_row_that_breaks_several_rules_is_bad_once_with_every_reason(spec: ModelSpec) -> None:
    checked = RowChecks(spec).check(table({}, {"km": "-1", "zone": "x", "stops": "-1", "id": None}))
    assert reasons(checked) == {
        1: "column id: empty, but nullable is false; column km: -1 is below min 0; "
        "column stops: -1 is below min 0; column stops: '-1' is not an allowed value; "
        "column zone: 'x' is not an allowed value"
    }
    assert checked.good.num_rows == 1


def test_bounds_are_inclusive(spec: ModelSpec) -> None:
    checked = RowChecks(spec).check(table({"km": "0"}, {"km": "1234567.5"}))
    assert checked.good.num_rows == 2


def test_missing_values_break_no_range(spec: ModelSpec) -> None:
    checked = RowChecks(spec).check(table({"km": None, "stops": None, "zone": None, "late": None}))
    assert checked.good.num_rows == 1


def test_a_label_may_be_missing_unless_its_column_says_otherwise() -> None:
    strict = parse_spec(MODEL.replace("{type: boolean}", "{type: boolean, nullable: false}"))
    checked = RowChecks(strict).check(table({"late": None}))
    assert reasons(checked) == {0: "column late: empty, but nullable is false"}


def test_a_value_that_does_not_parse_is_not_also_missing() -> None:
    strict = parse_spec(MODEL.replace("km: {type: float,", "km: {type: float, nullable: false,"))
    checked = RowChecks(strict).check(table({"km": "x"}, {"km": ""}))
    assert reasons(checked) == {
        0: "column km: 'x' is not a number",
        1: "column km: empty, but nullable is false",
    }


def test_rows_outside_the_window_are_counted_and_neither_good_nor_bad(spec: ModelSpec) -> None:
    days = [{"at": f"2024-01-0{day}", "km": "-1" if day % 2 else "1"} for day in range(1, 8)]
    window = (datetime(2024, 1, 3, tzinfo=UTC), datetime(2024, 1, 6, tzinfo=UTC))
    checked = RowChecks(spec, *window).check(table(*days))
    assert (checked.before, checked.after) == (2, 2)
    assert checked.good_rows.tolist() == [3]
    assert checked.bad_rows.tolist() == [2, 4]
    assert [checked.inside(i) for i in range(7)] == [False, False, True, True, True, False, False]


def test_a_row_without_a_time_goes_with_the_row_before_it(spec: ModelSpec) -> None:
    rows = [{"at": at} for at in ("soon", "2024-01-01", "", "2024-01-04", "x", "2024-01-05")]
    checked = RowChecks(spec, datetime(2024, 1, 3, tzinfo=UTC), None).check(table(*rows))
    assert checked.bad_rows.tolist() == [4]
    assert checked.good_rows.tolist() == [3, 5]


def test_an_event_more_than_a_day_ahead_of_now_is_a_fault(spec: ModelSpec) -> None:
    rows = table(
        {"at": "2024-03-02T12:00:00Z"},
        {"at": "2024-03-02 12:00:00.000001"},
        {"at": "9999-12-31", "km": "-1"},
        {"at": None},
    )
    now = datetime(2024, 3, 1, 12, tzinfo=UTC)
    assert reasons(RowChecks(spec, now=now).check(rows)) == {
        1: "column at: '2024-03-02 12:00:00.000001' is more than a day in the future",
        2: "column at: '9999-12-31' is more than a day in the future; column km: -1 is below min 0",
        3: "column at: empty, but every row needs its event time",
    }
    assert RowChecks(spec).check(rows).good_rows.tolist() == [0, 1]


def test_an_event_before_the_year_300_is_a_fault_of_its_own(spec: ModelSpec) -> None:
    rows = table({"at": "0001-01-01"}, {"at": "0299-12-31T23:59:59.999999Z"}, {"at": "0300-01-01"})
    checked = RowChecks(spec, now=datetime(2024, 3, 1, tzinfo=UTC)).check(rows)
    assert reasons(checked) == {
        0: "column at: '0001-01-01' is before the year 300",
        1: "column at: '0299-12-31T23:59:59.999999Z' is before the year 300",
    }
    assert [fault.rule for fault in checked.faults] == ["past"]
    assert RowChecks(spec).check(rows).good_rows.tolist() == [0, 1, 2]


def test_long_values_are_shown_bounded(spec: ModelSpec) -> None:
    (reason,) = reasons(RowChecks(spec).check(table({"km": "y" * 500}))).values()
    assert reason == f"column km: '{'y' * 56}… is not a number"


def test_typed_values_are_checked_like_texts(spec: ModelSpec) -> None:
    rows = pa.table(
        {
            "at": pa.array([datetime(2024, 1, 1), None], pa.timestamp("ms")),
            "id": ["a", "b"],
            "km": pa.array([-1, 2], pa.int32()),
            "stops": pa.array([9.0, 1.0]),
            "zone": pa.array(["south", "south"]).dictionary_encode(),
            "late": pa.array([1, 0], pa.int8()),
        }
    )
    assert reasons(RowChecks(spec).check(rows)) == {
        0: "column km: -1 is below min 0; column stops: '9' is not an allowed value",
        1: "column at: empty, but every row needs its event time",
    }


def test_rows_as_texts_read_back_to_the_same_values(spec: ModelSpec) -> None:
    rows = pa.table(
        {
            "at": pa.array([datetime(2024, 1, 1, 1, 2, 3, 4)], pa.timestamp("us", "America/Lima")),
            "id": ['q"uote'],
            "km": [0.1 + 0.2],
            "stops": pa.array([2], pa.int16()),
            "zone": pa.array([None], pa.string()),
            "late": [True],
        }
    )
    (text,) = texts_of(rows, np.array([0]))
    read = {name: pa.array([value], pa.string()) for name, value in json.loads(text).items()}
    checks = RowChecks(spec)
    assert checks.check(pa.table(read)).good.equals(checks.check(rows).good)


def test_a_model_without_rules_needs_no_pass_over_the_rows() -> None:
    plain = parse_spec(
        "name: m\nobjective: regression\nsource: {kind: csv, uri: x.csv}\nlabel: {column: y}\n"
        "columns: {a: {type: float}}\nsplit: {kind: random, validation: 0.2, test: 0.2}\n"
    )
    checked = RowChecks(plain).check(pa.table({"a": ["1", "2"], "y": ["3", "x"]}))
    assert reasons(checked) == {1: "column y: 'x' is not a number"}
    assert checked.times is None


KEYED = """
name: keyed
objective: regression
source: {kind: csv, uri: rows.csv, entity: [card]}
label: {column: y}
columns:
  card: {type: float}
  x: {type: float}
split: {kind: random, validation: 0.2, test: 0.2}
"""


@pytest.mark.parametrize(
    "cards",
    [
        pa.array(["12345678901234567891", " 12345678901234567890", "7"]),
        pa.array([2**63 + 1, 2**63 + 3, 7], pa.uint64()),
        pa.array([Decimal(2**64 + 1), Decimal(2**64 + 3), None], pa.decimal128(38, 2)),
    ],
    ids=["text", "integers", "decimals"],
)
def test_keys_that_a_float_would_make_one_are_refused(cards: Any) -> None:
    checks = RowChecks(parse_spec(KEYED))
    rows = pa.table({"card": cards, "x": cards, "y": ["1", "2", "3"]})
    with pytest.raises(InputError, match=r"^column 'card': names rows by source.entity") as raised:
        checks.check(rows)
    assert "and 1 more, and different keys would become one" in raised.value.message
    assert raised.value.message.endswith("(write type: string for it)")


@pytest.mark.parametrize(
    "cards",
    [
        pa.array(["9007199254740992", "1e300", "0.12345678901234567891", "NA"]),
        pa.array([2**62, 1, 2, None]),
        pa.array([Decimal("0.1"), Decimal(2**60), None, None], pa.decimal128(38, 10)),
        pa.array([1.5, 1e22, 3.0, None]),
    ],
    ids=["text", "integers", "decimals", "floats"],
)
def test_keys_that_a_float_holds_are_let_in(cards: Any) -> None:
    rows = pa.table({"card": cards, "x": cards, "y": ["1", "2", "3", "4"]})
    assert RowChecks(parse_spec(KEYED)).check(rows).good.num_rows == 4
