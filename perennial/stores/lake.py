"""Delta tables as Perennial keeps them: opened with clear errors, read through DuckDB in bounded
memory, and written so that two writers never do the same work twice.

Every commit carries a transaction number that follows the one its writer read. Of two writers that
began at the same version, Delta lets one commit; the other begins again from what is there now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.dataset import FileSystemDataset

from perennial.contracts.errors import (
    InputError,
    IntegrityError,
    PerennialError,
    Problem,
    UnavailableError,
)
from perennial.spec.values import some
from perennial.stores import engine
from perennial.stores.standing import Standing, standing_of
from perennial.stores.storage.delta import delta_options, files_there, has_log
from perennial.stores.storage.faults import fault, of_storage, reason
from perennial.stores.storage.places import is_remote

_WRITER = "perennial"
_COMMIT = "perennial.commit"
_INGESTIONS = "perennial.ingestions"
_UPKEEP = frozenset({"OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES"})
"""What Delta's history calls commits that leave all rows as they are."""
_ATTEMPTS = 8
_ROW_GROUP = 131_072
_STREAMED_ROWS = 65_536
_DISK_FULL = re.compile(r"os error (27|28|122)\b|No space left", re.IGNORECASE)
_SQL_TYPES = {
    "double": "DOUBLE", "int64": "BIGINT", "bool": "BOOLEAN", "string": "VARCHAR",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}  # fmt: skip
_FEW = 8
_REFIT = (
    "change model.yaml back, or train what it says now under another name: versions trained on "
    "this table are reproduced from it, and if you remove its folder they can't be"
)
_REBUILD = "restore the table from a backup, or remove its folder and train anew from the source"

Result = TypeVar("Result")


class ConflictError(Exception):
    """Another writer was quicker."""


def open_table(uri: str, version: int | None = None) -> Any | None:
    """A Delta table, as of now or of a version; None when there is none.

    Raises IntegrityError when its log is damaged or the version is gone, and as
    ``storage.faults.fault`` when the storage doesn't answer.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    options = delta_options(uri)
    try:
        try:
            return DeltaTable(uri, version=version, storage_options=options)
        except TableNotFoundError:
            if not has_log(uri):  # also what a writer killed before its first commit leaves
                return None
            # Unless another writer just made the table.
            return DeltaTable(uri, version=version, storage_options=options)
    except (DeltaError, TableNotFoundError, OSError, ValueError) as error:
        if of_storage(error, uri):
            raise fault(error, uri) from None
        what = f"the Delta log can't be read: {reason(error)}"
        raise IntegrityError(Problem(f"{uri}/_delta_log", what, _REBUILD)) from None


def schema_of(table: Any) -> Any:
    """A table's columns as an Arrow schema."""
    return pa.schema(table.schema().to_arrow())


def version_of(uri: str) -> int:
    """The newest version of a table that is there."""
    table = open_table(uri)
    assert table is not None
    return int(table.version())


def relation(
    connection: Any,
    table: Any,
    uri: str,
    time: str | None = None,
    window: tuple[datetime | None, datetime | None] = (None, None),
    only: frozenset[str] | None = None,
) -> str:
    """A table as a relation in SQL, with all the columns of its schema.

    With ``time`` only files whose statistics reach into the window (both ends included) are read;
    rows outside it may come along. With ``only`` no other than these of its files are read.
    """
    schema = schema_of(table)
    if is_remote(uri) or table.protocol().min_reader_version > 1:
        # Arrow knows remote stores and Delta's features.
        alias = f"table_{table.version()}_{abs(hash(uri))}"
        if only is not None:
            alias += f"_{abs(hash(only))}"
        connection.register(alias, _streamed(table.to_pyarrow_dataset(), only))
        return f"(SELECT * FROM {alias})"
    paths = _paths(table, time, window)
    files = [Path(uri) / path for path in paths if only is None or path in only]
    if not files:
        return no_rows(schema)
    partitioned = bool(table.metadata().partition_columns)
    source = engine.parquet(files, by_name=True, partitioned=partitioned)
    present = {row[0] for row in connection.execute(f"DESCRIBE FROM {source}").fetchall()}
    chosen = (engine.name(f.name) if f.name in present else _missing(f) for f in schema)
    return f"(SELECT {', '.join(chosen)} FROM {source})"


def no_rows(schema: Any) -> str:
    """A relation in SQL with the columns of an Arrow schema, and no row."""
    return f"(SELECT {', '.join(map(_missing, schema))} WHERE false)"


def _missing(field: Any) -> str:
    kind = _SQL_TYPES.get(str(field.type), "VARCHAR")
    return f"NULL::{kind} AS {engine.name(field.name)}"


