"""The versions of a model's Delta table, and how two of them differ. Times are UTC."""

from __future__ import annotations

from datetime import datetime

from perennial.contracts.refs import Value


class TrainedVersion(Value):
    """A registered version of the model that was trained on a version of its data. ``run`` is the
    flow run that did it ("" when it is not on record)."""

    version: int
    run: str
    run_url: str


class DataVersion(Value):
    """One commit of a model's table.

    ``operation``: ``made``, ``added`` (rows appended), ``merged`` (rows added and replaced),
    ``replaced`` (the whole table), ``restored``, or Delta's own word in lower case for what another
    program did. ``rows`` is the table's number of rows at this version, None when its log does not
    tell. ``rows_added`` and ``rows_changed`` are what the commit brought, by identity, and
    ``rows_removed`` those that went to quarantine; None where nothing recorded that. ``restored``
    is the version that a restore put back. A version that is not ``readable`` has lost files (to a
    vacuum, say).
    """

    version: int
    at: datetime
    operation: str
    rows: int | None
    rows_added: int | None
    rows_changed: int | None
    rows_removed: int | None
    restored: int | None
    readable: bool
    trained: tuple[TrainedVersion, ...] = ()


class ColumnChange(Value):
    """A column that two versions do not share: its types, None where it is not there."""

    column: str
    before: str | None
    after: str | None


class Window(Value):
    """From the first to the last event, both included."""

    first: datetime
    last: datetime


class DataDiff(Value):
    """What lies between two versions of a table, by the rows' identity.

    ``by`` is the identity. Without one ``by`` is empty, rows are told apart by all they hold, none
    counts as changed, and one that differs is removed and added. ``columns``: how many of the
    changed rows differ in each column, the most first. ``window`` spans the events of all rows that
    were added, removed or changed; None without event time, or when there is none of them.
    """

    before: int
    after: int
    by: tuple[str, ...]
    rows_before: int
    rows_after: int
    added: int
    removed: int
    changed: int
    schema_changes: tuple[ColumnChange, ...]
    columns: dict[str, int]
    window: Window | None


class Restored(Value):
    """The end of a restore. ``version`` is the table's newest; not ``changed``: it held those rows
    already, and nothing was written."""

    version: int
    restored: int
    changed: bool
    rows: int


class DataExport(Value):
    """Rows of a version written as Parquet files, in their order. ``digest`` is of the files."""

    folder: str
    version: int
    rows: int
    files: tuple[str, ...]
    digest: str
