from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from perennial.contracts.features import ColumnType
from perennial.data import parsing
from perennial.data.parsing import TYPES, parse

BAD = object()


def parsed(values: Any, kind: ColumnType) -> list[Any]:
    """The parsed values, ``BAD`` where one is faulty."""
    result = parse(values if isinstance(values, pa.Array) else pa.array(values), kind)
    assert result.values.type == TYPES[kind]
    faulty = [False] * len(result.values) if result.faulty is None else result.faulty.tolist()
    return [BAD if bad else v for v, bad in zip(result.values.to_pylist(), faulty, strict=True)]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def test_numbers_in_text() -> None:
    texts = ["1", " 2.5 ", "-1e3", "+5", ".5", "1.", "1_000", "1,5", "0x10", "abc", "٣"]
    assert parsed(texts, "float") == [1, 2.5, -1000, 5, 0.5, 1, BAD, BAD, BAD, BAD, BAD]


def test_with_decimal_commas_a_point_makes_no_number() -> None:
    texts = pa.array(["1", " 2,5 ", "-1,5e3", "1.5", "1.000", "1.234,5", "1,2,3", "n.a.", "NA"])
    read = parse(texts, "float", ",")
    assert read.values.to_pylist() == [1, 2.5, -1500, *[None] * 6]
    assert read.faulty is not None
    assert read.faulty.tolist() == [False] * 3 + [True] * 5 + [False]
    assert parse(pa.array([1.5]), "float", ",").values.to_pylist() == [1.5]
    assert parse(pa.array(["1,5"]), "string", ",").values.to_pylist() == ["1,5"]


