"""What is appended is read back; what is torn or flipped is never read as something else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.stores.predictions.columns import Layout
from perennial.stores.predictions.segments import (
    Opening,
    Segment,
    SegmentWriter,
    read_segment,
    seal_left,
)

OPENING = Opening("s", 1, "m", "predictions", created_at=0.0, seed=7)
COLUMNS = {
    "float": (pa.float64(), st.floats(allow_nan=False)),
    "integer": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "string": (pa.string(), st.text(max_size=20)),
    "boolean": (pa.bool_(), st.booleans()),
    "list": (pa.list_(pa.float64()), st.lists(st.floats(allow_nan=False), max_size=3)),
}


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, unique=True))
    rows = draw(st.integers(1, 4))
    arrays = []
    for name in names:
        kind, values = COLUMNS[name]
        column = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        arrays.append(pa.array(column, kind))
    return pa.RecordBatch.from_arrays(arrays, names=names)


def written(folder: str, records: list[pa.RecordBatch]) -> tuple[SegmentWriter, list[int]]:
    """A segment with these records, and where each of them ends."""
    writer = SegmentWriter(Path(folder) / "1.segment", OPENING)
    ends = []
    for i, batch in enumerate(records):
        writer.append(batch.schema, batch.serialize(), b'{"n":%d}' % i, shadowed=False)
        ends.append(writer.size)
    return writer, ends


@settings(deadline=None, max_examples=60)
@given(st.lists(batches(), min_size=1, max_size=6))
def test_records_are_read_back_as_they_were(records: list[pa.RecordBatch]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer, _ = written(folder, records)
        writer.seal()
        read = list(read_segment(writer.path))
        assert [record.header["n"] for record in read] == list(range(len(records)))
        assert [record.batch for record in read] == records
        rows = sum(table.num_rows for table in Segment(writer.path).tables())
        assert rows == sum(batch.num_rows for batch in records)


@settings(deadline=None, max_examples=60)
@given(st.lists(batches(), min_size=1, max_size=6), st.data())
def test_after_a_cut_anywhere_exactly_the_whole_records_are_left(
    records: list[pa.RecordBatch], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer, ends = written(folder, records)
        length = data.draw(st.integers(ends[0], ends[-1]))
        with writer.path.open("r+b") as file:
            file.truncate(length)
        assert seal_left(writer.path)
        whole = [batch for batch, end in zip(records, ends, strict=True) if end <= length]
        assert [record.batch for record in read_segment(writer.path)] == whole


@settings(deadline=None, max_examples=60)
@given(st.lists(batches(), min_size=1, max_size=6), st.data())
def test_what_a_flipped_bit_leaves_is_a_part_of_what_was_written(
    records: list[pa.RecordBatch], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer, ends = written(folder, records)
        writer.seal()
        start = Segment(writer.path).path.read_bytes().index(b"}") + 1  # behind the first frame
        content = bytearray(writer.path.read_bytes())
        content[data.draw(st.integers(start, ends[-1] - 1))] ^= 1 << data.draw(st.integers(0, 7))
        writer.path.write_bytes(content)
        segment = Segment(writer.path)
        assert segment.damaged_bytes > 0
        left = {record.header["n"]: record.batch for record in segment.records()}
        assert len(left) < len(records)
        assert all(records[n] == batch for n, batch in left.items())


TYPES = st.sampled_from([kind for kind, _ in COLUMNS.values()])
SCHEMAS = st.lists(
    st.tuples(st.sampled_from(["x", "X", "y", "x__string", "_date"]), TYPES), min_size=1, max_size=5
)


@settings(deadline=None, max_examples=200)
@given(st.lists(SCHEMAS, min_size=1, max_size=4))
def test_every_column_finds_a_place_of_its_type_that_it_keeps(
    schemas: list[list[tuple[str, pa.DataType]]],
) -> None:
    table: dict[str, pa.DataType] = {}
    for columns in schemas:
        layout = Layout(pa.schema(list(table.items())))
        places = layout.place(pa.schema(columns))
        assert len({place.lower() for place in places}) == len(places)
        assert "_date" not in {place.lower() for place in places}
        for place, (_, kind) in zip(places, columns, strict=True):
            assert table.setdefault(place, kind) == kind
        assert len({name.lower() for name in table}) == len(table)
        assert Layout(pa.schema(list(table.items()))).place(pa.schema(columns)) == places
