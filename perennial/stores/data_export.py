"""A version's rows as Parquet files for other tools: the same rows give the same bytes.

Written in canonical order, with fixed settings, and with nothing of the moment or the machine, so
that what pins files by their content (DVC, lakeFS, git-annex) sees the same version each time. The
bytes also depend on the version of pyarrow that writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from perennial.contracts.data_versions import DataExport
from perennial.stores import engine, lake
from perennial.stores.exports import new_export
from perennial.stores.folders import folder_digest
from perennial.stores.history import at_version
from perennial.stores.staging import ROW

_GROUP_ROWS = 131_072
_FILE_ROWS = 8 * _GROUP_ROWS


def export_version(
    table_uri: str, version: int, model: str, place: Path, force: bool
) -> DataExport:
    """Write a version's rows below ``place``: ``data-00000.parquet`` and so on, and the note
    ``.perennial-export``.

    Rows are ordered by event time and the rest of the identity, or as in the source without one.
    Memory is bounded. Raises InputError as ``at_version`` and ``exports.check_place``; nothing is
    changed then.
    """
    table = at_version(table_uri, version)
    schema = lake.schema_of(table)
    order = _order(table, schema)
    names = [name for name in schema.names if name != ROW]
    kept = pa.schema([schema.field(name).remove_metadata() for name in names])
    about = {"model": model, "to": "data", "version": version}
    with new_export(place, about, force) as folder:
        with engine.connect(engine.spill_place(table_uri)) as connection:
            rows = lake.relation(connection, table, table_uri)
            query = f"SELECT {engine.names(names)} FROM {rows} ORDER BY {engine.names(order)}"
            reader = connection.sql(query).to_arrow_reader(_GROUP_ROWS)
            files, count = _write(reader, kept, folder)
        digest = folder_digest(folder)
    return DataExport(folder=str(place), version=version, rows=count, files=files, digest=digest)


def _order(table: Any, schema: Any) -> list[str]:
    if ROW in schema.names:
        return [ROW]
    by = lake.about(table).get("identity") or schema.names
    return [name for name in by if name in schema.names]


def _write(reader: Any, schema: Any, folder: Path) -> tuple[tuple[str, ...], int]:
    """Row groups end where the rows' numbers say so, however the reader's batches fall."""
    files: list[str] = []
    count = 0
    writer = None
    try:
        for group in _groups(reader, schema):
            if count % _FILE_ROWS == 0:
                if writer is not None:
                    writer.close()
                files.append(f"data-{len(files):05}.parquet")
                writer = pq.ParquetWriter(
                    folder / files[-1], schema, compression="zstd", store_schema=False
                )
            assert writer is not None
            writer.write_table(group, row_group_size=_GROUP_ROWS)
            count += group.num_rows
    finally:
        if writer is not None:
            writer.close()
    return tuple(files), count


def _groups(reader: Any, schema: Any) -> Iterator[Any]:
    waiting: Any = schema.empty_table()
    for batch in reader:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch]).cast(schema)])
        while waiting.num_rows >= _GROUP_ROWS:
            yield waiting.slice(0, _GROUP_ROWS).combine_chunks()
            waiting = waiting.slice(_GROUP_ROWS)
    if waiting.num_rows:
        yield waiting.combine_chunks()
