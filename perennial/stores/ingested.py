"""Which source a table has taken in last, so that the same source is not read again."""

from __future__ import annotations

from perennial.contracts.refs import SourceRef
from perennial.stores.storage.delta import has_log
from perennial.stores.storage.objects import read, remove, write


def remember(table: str, source: SourceRef) -> None:
    """Note that all of ``source`` is in the table."""
    write(_note(table), source.model_dump_json(indent=1))


def ingested(table: str, source: SourceRef) -> SourceRef | None:
    """The source as it was taken in last, if ``source`` holds the same as far as a look tells; else
    None.

    The two may differ in where reading starts: a table that has taken in everything from the
    beginning needs nothing from a later start. Of a database it is ``source``, from where it has to
    be read now: a look doesn't tell that. A table that is gone has taken in nothing.
    """
    note = read(_note(table))
    if note is None or not has_log(table):
        return None
    before = SourceRef.model_validate_json(note)
    starts = before.since is None or (source.since is not None and before.since <= source.since)
    same = before.model_copy(update={"since": source.since}) == source
    if not (same and starts):
        return None
    return source if source.kind == "sql" else before


def forget(table: str) -> None:
    """The source is read again, from the table's last event on."""
    remove(_note(table))


def _note(table: str) -> str:
    return f"{table.rstrip('/')}.ingested.json"
