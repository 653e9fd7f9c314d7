"""Delta tables: their data files, without the rows that deletion vectors take out of them, and by
the names that the table gives the columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import PyFileSystem

from perennial.contracts.errors import InputError, IntegrityError, Problem
from perennial.spec import ModelSpec
from perennial.stores.sources.batches import Piece
from perennial.stores.sources.columnar import Window, is_moment, read_fragments, within
from perennial.stores.storage.delta import delta_options
from perennial.stores.storage.faults import fault, of_reading
from perennial.stores.storage.places import is_remote

_READ = {"columnMapping", "deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
"""Features of tables that don't change what is read, or that are heeded here."""
_MAPPING = "delta.columnMapping.mode"
_CUT = 1_000
"""Microseconds: statistics may lack what a moment has beyond its milliseconds."""


def delta_state(where: str) -> str:
    """The newest version of a Delta table, and which table it is: ``version 3 of <id>``.

    Raises InputError when there is none, or none that can be read."""
    table = _open(where, None)
    return f"version {table.version()} of {table.metadata().id}"


def delta_columns(where: str, state: str) -> list[str]:
    """The columns of a Delta table in a state. Raises as ``delta_state``."""
    return list(_stored_names(_open(where, _version(state))))


def read_delta(
    spec: ModelSpec, where: str, state: str, wanted: Sequence[str], window: Window
) -> Iterator[Piece]:
    """The rows of a Delta table in a state (``delta_state``), files written earlier first. Raises
    as ``read_parquet``, and IntegrityError for a file that is gone or damaged."""
    from deltalake.exceptions import DeltaError

    table = _open(where, _version(state))
    time = spec.source.event_time
    try:
        files = _Files.of(table, where)
        fragments, kept = files.fragments(time, window), files.kept()
        yield from read_fragments(
            spec, files.schema, fragments, where, wanted, window, files.stored, kept
        )
    except (pa.ArrowInvalid, OSError, DeltaError) as error:
        if of_reading(error, where):
            raise fault(error, where) from None
        what = f"version {table.version()} is not readable: {str(error).splitlines()[0][:200]}"
        raise IntegrityError(Problem(where, what)) from None


def _version(state: str) -> int:
    return int(state.split()[1])


def _open(where: str, version: int | None) -> Any:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        table = DeltaTable(where, version=version, storage_options=delta_options(where))
    except TableNotFoundError:
        raise InputError(Problem(where, "no Delta table")) from None
    except (DeltaError, OSError) as error:
        if is_remote(where) and isinstance(error, OSError):
            raise fault(error, where) from None
        what = f"not readable as a Delta table: {str(error).splitlines()[0][:200]}"
        raise InputError(Problem(where, what)) from None
    needed = set(table.protocol().reader_features or ()) - _READ
    if table.metadata().configuration.get(_MAPPING) == "id":
        needed.add("columnMapping by id")
    if needed:
        what = f"a Delta table that is read with {', '.join(sorted(needed))}, which is not known"
        fix = "write the columns that are needed into a table without"
        raise InputError(Problem(where, what, fix))
    return table


def _stored_names(table: Any) -> dict[str, str]:
    """The columns, each with its name in the data files."""
    mapped = table.metadata().configuration.get(_MAPPING) == "name"
    return {
        field.name: field.metadata["delta.columnMapping.physicalName"] if mapped else field.name
        for field in table.schema().fields
    }


