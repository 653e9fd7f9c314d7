"""The file format: what was appended is read back, what is torn or damaged is known as such."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from perennial.contracts.errors import IntegrityError
from perennial.stores.predictions import Record, read_segment
from perennial.stores.predictions.segments import (
    Opening,
    Segment,
    SegmentWriter,
    read_head,
    read_opening,
    seal_left,
)
from tests.logged import label_rows, prediction_rows

OPENING = Opening("s", 1, "m", "predictions", created_at=1_700_000_000.5, seed=42)


def append(writer: SegmentWriter, batch: pa.RecordBatch, header: bytes = b"{}") -> None:
    writer.append(batch.schema, batch.serialize(), header, shadowed=b"shadow" in header)


def ids(records: list[Record]) -> list[str]:
    return [id for record in records for id in record.batch["_id"].to_pylist()]


@pytest.fixture
def writer(tmp_path: Path) -> SegmentWriter:
    return SegmentWriter(tmp_path / "1.segment", OPENING)


def test_records_of_several_schemas_are_read_back_in_order(writer: SegmentWriter) -> None:
    first = prediction_rows(["a", "b"], {"amount": [1.0, None]})
    other = prediction_rows(["c"], {"amount": ["x"], "country": ["de"]}, version=2)
    append(writer, first, b'{"unseen":{"country":1}}')
    append(writer, other)
    append(writer, first.slice(1))
    read = list(read_segment(writer.path))
    assert [record.header for record in read] == [{"unseen": {"country": 1}}, {}, {}]
    assert [record.batch for record in read] == [first, other, first.slice(1)]


def test_a_schema_is_written_once(writer: SegmentWriter) -> None:
    batch = prediction_rows(["a"])
    append(writer, batch)
    size = writer.size
    append(writer, batch)
    second = writer.size - size
    assert second < batch.serialize().size + 64


def test_all_rows_of_one_schema_come_as_one_table(writer: SegmentWriter) -> None:
    for i in range(3):
        append(writer, prediction_rows([f"a{i}"], {"x": [float(i)]}))
        append(writer, prediction_rows([f"b{i}"], {"x": [str(i)]}))
    tables = list(Segment(writer.path).tables())
    assert [table["_id"].to_pylist() for table in tables] == [
        ["a0", "a1", "a2"],
        ["b0", "b1", "b2"],
    ]
    assert [table["x"].to_pylist() for table in tables] == [[0.0, 1.0, 2.0], ["0", "1", "2"]]


def test_a_tail_torn_at_any_byte_costs_only_the_record_it_is_in(writer: SegmentWriter) -> None:
    append(writer, label_rows(["a"]))
    append(writer, label_rows(["b"]))
    end = writer.size
    append(writer, label_rows(["c"]))
    content = writer.path.read_bytes()
    for length in range(end, len(content)):
        writer.path.write_bytes(content[:length])
        assert ids(list(read_segment(writer.path))) == ["a", "b"]


def test_a_file_that_grew_without_its_content_has_a_torn_tail(writer: SegmentWriter) -> None:
    append(writer, prediction_rows(["a"]))
    with writer.path.open("ab") as file:
        file.write(bytes(5000))
    assert ids(list(read_segment(writer.path))) == ["a"]


def test_a_flipped_bit_is_damage_wherever_it_is(writer: SegmentWriter) -> None:
    append(writer, prediction_rows(["a"]))
    start = writer.size
    append(writer, prediction_rows(["b"]))
    end = writer.size
    append(writer, prediction_rows(["c"]))
    content = writer.path.read_bytes()
    for place in range(start, end, 7):
        flipped = bytearray(content)
        flipped[place] ^= 0x10
        writer.path.write_bytes(flipped)
        with pytest.raises(IntegrityError) as error:
            read_segment(writer.path)
        assert str(error.value) == f"{writer.path}: {end - start:,} bytes are damaged"
        assert ids(list(Segment(writer.path).records())) == ["a", "c"]


def test_records_whose_schema_is_damaged_are_damaged(writer: SegmentWriter) -> None:
    append(writer, prediction_rows(["a"]))
    start = writer.size
    append(writer, prediction_rows(["b"], {"x": [1.0]}))
    append(writer, prediction_rows(["c"], {"x": [1.0]}))
    end = writer.size
    append(writer, prediction_rows(["d"]))
    content = bytearray(writer.path.read_bytes())
    content[start + 30] ^= 1
    writer.path.write_bytes(content)
    segment = Segment(writer.path)
    assert ids(list(segment.records())) == ["a", "d"]
    assert segment.damaged_bytes == end - start


def test_a_sealed_segment_has_no_torn_tail(writer: SegmentWriter) -> None:
    append(writer, prediction_rows(["a"]))
    end = writer.size
    append(writer, prediction_rows(["b"]))
    writer.seal()
    assert read_head(writer.path) == (writer.size, False)
    with writer.path.open("r+b") as file:
        file.truncate(writer.size - 1)
    segment = Segment(writer.path)
    assert ids(list(segment.records())) == ["a"]
    assert segment.damaged_bytes == writer.size - end


def test_a_value_that_holds_a_whole_frame_is_not_taken_for_one(
    writer: SegmentWriter, tmp_path: Path
) -> None:
    forger = SegmentWriter(tmp_path / "2.segment", Opening("s", 2, "m", "predictions", 0.0, 43))
    append(forger, prediction_rows(["forged"]))
    frames = forger.path.read_bytes()
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, len(frames))))
    value = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(frames))
    append(writer, prediction_rows(["a"], {"text": ["harmless"]}))
    append(writer, prediction_rows(["b"], {"text": value}))
    content = writer.path.read_bytes()
    writer.path.write_bytes(content[:-1])
    assert ids(list(read_segment(writer.path))) == ["a"]


def test_what_a_dead_writer_left_is_sealed_at_its_torn_tail(writer: SegmentWriter) -> None:
    append(writer, prediction_rows(["a"]), b'{"shadow":[2]}')
    end = writer.size
    append(writer, prediction_rows(["b"]))
    with writer.path.open("r+b") as file:
        file.truncate(writer.size - 5)
    assert read_head(writer.path).sealed_bytes == 0
    assert seal_left(writer.path)
    assert read_head(writer.path) == (end, True)
    assert writer.path.stat().st_size == end
    assert ids(list(read_segment(writer.path))) == ["a"]
    assert not seal_left(writer.path)


def test_a_damaged_segment_is_sealed_with_its_damage(writer: SegmentWriter) -> None:
    append(writer, prediction_rows(["a"]))
    start = writer.size
    append(writer, prediction_rows(["b"]))
    append(writer, prediction_rows(["c"]))
    with writer.path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(64))
    assert seal_left(writer.path)
    with pytest.raises(IntegrityError):
        read_segment(writer.path)
    assert ids(list(Segment(writer.path).records())) == ["a", "c"]


@pytest.mark.parametrize("length", [0, 5, 24, 60, None])
def test_a_file_without_a_record_is_removed(writer: SegmentWriter, length: int | None) -> None:
    with writer.path.open("r+b") as file:
        file.truncate(writer.size if length is None else length)
    assert not seal_left(writer.path)
    assert not writer.path.exists()


def test_a_segment_says_whose_it_is(writer: SegmentWriter) -> None:
    assert read_opening(writer.path) == OPENING
    assert Segment(writer.path).opening == OPENING


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.segment"
    path.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(IntegrityError) as error:
        read_segment(path)
    assert str(error.value) == f"{path}: is no segment of a prediction log"
