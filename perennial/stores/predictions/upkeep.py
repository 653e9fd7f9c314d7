"""Keeping a table of the log in order: few files, and nothing older than it may be."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa

from perennial.contracts.errors import UnavailableError
from perennial.stores.predictions.columns import DATE
from perennial.stores.predictions.tables import ROW_GROUP, open_log
from perennial.stores.storage.faults import reason

_SMALL_BYTES = 32 * 2**20
_TARGET_BYTES = 128 * 2**20


class Tidied(NamedTuple):
    """What was done: files put together, days removed, files deleted for good."""

    compacted: int
    expired_days: int
    deleted: int


def tidy(uri: str, keep: timedelta, compact_files: int, now: datetime, vacuum: bool) -> Tidied:
    """Remove days that ended more than ``keep`` ago, and put the small files of a day together once
    there are ``compact_files`` of them. With ``vacuum``, delete the files that no version of the
    last day needs from the disk, also those that a killed writer left behind.

    Rows are committed by others meanwhile without harm. Raises UnavailableError when the store does
    not answer; what was done until then stays done.
    """
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        table = open_log(uri)
        if table is None:
            return Tidied(0, 0, 0)
        expired = _expire(table, (now - keep).date())
        compacted = _compact(table, compact_files)
        deleted = len(table.vacuum(dry_run=False, full=True)) if vacuum else 0
    except CommitFailedError:
        return Tidied(0, 0, 0)  # somebody else tidies this table; there is another time
    except (DeltaError, OSError) as error:
        raise UnavailableError(f"{uri} can't be tidied: {reason(error)}") from None
    return Tidied(compacted, expired, deleted)


def _expire(table: Any, first_kept: date) -> int:
    """Remove the days before ``first_kept``: whole partitions, so no file is rewritten."""
    days = {day for day, _ in _files(table) if day is not None and day < first_kept}
    if days:
        table.delete(f"{DATE} < '{first_kept.isoformat()}'")
    return len(days)


def _compact(table: Any, least_files: int) -> int:
    from deltalake import WriterProperties

    small = Counter(day for day, size in _files(table) if size < _SMALL_BYTES)
    removed = 0
    for day, count in small.items():
        if count >= least_files and day is not None:
            done = table.optimize.compact(
                partition_filters=[(DATE, "=", day.isoformat())],
                target_size=_TARGET_BYTES,
                max_concurrent_tasks=1,
                writer_properties=WriterProperties(
                    compression="ZSTD", max_row_group_size=ROW_GROUP
                ),
            )
            removed += int(done["numFilesRemoved"])
    if removed:
        table.create_checkpoint()
        table.cleanup_metadata()
    return removed


def _files(table: Any) -> list[tuple[date | None, int]]:
    """Each file's day and size in bytes."""
    actions = pa.table(table.get_add_actions(flatten=True))
    days = actions[f"partition.{DATE}"].to_pylist()
    return list(zip(days, actions["size_bytes"].to_pylist(), strict=True))
