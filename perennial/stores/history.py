"""The versions of a model's Delta table: told one by one, and put back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.data_versions import DataVersion, Restored, TrainedVersion
from perennial.contracts.errors import InputError, IntegrityError, Problem
from perennial.stores import lake
from perennial.stores.upsert import ADDED, CHANGED, PUT_BACK, REMOVED

Trained = Mapping[int, Sequence[TrainedVersion]]
_WORDS = {"ErrorIfExists": "made", "Append": "added", "Overwrite": "replaced"}


def newest(table_uri: str) -> Any:
    """The table as it is. Raises InputError when there is none, IntegrityError when its log is
    damaged."""
    table = lake.open_table(table_uri)
    if table is None:
        what = "no table: nothing was ingested yet"
        raise InputError(Problem(table_uri, what, "perennial train makes it"))
    return table


def at_version(table_uri: str, version: int) -> Any:
    """The table as it was. Raises InputError for a version that never was, or whose log or files
    are gone: then nothing of it can be read."""
    last = int(newest(table_uri).version())
    if not 0 <= version <= last:
        known = f"it has versions 0 to {last}" if last else "it has version 0 only"
        raise InputError(Problem(table_uri, f"no version {version}", known))
    try:
        table = lake.open_table(table_uri, version)
    except IntegrityError as error:
        what = f"version {version} can't be read: {error.problems[0].what}"
        raise InputError(Problem(table_uri, what, "its log was cleaned up; take another")) from None
    if not lake.files_intact(table, table_uri):
        what = f"version {version} can't be read: files of it were removed (a vacuum does that)"
        fix = "take a version that perennial data NAME log doesn't mark, or a backup"
        raise InputError(Problem(table_uri, what, fix))
    return table


def log(table_uri: str, limit: int) -> list[DataVersion]:
    """The table's last versions, the newest first. Raises as ``newest``."""
    return [_told(entry, table_uri) for entry in newest(table_uri).history(limit)]


def with_models(versions: Iterable[DataVersion], trained: Trained) -> list[DataVersion]:
    """The same, with what was trained on each."""
    return [
        one.model_copy(update={"trained": tuple(trained.get(one.version, ()))}) for one in versions
    ]


def restore(table_uri: str, version: int) -> Restored:
    """Commit a version's rows and columns as the table's newest version; all others stay.

    A table that holds them already is left as it is. What was noted of the source that was
    ingested last no longer counts, so the next ingestion reads it from the restored rows' last
    event on (minus ``source.lateness`` and ``label.delay``).

    Raises InputError as ``at_version``, UnavailableError when other writers keep being quicker.
    """
    then = at_version(table_uri, version)
    rows = rows_of(then)

    def attempt() -> Restored:
        table = newest(table_uri)
        if _same(table, then):
            return Restored(version=table.version(), restored=version, changed=False, rows=rows)
        lake.put_back(table, then)
        return Restored(
            version=lake.version_of(table_uri), restored=version, changed=True, rows=rows
        )

    return lake.until_committed(table_uri, attempt)


def revised_since(table_uri: str, version: int) -> bool:
    """Whether a later version of the table put an earlier one back, or rows from quarantine, or
    sent rows there: what was read of ``version`` is then no longer what the table was made to
    hold."""
    table = lake.open_table(table_uri)
    return table is not None and any(
        entry["operation"] == "RESTORE" or PUT_BACK in entry or _number(entry.get(REMOVED))
        for entry in _commits_since(table, version)
    )


def put_back_since(table_uri: str, version: int) -> bool:
    """Whether the table holds, or may hold, less than at ``version``: an earlier version was put
    back since, by a restore or a backup, or the table is gone."""
    table = lake.open_table(table_uri)
    if table is None or int(table.version()) < version:
        return True
    entries = _commits_since(table, version)
    complete = len(entries) == int(table.version()) - version
    return not complete or any(entry["operation"] == "RESTORE" for entry in entries)


def _commits_since(table: Any, version: int) -> list[dict[str, Any]]:
    """What the log still has of what came after a version, the newest first."""
    later = int(table.version()) - version
    found: list[dict[str, Any]] = table.history(later) if later else []
    return found


def _told(entry: Mapping[str, Any], uri: str) -> DataVersion:
    version = int(entry["version"])
    given = entry.get("operationParameters") or {}
    operation, mode = str(entry.get("operation", "")), str(given.get("mode", ""))
    word = _WORDS.get(mode, mode.lower()) if operation == "WRITE" else operation.lower()
    if word == "replaced" and given.get("predicate"):
        word = "merged"
    if operation == "RESTORE":
        word = "restored"
    try:
        table = lake.open_table(uri, version)
    except IntegrityError:
        table = None
    added = _number(entry.get(ADDED))
    if added is None and word in ("made", "added"):
        added = _number((entry.get("operationMetrics") or {}).get("num_added_rows"))
    return DataVersion(
        version=version,
        at=datetime.fromtimestamp(entry["timestamp"] / 1000, UTC),
        operation=word,
        rows=None if table is None else rows_of(table),
        rows_added=added,
        rows_changed=0 if word in ("made", "added") else _number(entry.get(CHANGED)),
        rows_removed=0 if word in ("made", "added") else _number(entry.get(REMOVED)),
        restored=_number(given.get("version")) if word == "restored" else None,
        readable=table is not None and lake.files_intact(table, uri),
    )


def rows_of(table: Any) -> int:
    """How many rows a version has, by its log."""
    return int(pc.sum(pa.table(table.get_add_actions())["num_records"]).as_py() or 0)


def _same(one: Any, other: Any) -> bool:
    """Whether two versions are the same files under the same columns."""
    files = lake.paths_of(one) == lake.paths_of(other)
    return files and lake.schema_of(one) == lake.schema_of(other)


def _number(value: object) -> int | None:
    return int(str(value)) if value is not None and str(value).isdecimal() else None