def test_decimal_commas_without_a_point_among_them_need_no_pattern(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pattern a value makes reading several times slower."""
    monkeypatch.setattr(parsing, "_FIGURES", "(")  # no pattern: to use it fails
    assert parse(pa.array(["1,5", "2"]), "float", ",").values.to_pylist() == [1.5, 2]


@pytest.mark.parametrize("kind", ["float", "integer", "boolean", "datetime"])
def test_words_for_missing_are_missing_where_text_is_not_wanted(kind: ColumnType) -> None:
    texts = ["", "NA", "n/a", "NaN", "null", "None", " na ", None]
    assert parsed(texts, kind) == [None] * 8
    assert parsed([*texts, "no such"], kind)[-1] is BAD


@pytest.mark.parametrize("kind", ["category", "string"])
def test_in_a_text_column_only_the_empty_text_is_missing(kind: ColumnType) -> None:
    assert parsed(["", "NA", " a ", None], kind) == [None, "NA", " a ", None]


def test_infinity_is_faulty_and_nan_is_missing() -> None:
    assert parsed(["inf", "-Infinity", "1e999", "1"], "float") == [BAD, BAD, BAD, 1]
    assert parsed([math.inf, math.nan, 1.0], "float") == [BAD, None, 1]


def test_a_whole_float_is_an_integer_and_no_other() -> None:
    texts = ["1", "2.0", "3.", "2.5", "1e3", "007", "9223372036854775808", "0x10"]
    assert parsed(texts, "integer") == [1, 2, 3, BAD, BAD, 7, BAD, BAD]
    assert parsed(["0x10", "3"], "integer") == [BAD, 3]
    assert parsed([1.0, 2.5, 1e30, math.nan], "integer") == [1, BAD, BAD, None]
    assert parsed(pa.array([2**63, 5], pa.uint64()), "integer") == [BAD, 5]
    assert parsed([2**62 + 1], "integer") == [2**62 + 1]
    assert parsed([Decimal("1.50"), Decimal("2")], "integer") == [BAD, 2]


@pytest.mark.parametrize("source", [pa.decimal128(38, 2), pa.decimal256(50, 2)])
def test_a_decimal_keeps_all_its_digits(source: Any) -> None:
    largest = [Decimal(2**63 - 1), Decimal(-(2**63)), None]
    beyond = [Decimal(2**63), Decimal("9007199254740993.5")]
    assert parsed(pa.array(largest, source), "integer") == largest
    assert parsed(pa.array([*largest, *beyond], source), "integer") == [*largest, BAD, BAD]
    assert parsed(pa.array(beyond, source), "string") == [
        "9223372036854775808.00", "9007199254740993.50"
    ]  # fmt: skip


def test_a_decimal_of_few_digits_is_what_it_would_be_with_many() -> None:
    for source in (pa.decimal32(5, 2), pa.decimal64(5, 2), pa.decimal128(5, 2)):
        values = pa.array([Decimal("1.50"), Decimal(2), None], source)
        assert parsed(values, "integer") == [BAD, 2, None]
        assert parsed(values, "float") == [1.5, 2, None]
        assert parsed(values, "category") == ["1.50", "2.00", None]


def test_the_largest_unsigned_integers_keep_their_digits() -> None:
    values = pa.array([2**63 - 1, 2**63, None], pa.uint64())
    assert parsed(values, "integer") == [2**63 - 1, BAD, None]
    assert parsed(values, "category") == ["9223372036854775807", "9223372036854775808", None]


def test_booleans() -> None:
    texts = ["true", "FALSE", "1", "0", "1.0", "yes", "2"]
    assert parsed(texts, "boolean") == [True, False, True, False, True, BAD, BAD]
    assert parsed([1, 0, 2], "boolean") == [True, False, BAD]
    assert parsed([1.0, 0.5, math.nan], "boolean") == [True, BAD, None]
    assert parsed([True, None], "float") == [1.0, None]


def test_times_in_text_become_utc() -> None:
    texts = {
        "2024-02-29": utc(2024, 2, 29),
        "2024-02-29 05": utc(2024, 2, 29, 5),
        "2024-02-29 05:06": utc(2024, 2, 29, 5, 6),
        "2024-02-29T05:06:07": utc(2024, 2, 29, 5, 6, 7),
        "2024-02-29T05:06:07.5Z": utc(2024, 2, 29, 5, 6, 7, 500_000),
        "2024-02-29 05:06:07,25": utc(2024, 2, 29, 5, 6, 7, 250_000),
        "2024-02-29 05:06:07.123456789": utc(2024, 2, 29, 5, 6, 7, 123_456),
        "2024-02-29 05:06:07+02:00": utc(2024, 2, 29, 3, 6, 7),
        "2024-02-29 05:06:07 -0230": utc(2024, 2, 29, 7, 36, 7),
    }
    assert parsed(list(texts), "datetime") == list(texts.values())
    for text, moment in texts.items():
        assert parsed([text], "datetime") == [moment], text


@pytest.mark.parametrize(
    "text",
    ["1709182800", "1709182800000", "20240229", "2024-02-30", "29/02/2024", "2024-2-9", "05:06",
     "2024-02-29 25:00", "yesterday", "2024-02-29 05:06:07 CET", "0001-01-01T00:00:00+05:00"],
)  # fmt: skip
def test_what_is_not_iso_8601_is_no_time(text: str) -> None:
    assert parsed([text], "datetime") == [BAD]
    assert parsed(["2024-01-01", text], "datetime") == [utc(2024, 1, 1), BAD]


def test_numbers_are_never_times() -> None:
    assert parsed([1709182800], "datetime") == [BAD]


def test_typed_times_become_utc_microseconds() -> None:
    at = datetime(2024, 2, 29, 5, 6, 7)
    assert parsed(pa.array([at], pa.timestamp("s")), "datetime") == [at.replace(tzinfo=UTC)]
    abroad = pa.array([at], pa.timestamp("ms", "America/New_York"))
    assert parsed(abroad, "datetime") == [utc(2024, 2, 29, 5, 6, 7)]
    assert parsed(pa.array([1_500], pa.timestamp("ns")), "datetime") == [
        utc(1970, 1, 1, 0, 0, 0, 1)
    ]
    assert parsed([date(2024, 2, 29)], "datetime") == [utc(2024, 2, 29)]
    assert parsed(pa.array([10**15], pa.timestamp("s")), "datetime") == [BAD]


def test_typed_values_as_text() -> None:
    assert parsed([True, False], "category") == ["true", "false"]
    assert parsed([1, 2], "category") == ["1", "2"]
    assert parsed([1.0, 2.5, math.nan], "category") == ["1", "2.5", None]
    for source in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1)):
        values = pa.array([b"a", b"\xff", None], source)
        assert parsed(values, "string") == ["a", BAD, None]
        assert parsed(values, "float") == [BAD, BAD, None]
    assert parsed(pa.array(["a", "b", "a"]).dictionary_encode(), "category") == ["a", "b", "a"]
    for views in (pa.string_view(), pa.binary_view()):
        texts = pa.array(["a", "b"]).cast(views)
        levels = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), texts)
        assert parsed(levels, "category") == ["b", None, "a"]
        many = parse(pa.chunked_array([levels, levels.slice(2)]), "category")
        assert many.values.to_pylist() == ["b", None, "a", "a"]
    assert parsed(pa.array(["a"], pa.large_string()), "string") == ["a"]


SPANS = [pa.time64("us"), pa.duration("s"), pa.month_day_nano_interval()]
KEYS = [UUID("0F655568-052F-47B4-B2CD-5CFDC27C2067"), None, UUID(int=0), UUID(int=2**128 - 1)]


def test_a_uuid_is_its_usual_text() -> None:
    texts = [
        "0f655568-052f-47b4-b2cd-5cfdc27c2067", None, "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ]  # fmt: skip
    keys = pa.array(KEYS, pa.uuid())
    assert parsed(keys, "string") == parsed(keys, "category") == texts
    assert parsed(keys.slice(1, 2), "string") == texts[1:3]
    assert parsed(keys.slice(0, 0), "string") == []
    assert parse(pa.chunked_array([keys, keys]), "string").values.to_pylist() == texts * 2
    levels = pa.DictionaryArray.from_arrays(pa.array([3, None, 0, 1]), keys)
    assert parsed(levels, "category") == [texts[3], None, texts[0], None]


@pytest.mark.parametrize("kind", ["float", "integer", "boolean", "datetime"])
def test_a_uuid_is_nothing_but_text(kind: ColumnType) -> None:
    assert parsed(pa.array(KEYS, pa.uuid()), kind) == [BAD, None, BAD, BAD]


def test_another_extension_type_is_what_it_is_stored_as() -> None:
    def extension(kind: Any, values: list[Any]) -> Any:
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))

    assert parsed(extension(pa.json_(), ['{"a": 1}', None]), "string") == ['{"a": 1}', None]
    assert parsed(extension(pa.bool8(), [1, 0, None]), "boolean") == [True, False, None]
    assert parsed(extension(pa.fixed_shape_tensor(pa.int8(), [1]), [[1]]), "float") == [BAD]


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("source", SPANS)
def test_a_time_of_day_or_a_span_is_of_no_type(source: Any, kind: ColumnType) -> None:
    assert parsed(pa.array([None], source), kind) == [None]
    value = pa.array([(1, 2, 3)], source) if "interval" in str(source) else pa.array([1], source)
    assert parsed(value, kind) == [BAD]


@pytest.mark.parametrize("kind", list(TYPES))
def test_nested_values_are_faulty_and_nothing_is_missing_everywhere(kind: ColumnType) -> None:
    assert parsed([[1], None], kind) == [BAD, None]
    assert parsed(pa.nulls(2), kind) == [None, None]
    assert parsed(pa.array([], pa.string()), kind) == []


def test_times_are_text_as_their_type_shows_them() -> None:
    assert parsed([date(2024, 2, 29)], "category") == ["2024-02-29"]
    abroad = pa.array([0, None], pa.timestamp("ms", "Asia/Tokyo"))
    assert parsed(abroad, "string") == ["1970-01-01 09:00:00.000+0900", None]
    nowhere = pa.array([0, None], pa.timestamp("ms", "no/where"))
    assert parsed(nowhere, "string") == [BAD, None]
    assert parsed(nowhere, "datetime") == [utc(1970, 1, 1), None]
    for source in (pa.timestamp("s"), pa.timestamp("us", "UTC"), pa.date64()):
        values = pa.array([0, 2**62, None], pa.int64()).view(source)
        assert parsed(values, "string")[1:] == [BAD, None]


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_a_moment_beyond_all_calendars_is_faulty_and_does_not_wrap_round(unit: str) -> None:
    values = pa.array([0, 2**60, -(2**62), None], pa.timestamp(unit, "UTC"))
    parsed = parse(values, "datetime")
    assert parsed.values.to_pylist() == [datetime(1970, 1, 1, tzinfo=UTC), None, None, None]
    assert parsed.faulty is not None
    assert parsed.faulty.tolist() == [False, True, True, False]


def test_a_date_beyond_all_calendars_is_faulty() -> None:
    parsed = parse(pa.array([1, 2**31 - 1], pa.int32()).cast(pa.date32()), "datetime")
    assert parsed.values.to_pylist() == [datetime(1970, 1, 2, tzinfo=UTC), None]