class _Streamed(FileSystemDataset):  # type: ignore[misc]
    """A dataset that is read a batch at a time: DuckDB asks its class for a scanner, and Arrow's
    usual one reads ahead by whole files, however little of them is wanted."""

    def scanner(self, **chosen: Any) -> Any:
        few = {"batch_size": _STREAMED_ROWS, "batch_readahead": 1, "fragment_readahead": 1}
        return super().scanner(**{**chosen, **few})


def _streamed(dataset: Any, only: frozenset[str] | None) -> Any:
    parts = [part for part in dataset.get_fragments() if only is None or part.path in only]
    return _Streamed(parts, dataset.schema, dataset.format, dataset.filesystem)


def paths_of(table: Any) -> frozenset[str]:
    """The files of a version, as ``only`` of ``relation`` takes them."""
    return frozenset(pa.table(table.get_add_actions())["path"].to_pylist())


def _paths(
    table: Any, time: str | None, window: tuple[datetime | None, datetime | None]
) -> list[str]:
    actions = pa.table(table.get_add_actions(flatten=True))
    least, greatest = f"min.{time}", f"max.{time}"
    if time is not None and least in actions.column_names:
        spare = timedelta(milliseconds=1)  # statistics are cut to milliseconds
        start, end = window
        if start is not None:  # beyond the ends of the calendar nothing can be reckoned
            start -= min(spare, start - datetime.min.replace(tzinfo=start.tzinfo))
            late = pc.greater_equal(actions[greatest], pa.scalar(start))
            actions = actions.filter(pc.fill_null(late, True))
        if end is not None:
            end += min(spare, datetime.max.replace(tzinfo=end.tzinfo) - end)
            early = pc.less_equal(actions[least], pa.scalar(end))
            actions = actions.filter(pc.fill_null(early, True))
    return sorted(actions["path"].to_pylist())


def files_intact(table: Any, uri: str) -> bool:
    """Whether all files of a version are there in full. Raises as ``Objects``."""
    actions = pa.table(table.get_add_actions())
    sizes = actions["size_bytes"].to_pylist()
    return files_there(uri, dict(zip(actions["path"].to_pylist(), sizes, strict=True)))


def write(
    uri: str,
    table: Any | None,
    rows: Any,
    *,
    predicate: str | None = None,
    replace: bool = False,
    schema_mode: str = "merge",
    about: Mapping[str, object] | None = None,
    lineage: Mapping[str, str] | None = None,
    number: int | None = None,
    standing: Standing | None = None,
    ingestion: bool = False,
) -> None:
    """Commit a RecordBatchReader: appended, in place of the rows of ``predicate``, or with
    ``replace`` in place of all rows.

    ``table`` is what the caller read, None for no table yet: the new one remembers ``about``.
    ``lineage`` is kept with the commit, in the table's history. ``number`` is the commit's
    transaction number, the next one by default (see ``number_of``). ``standing`` is what then holds
    of all rows; None leaves what was noted. ``ingestion``: the rows come of the model's source (see
    ``check_latest``).

    Raises ConflictError when somebody else committed since, InputError when the disk is full or the
    table's folder can't be made, and as ``storage.faults.fault`` when the storage doesn't answer:
    then nothing was committed, or all.
    """
    from deltalake import CommitProperties, Transaction, WriterProperties, write_deltalake
    from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

    if number is None:
        number = 1 if table is None else number_of(table) + 1
    notes = {_WRITER: number, _COMMIT: 0 if table is None else int(table.version()) + 1}
    if standing is not None:  # columns that are new come last
        known = [] if table is None else schema_of(table).names
        new = (name for name in rows.schema.names if name not in known)
        notes |= standing.numbers([*known, *new])
    if ingestion:
        notes[_INGESTIONS] = ingestions_of(table) + 1
    mode = "error" if table is None else ("overwrite" if replace or predicate else "append")
    try:
        write_deltalake(
            uri if table is None else table,
            rows,
            mode=mode,
            storage_options=delta_options(uri),
            predicate=predicate,
            schema_mode=None if table is None else schema_mode,
            description=json.dumps(about or {}) if table is None else None,
            writer_properties=WriterProperties(compression="ZSTD", max_row_group_size=_ROW_GROUP),
            commit_properties=CommitProperties(
                custom_metadata=dict(lineage or {}),
                app_transactions=[Transaction(*note) for note in notes.items()],
                max_commit_retries=0,
            ),
        )
    except CommitFailedError as error:
        raise ConflictError(str(error)) from None
    except TableNotFoundError as error:
        what = f"the folder can't be made: {reason(error)}"
        raise InputError(Problem(uri, what, "name another place")) from None
    except (DeltaError, OSError) as error:
        if table is None and open_table(uri) is not None:
            raise ConflictError("the table was made by another writer") from None
        if of_storage(error, uri):
            raise fault(error, uri) from None
        if _DISK_FULL.search(str(error)):
            raise InputError(
                f"no space left while writing {uri}; it is as it was. Free some space and run again"
            ) from None
        raise


