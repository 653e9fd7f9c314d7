"""What a request brings means what training reads in it, whatever its type and how many rows."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perennial.contracts.errors import InputError
from perennial.contracts.features import ColumnType, FeatureSchema, InputColumn
from perennial.data.frames import Rows, canonical_frame, table_rows
from perennial.data.parsing import TYPES
from perennial.serving.arrow_bodies import read_arrow
from perennial.serving.batching import INLINE_ROWS
from perennial.serving.open_inference import _rows as tensor_rows
from perennial.serving.rows import Reads, RequestRows, from_table
from perennial.spec import parse_spec

KINDS = st.sampled_from(list(TYPES))
COUNTS = st.sampled_from([1, 2, INLINE_ROWS, INLINE_ROWS + 1])
BITS = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
TEXTS = st.sampled_from(["", "NA", "x", "1", "0.1", " 2 ", "true", "2026-03-01", "é"])
ZONES = st.sampled_from([None, "UTC", "Asia/Tokyo", "+07:30", "no/where", "../../etc/passwd"])
UNITS = st.sampled_from(["s", "ms", "us", "ns"])
MOMENTS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2 * 10**9)


def whole(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) | st.integers(-1, 2)


def of(kind: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values | st.none(), min_size=1, max_size=4).map(lambda v: pa.array(v, kind))


def seen_as(kind: Any, stored: Any, values: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    return of(stored, values).map(lambda array: array.view(kind))


@st.composite
def decimals(draw: st.DrawFn) -> Any:
    make, most = draw(st.sampled_from(
        [(pa.decimal32, 9), (pa.decimal64, 18), (pa.decimal128, 38), (pa.decimal256, 76)]
    ))  # fmt: skip
    precision = draw(st.integers(1, most))
    scale = draw(st.integers(-2, precision))
    numbers = st.integers(-(10**precision) + 1, 10**precision - 1) | st.just(0)
    exact = numbers.map(lambda number: Decimal((number < 0, digits(number), -scale)))
    return draw(of(make(precision, scale), exact))


def digits(number: int) -> tuple[int, ...]:
    return tuple(map(int, str(abs(number))))


ARRAYS = st.one_of(
    st.integers(1, 4).map(pa.nulls),
    of(pa.bool_(), st.booleans()),
    *(of(kind, whole(bits)) for bits, kind in BITS.items()),
    of(pa.uint8(), st.integers(0, 2**8 - 1)),
    of(pa.uint16(), st.integers(0, 2**16 - 1)),
    of(pa.uint32(), st.integers(0, 2**32 - 1)),
    of(pa.uint64(), st.integers(0, 2**64 - 1)),
    of(pa.float16(), st.floats(width=16) | st.sampled_from([0.5, 1.0])),
    of(pa.float32(), st.floats(width=32) | st.sampled_from([0.5, 1.0])),
    of(pa.float64(), st.floats() | st.sampled_from([0.1, 1.0])),
    decimals(),
    *(of(kind, TEXTS) for kind in (pa.string(), pa.large_string(), pa.string_view())),
    of(pa.uuid(), st.uuids()),
    seen_as(pa.date32(), pa.int32(), whole(32)),
    seen_as(pa.date64(), pa.int64(), whole(36).map(lambda day: day * 86_400_000)),
    st.builds(pa.timestamp, UNITS, ZONES).flatmap(lambda kind: seen_as(kind, pa.int64(), MOMENTS)),
)
LEVELS = st.builds(
    lambda array, places: pa.DictionaryArray.from_arrays(
        pa.array([None if place is None else place % len(array) for place in places], pa.int8()),
        array,
    ),
    ARRAYS.filter(lambda array: array.type != pa.uuid()),  # of which Arrow reads no dictionary
    st.lists(st.integers(0, 3) | st.none(), min_size=1, max_size=4),
)
TENSORS = {
    "BOOL": np.bool_, "INT8": np.int8, "UINT64": np.uint64, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
NUMBERS = [0, 1, 0.1, 0.5, -2.5, 100, 2**24 + 1, np.nan, np.inf]


def outcome(rows: Callable[[], Rows], column: InputColumn) -> Any:
    """The values in the column's type, and as feature code gets them; or where one is wrong."""
    try:
        given = rows()
        return table_rows(given, {"a": column}), canonical_frame(given, {"a": column})
    except InputError as error:
        return [problem.where for problem in error.problems]


def check(brought: Callable[[], RequestRows], array: Any, kind: ColumnType) -> None:
    column = InputColumn(name="a", type=kind, nullable=True)
    schema = FeatureSchema(features=(), inputs=(column,), classes=None)
    spec = parse_spec(
        "{name: m, objective: binary, source: {kind: csv, uri: a.csv, event_time: t}, "
        f"label: {{column: y, delay: 1d}}, columns: {{a: {{type: {kind}}}}}}}"
    )
    reads = Reads(spec, schema, {"a": column})
    found = outcome(lambda: brought().columns(reads), column)
    expected = outcome(lambda: pa.table({"a": array}), column)
    if isinstance(expected, list):
        assert found == expected
    else:
        assert found[0].equals(expected[0])
        pd.testing.assert_frame_equal(found[1], expected[1])


def stream(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@settings(deadline=None, max_examples=600)
@given(ARRAYS | LEVELS, KINDS, COUNTS)
@example(pa.array([0.1], pa.float32()), "category", 1)
@example(pa.array([Decimal("1.50")]), "category", 1)
@example(pa.array([Decimal(2**53 + 1)]), "integer", 1)
@example(pa.array([0], pa.int32()).view(pa.date32()), "string", 1)
@example(pa.array([1], pa.timestamp("s", "no/where")).dictionary_encode(), "float", 1)
def test_an_arrow_column_means_what_it_does_in_a_file(
    array: Any, kind: ColumnType, count: int
) -> None:
    many = pa.concat_arrays([array] * count).slice(0, count)
    body = stream(pa.table({"a": many}))
    check(lambda: from_table(read_arrow(body, most_rows=100, most_bytes=2**20)), many, kind)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(list(TENSORS)), st.lists(st.sampled_from(NUMBERS), min_size=1), KINDS, COUNTS
)
@example("FP32", [0.1], "category", 64)
@example("FP32", [0.1], "category", 65)
def test_a_binary_tensor_means_what_its_array_does_in_a_file(
    datatype: str, numbers: list[float], kind: ColumnType, count: int
) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        array: np.ndarray = np.resize(np.array(numbers), count).astype(TENSORS[datatype])
    data = array.tobytes()
    tensor = {
        "name": "a", "shape": [count], "datatype": datatype,
        "parameters": {"binary_data_size": len(data)},
    }  # fmt: skip
    stored = pa.array(array, from_pandas=True)
    check(lambda: tensor_rows([tensor], memoryview(data), 100), stored, kind)