@dataclass(frozen=True, slots=True)
class _Files:
    """A table's data files, as its log has them: ``actions`` has a row for each, ``paths`` are in
    its folder. ``stored`` are the columns with their names in the files, which ``schema`` has."""

    table: Any
    where: str
    stored: Mapping[str, str]
    schema: Any
    actions: Any
    paths: Sequence[str]

    @classmethod
    def of(cls, table: Any, where: str) -> _Files:
        """Raises InputError when some files are not the table's own."""
        stored = _stored_names(table)
        schema = pa.schema(table.schema().to_arrow())
        actions = pa.table(table.get_add_actions(flatten=True))
        # The log has addresses; in them `%` of a folder's name is written as `%25`.
        paths = [unquote(path) for path in actions["path"].to_pylist()]
        other = next((path for path in paths if "://" in path), None)
        if other is not None:
            what = f"a shallow clone: it has files of another table, such as {other}"
            raise InputError(Problem(where, what, "name that table, or make a deep clone"))
        named = pa.schema([field.with_name(stored[field.name]) for field in schema])
        return cls(table, where, stored, named, actions, paths)

    def fragments(self, time: str | None, window: Window) -> list[Any]:
        """The files that may hold rows of the window: those written earlier first, those of one
        time by name."""
        from deltalake.fs import DeltaStorageHandler

        sizes, written = (
            dict(zip(self.paths, self.actions[name].to_pylist(), strict=True))
            for name in ("size_bytes", "modification_time")
        )
        system = PyFileSystem(DeltaStorageHandler(self.where, delta_options(self.where), sizes))
        form, moment = ds.ParquetFileFormat(), self.stored.get(time or "")
        known = zip(self.paths, self._values(), self._moments(moment), strict=True)
        fragments = [
            form.make_fragment(path, system, partition_expression=values & moments)
            for path, values, moments in known
        ]
        dataset = ds.FileSystemDataset(fragments, self.schema, form, system)
        inside = dataset.get_fragments(within(self.schema, moment, *window))
        return sorted(inside, key=lambda each: (written[each.path], each.path))

    def _values(self) -> Iterator[Any]:
        """For each file the values of the columns that the table is divided by: the log has them,
        the file doesn't."""
        names = self.table.metadata().partition_columns
        columns = [self.actions[f"partition.{name}"].to_pylist() for name in names]
        for at in range(len(self.paths)):
            known = ds.scalar(True)
            for name, column in zip(names, columns, strict=True):
                field = self.schema.field(self.stored[name])
                value, stored = pa.scalar(column[at], field.type), ds.field(field.name)
                known &= stored == value if value.is_valid else stored.is_null()
            yield known

    def _moments(self, time: str | None) -> Iterator[Any]:
        """For each file between which moments its rows lie, as far as statistics say so."""
        names = [f"{what}.{time}" for what in ("null_count", "min", "max")]
        if not is_moment(self.schema, time) or not set(names) <= set(self.actions.column_names):
            yield from [ds.scalar(True)] * len(self.paths)
            return
        kind, column = self.schema.field(time).type, ds.field(time)
        missing = self.actions[names[0]].to_pylist()
        ends = (self.actions[n].cast(kind).cast(pa.int64()).to_pylist() for n in names[1:])
        for nulls, first, last in zip(missing, *ends, strict=True):
            if nulls != 0 or first is None or last is None:
                yield ds.scalar(True)
            else:
                begin, end = pa.scalar(first, kind), pa.scalar(last + _CUT, kind)
                yield column.is_valid() & (column >= begin) & (column <= end)

    def kept(self) -> dict[str, Any]:
        """Which rows of a file a deletion vector leaves, by the file's path; rows beyond its end
        are left. Raises IntegrityError for a vector of a file that isn't there."""
        if "deletionVectors" not in (self.table.protocol().reader_features or ()):
            return {}
        found = pa.table(self.table.deletion_vectors())
        folder = unquote(self.table.table_uri).rstrip("/") + "/"
        kept = {
            unquote(file.as_py()).removeprefix(folder): rows.values
            for file, rows in zip(found["filepath"], found["selection_vector"], strict=True)
        }
        lost = kept.keys() - set(self.paths)
        if lost:
            what = f"a deletion vector of a file that it doesn't have: {min(lost)}"
            raise IntegrityError(Problem(self.where, what))
        return kept
