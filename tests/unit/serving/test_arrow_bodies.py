"""Arrow bodies: what is read, and what is refused before it is unfolded."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from perennial.contracts.errors import InputError
from perennial.serving.arrow_bodies import read_arrow
from perennial.serving.replies import Refusal

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
KEY = UUID("0f655568-052f-47b4-b2cd-5cfdc27c2067")


def _stream(*tables: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink, tables[0].schema, options=pa.ipc.IpcWriteOptions(**options)
    ) as writer:
        for table in tables:
            writer.write_table(table)
    return bytes(sink.getvalue())


def _column(array: Any) -> pa.Table:
    return pa.table({"a": array})


def _read(body: bytes, most_rows: int = 1000, most_bytes: int = 1000) -> pa.Table:
    return read_arrow(body, most_rows=most_rows, most_bytes=most_bytes)


def _refused(body: bytes, **limits: int) -> tuple[int, str]:
    with pytest.raises(Refusal) as refusal:
        _read(body, **limits)
    return refusal.value.status, refusal.value.message


@pytest.mark.parametrize(
    ("array", "kind", "values"),
    [
        (pa.array([1, None], pa.uint64()), pa.uint64(), [1, None]),
        (pa.array([True, None]), pa.bool_(), [True, None]),
        (pa.nulls(2), pa.null(), [None, None]),
        (pa.array([1.5, None], pa.float16()), pa.float16(), [1.5, None]),
        (pa.array([1.5, None], pa.float32()), pa.float32(), [1.5, None]),
        (pa.array([Decimal("1.50")]), pa.decimal128(3, 2), [Decimal("1.50")]),
        (pa.array(["é", None], pa.large_string()), pa.string(), ["é", None]),
        (pa.array(["é", None, "x" * 20], pa.string_view()), pa.string(), ["é", None, "x" * 20]),
        (pa.array(["é", None, "é"]).dictionary_encode(), pa.string(), ["é", None, "é"]),
        (pa.array([7, None, 7]).dictionary_encode(), pa.int64(), [7, None, 7]),
        (pa.array([date(2026, 1, 1)]), pa.date32(), [date(2026, 1, 1)]),
        (pa.array([NEW_YEAR], pa.timestamp("s", "UTC")), pa.timestamp("s", "UTC"), [NEW_YEAR]),
    ],
)  # fmt: skip
def test_columns_keep_their_types_but_for_the_kinds_of_text_and_what_is_around_values(
    array: Any, kind: pa.DataType, values: list[Any]
) -> None:
    column = _read(_stream(_column(array)))["a"]

    assert column.type == kind
    assert column.to_pylist() == values


def test_a_stream_of_many_batches_is_one_table() -> None:
    texts = [_column(pa.array([text]).dictionary_encode()) for text in ("a", "b", "a")]

    assert _read(_stream(*texts))["a"].to_pylist() == ["a", "b", "a"]


def test_a_part_of_a_larger_array_is_read_as_itself() -> None:
    views = pa.array(["x" * 30, "y" * 30, None, "z"], pa.string_view())

    assert _read(_stream(_column(views).slice(1, 3)))["a"].to_pylist() == ["y" * 30, None, "z"]


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_streams_are_refused_by_their_metadata(codec: str) -> None:
    numbers = _stream(_column(pa.array([1.0] * 1000)), compression=codec)
    texts = _stream(_column(pa.array(["long enough"]).dictionary_encode()), compression=codec)

    for body in (numbers, texts):
        assert _refused(body) == (400, "the stream is compressed; write it with compression=None")


@pytest.mark.parametrize("kind", ["string", "dictionary", "string_view", "json", "opaque"])
def test_texts_are_measured_as_if_each_row_held_its_own(kind: str) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 10, pa.int8()), ["x" * 101])
    forms = {
        "dictionary": texts,
        "string": texts.cast(pa.string()),
        "string_view": texts.cast(pa.string()).cast(pa.string_view()),
        "json": pa.ExtensionArray.from_storage(pa.json_(), texts.cast(pa.string())),
        "opaque": pa.ExtensionArray.from_storage(pa.opaque(texts.type, "text", "shop"), texts),
    }

    assert _refused(_stream(_column(forms[kind]))) == (
        413, "its texts and decimals have more than 1,000 bytes when written out",
    )  # fmt: skip
    assert len(_read(_stream(_column(forms[kind])), most_bytes=1010)) == 10


def test_a_uuid_is_measured_as_its_text() -> None:
    keys = _stream(_column(pa.array([KEY] * 10, pa.uuid())))

    assert _refused(keys, most_bytes=359)[0] == 413
    assert len(_read(keys, most_bytes=360)) == 10


def test_decimals_are_measured_as_if_each_row_held_its_own() -> None:
    decimals = pa.array([Decimal(1)], pa.decimal256(50, 2))
    body = _stream(_column(pa.DictionaryArray.from_arrays(pa.array([0] * 32, pa.int8()), decimals)))

    assert _refused(body, most_bytes=1023)[0] == 413
    assert len(_read(body, most_bytes=1024)) == 32


def test_rows_are_counted_over_all_batches() -> None:
    batches = [_column(pa.nulls(400))] * 3

    assert _refused(_stream(*batches)) == (413, "1,200 rows or more; a request has 1 to 1,000")


@pytest.mark.parametrize("count", [-1, 2**62, 2**63 - 1])
def test_a_batch_may_say_any_number_of_rows(count: int) -> None:
    body = _stream(_column(pa.nulls(77)))
    changed = body.replace(struct.pack("<q", 77), struct.pack("<q", count))

    status, message = _refused(changed)

    assert changed != body
    assert (status, "rows" in message) == (413 if count > 0 else 400, True)


def test_counts_that_wrap_round_to_few_rows_are_counted_one_by_one() -> None:
    body = _stream(*[_column(pa.nulls(77))] * 4)
    changed = body.replace(struct.pack("<q", 77), struct.pack("<q", 2**62))

    assert _refused(changed)[0] == 413


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.int8()), pa.list_(pa.null(), 4), pa.struct([("b", pa.int8())]), pa.binary(),
     pa.binary(4), pa.duration("s"), pa.time64("us"), pa.month_day_nano_interval(),
     pa.fixed_shape_tensor(pa.int8(), [2]), pa.dictionary(pa.int8(), pa.duration("s")),
     pa.run_end_encoded(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.binary())],
    ids=str,
)  # fmt: skip
def test_a_type_that_no_column_has_is_refused_by_name(kind: pa.DataType) -> None:
    table = pa.table({"fine": [1], "a": pa.nulls(1, kind)})

    with pytest.raises(InputError) as error:
        _read(_stream(table))

    (problem,) = error.value.problems
    assert (problem.where, problem.what) == ("column 'a'", f"has the type {kind}")


def test_a_billion_nulls_in_one_row_are_not_counted_out() -> None:
    kind = pa.list_(pa.null(), 2**31 - 1)
    nulls = pa.Array.from_buffers(kind, 1, [None], children=[pa.nulls(2**31 - 1)])

    with pytest.raises(InputError, match="fixed_size_list"):
        _read(_stream(_column(nulls)))


@pytest.mark.parametrize("scale", [-39, 39, 10**9])
def test_a_decimal_of_a_scale_that_arrow_does_not_compute_with_is_refused(scale: int) -> None:
    kind = pa.decimal128(5, scale)
    values = pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(bytes(16))])

    with pytest.raises(InputError) as error:
        _read(_stream(_column(values)))

    assert error.value.problems[0].what == f"has the type {kind}"


def test_a_body_is_one_stream() -> None:
    body = _stream(_column(pa.array([1.0])))

    for rest in (body, b"\0", b"\n"):
        assert _refused(body + rest) == (
            400, "the body goes on after the stream's end; send one stream",
        )  # fmt: skip
    unended = body[:-8]
    assert _read(unended)["a"].to_pylist() == [1.0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda body: body[:0], "Tried reading schema message, was null or length 0"),
        (lambda body: body[:100], "Expected to read"),
        (lambda body: b"ARROW1\0\0" + body, "Expected to read"),
        (lambda body: b"PAR1" + body, "Expected to read"),
        (lambda body: body.replace(b"\xe2\x82\xac", b"\xe2\x82\x00"), "Invalid UTF8"),
        (lambda body: body.replace(b"name", b"\xff\xff\xff\xff"), "can't decode"),
    ],
)
def test_a_damaged_stream_says_what_is_wrong(damage: Any, message: str) -> None:
    body = _stream(pa.table({"name": ["€"]}))

    status, told = _refused(damage(body))

    assert status == 400
    assert told.startswith("the body is not an Arrow IPC stream: ")
    assert message in told
    assert len(told) < 300