def put_back(table: Any, then: Any) -> None:
    """Commit the files and columns of an earlier version, and what held of them, as the next one;
    all versions stay.

    Raises ConflictError when somebody else committed since ``table`` was read.
    """
    from deltalake import CommitProperties, Transaction
    from deltalake.exceptions import CommitFailedError

    notes = standing_of(then).numbers(schema_of(then).names)
    notes[_WRITER] = number_of(table) + 1
    transactions = [Transaction(*note) for note in notes.items()]
    properties = CommitProperties(app_transactions=transactions, max_commit_retries=0)
    try:
        table.restore(int(then.version()), commit_properties=properties)
    except CommitFailedError as error:
        raise ConflictError(str(error)) from None


def number_of(table: Any) -> int:
    """The transaction number of the table's last commit by ``write``; 0 when there is none."""
    return int(table.transaction_version(_WRITER) or 0)


def ingestions_of(table: Any | None) -> int:
    """How many commits brought a table rows of its model's source. No later commit lowers it, nor
    does one that puts an earlier version back."""
    return 0 if table is None else int(table.transaction_version(_INGESTIONS) or 0)


def check_latest(table: Any | None, uri: str, seen: int | None) -> None:
    """Refuse rows that would change a table's, if it took in a later look at their source.

    ``seen`` is ``ingestions_of`` the table when the source was looked at; None: not known. A count
    rather than a time, as no two machines' clocks agree. Raises PerennialError.
    """
    if seen is not None and ingestions_of(table) > seen:
        raise PerennialError(
            f"{uri}: another run took in the source after this run looked at it, and this run "
            "would put earlier values over later ones; none of its rows was taken in (run again: "
            "the source is then read as it is now)"
        )


def last_write(table: Any) -> Mapping[str, Any] | None:
    """What the table's history tells of the last commit by ``write``, its ``lineage`` among it.

    None when the table may hold something else by now: others have changed it since, or its history
    doesn't reach back that far.
    """
    written = table.transaction_version(_COMMIT)
    if written is None:
        return None
    since = int(table.version()) - int(written)
    *later, own = table.history(since + 1) or [None]
    if len(later) < since:  # commits that tell nothing of themselves are left out of a history
        return None
    upkeep = all(entry.get("operation") in _UPKEEP for entry in later)
    return own if upkeep else None


def about(table: Any) -> dict[str, Any]:
    """What a table was made to remember; {} for a table that ``write`` did not make."""
    try:
        found = json.loads(table.metadata().description or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def until_committed(uri: str, attempt: Callable[[], Result]) -> Result:
    """Run ``attempt``, which reads a table and writes it, again when another writer was quicker.

    Raises UnavailableError when others keep being quicker.
    """
    for _ in range(_ATTEMPTS):
        try:
            return attempt()
        except ConflictError:
            continue
    raise UnavailableError(f"{uri}: other writers were quicker {_ATTEMPTS} times")


def check_fits(table: Any, uri: str, schema: Any, identity: Sequence[str]) -> None:
    """Refuse rows that the table can't take in: a column of another type, another identity."""
    problems = []
    known = schema_of(table)
    alike = {name.casefold(): name for name in known.names}
    for field in schema:
        stored = alike.get(field.name.casefold(), field.name)
        if stored != field.name:
            what = f"is stored as {stored!r}, and tables don't tell capitals apart"
            problems.append(Problem(f"{uri}, column {field.name!r}", what))
        if field.name in known.names and known.field(field.name).type != field.type:
            what = f"is stored as {known.field(field.name).type}, model.yaml now makes it"
            problems.append(Problem(f"{uri}, column {field.name!r}", f"{what} {field.type}"))
    made_with = about(table).get("identity")
    if made_with is not None and set(made_with) != set(identity):
        new = [name for name in identity if name not in made_with]
        gone = [name for name in made_with if name not in identity]
        told = (("adds", some(new, _FEW)), ("leaves out", some(gone, _FEW)))
        now = " and ".join(f"{verb} {names}" for verb, names in told if names)
        what = f"its rows are identified by {some(made_with, _FEW)}; model.yaml now {now}"
        problems.append(Problem(uri, what))
    if problems:
        problems[-1] = Problem(problems[-1].where, problems[-1].what, _REFIT)
        raise InputError(problems)
