"""A request's body as an Arrow table, without trusting it.

A few bytes of Arrow can stand for more rows, longer texts and deeper lists than any memory holds:
compressed buffers, dictionaries and views that show one text ten thousand times, lists of a billion
nulls. So what a body unfolds to is known before it is unfolded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.errors import InputError, Problem
from perennial.data.parsing import UUID_LENGTH, is_text, unwrapped
from perennial.serving.replies import Refusal
from perennial.spec.values import shown

_MOST_MESSAGES = 1_000
_MOST_COLUMNS = 10_000
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def read_arrow(body: bytes, *, most_rows: int, most_bytes: int) -> pa.Table:
    """The table of an Arrow IPC stream, each column in its type, but all text as string, and
    nothing in dictionaries or extension types: nobody knows yet what a column is declared as, and
    a decimal is other text than its float. Every buffer is checked.

    Raises Refusal when the body is no such stream, is compressed, goes on after the stream's end,
    or unfolds to more than ``most_rows`` rows or ``most_bytes`` bytes of text and decimals;
    InputError naming each column whose type no column of a model has.
    """
    try:
        _check_messages(body)
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            _check_types(reader.schema)
            table = pa.Table.from_batches(_batches(reader, most_rows), reader.schema)
        table.validate(full=True)
        return _plain(table, most_bytes)
    except (pa.ArrowException, ValueError, OSError, MemoryError, OverflowError) as error:
        reason = (str(error).splitlines() or ["it ends too early"])[0][:200]
        raise _invalid(f"the body is not an Arrow IPC stream: {reason}") from None


def _check_messages(body: bytes) -> None:
    """Refuse compressed buffers, which the reader would unfold unasked, and a second stream, which
    it would not read."""
    source = pa.BufferReader(body)
    try:
        for count, message in enumerate(pa.ipc.MessageReader.open_stream(source)):
            if count >= _MOST_MESSAGES:
                raise _invalid(f"the stream has more than {_MOST_MESSAGES:,} batches")
            if _is_compressed(memoryview(message.metadata)):
                raise _invalid("the stream is compressed; write it with compression=None")
    except (struct.error, IndexError):
        raise _invalid("the body is not an Arrow IPC stream: a message is damaged") from None
    if source.tell() < len(body):
        raise _invalid("the body goes on after the stream's end; send one stream")


def _batches(reader: pa.RecordBatchReader, most_rows: int) -> Iterator[pa.RecordBatch]:
    """Counted one by one: batches may say any number of rows, so that their sum wraps round."""
    rows = 0
    for batch in reader:
        if batch.num_rows < 0:
            raise ValueError("a batch has a negative number of rows")
        rows += batch.num_rows
        if rows > most_rows:
            what = f"{rows:,} rows or more; a request has 1 to {most_rows:,}"
            raise Refusal(413, "too_many_rows", what)
        yield batch


def _check_types(schema: pa.Schema) -> None:
    if len(schema) > _MOST_COLUMNS:
        raise _invalid(f"{len(schema):,} columns; a request has at most {_MOST_COLUMNS:,}")
    problems = [
        Problem(f"column {shown(field.name)}", f"has the type {str(field.type)[:80]}",
                "send numbers, booleans, text, UUIDs or timestamps")
        for field in schema if not _is_known(field.type)
    ]  # fmt: skip
    if problems:
        raise InputError(problems)


def _is_known(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_known(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return isinstance(kind, pa.UuidType) or _is_known(kind.storage_type)
    return is_text(kind) or any(
        is_kind(kind)
        for is_kind in (
            pa.types.is_null,
            pa.types.is_boolean,
            pa.types.is_integer,
            pa.types.is_floating,
            _is_decimal,
            pa.types.is_date,
            pa.types.is_timestamp,
        )
    )


def _is_decimal(kind: Any) -> bool:
    """Beyond these scales Arrow computes nonsense."""
    if not pa.types.is_decimal(kind):
        return False
    longest = {32: 9, 64: 18, 128: 38, 256: 76}[kind.bit_width]
    return bool(-longest <= kind.scale <= longest)


def _plain(table: pa.Table, most_bytes: int) -> pa.Table:
    columns: list[Any] = []
    size = 0
    for column in table.columns:
        size += _unfolded_bytes(column)
        if size > most_bytes:
            what = f"its texts and decimals have more than {most_bytes:,} bytes when written out"
            raise Refusal(413, "too_large", what)
        values = unwrapped(column)
        columns.append(values.cast(pa.string()) if is_text(values.type) else values)
    return pa.table(columns, names=table.column_names)


def _unfolded_bytes(column: pa.ChunkedArray) -> int:
    """How many bytes a column's texts, or decimals, take when each row holds its own; 0 for other
    types."""
    lengths = (_lengths(chunk) for chunk in column.chunks)
    return sum(
        pc.sum(each.cast(pa.int64()), min_count=0).as_py() for each in lengths if each is not None
    )


def _lengths(values: Any) -> Any | None:
    """The bytes of each text or decimal; None for other types."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        distinct = _lengths(values.dictionary)
        return None if distinct is None else distinct.take(values.indices)
    if isinstance(kind, pa.UuidType):
        return pa.repeat(UUID_LENGTH, len(values))
    if isinstance(kind, pa.BaseExtensionType):
        return _lengths(values.storage)
    if pa.types.is_decimal(kind):
        return pa.repeat(kind.byte_width, len(values))
    return _text_lengths(values) if is_text(kind) else None


def _text_lengths(texts: Any) -> Any:
    if not pa.types.is_string_view(texts.type):
        return pc.binary_length(texts)
    views = np.frombuffer(texts.buffers()[1], np.int32)  # 16 bytes each, the length first
    own = views[4 * texts.offset : 4 * (texts.offset + len(texts)) : 4]
    return pc.if_else(texts.is_valid(), pa.array(own), None)


def _is_compressed(metadata: memoryview) -> bool:
    """Whether a message's record batch names a codec: its fourth field, as format/Message.fbs of
    the Arrow specification has it. The metadata are a FlatBuffer."""
    (message,) = struct.unpack_from("<I", metadata, 0)
    kind_at = _field(metadata, message, 1)
    kind = metadata[kind_at] if kind_at else 0
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return False
    batch = _table(metadata, message, 2)
    if kind == _DICTIONARY_BATCH:
        batch = _table(metadata, batch, 1)
    return bool(_field(metadata, batch, 3))


def _field(data: memoryview, table: int, index: int) -> int:
    """Where a field of a FlatBuffer's table is; 0 when it is absent."""
    (back,) = struct.unpack_from("<i", data, table)
    (size,) = struct.unpack_from("<H", data, table - back)
    slot = 4 + 2 * index
    if slot + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", data, table - back + slot)
    return table + offset if offset else 0


def _table(data: memoryview, table: int, index: int) -> int:
    """Where the table is that a field of a table points to."""
    at = _field(data, table, index)
    if not at:
        raise IndexError
    (offset,) = struct.unpack_from("<I", data, at)
    return int(at + offset)


def _invalid(what: str) -> Refusal:
    return Refusal(400, "invalid_arrow", what)
