"""Which source a table has taken in last, so that the same source is not read again."""

from __future__ import annotations

from pydantic import ValidationError

from perennial.contracts.refs import SourceRef, Value
from perennial.stores.history import put_back_since
from perennial.stores.storage.objects import read, write


class _Note(Value):
    """``version`` is the table's once it had taken in ``source``."""

    source: SourceRef
    version: int


def remember(table: str, source: SourceRef, version: int) -> None:
    """Note that all of ``source`` is in this version of the table."""
    write(_note(table), _Note(source=source, version=version).model_dump_json(indent=1))


def ingested(table: str, source: SourceRef) -> SourceRef | None:
    """The source as it was taken in last, if ``source`` holds the same as far as a look tells; else
    None.

    The two may differ in where reading starts: a table that has taken in everything from the
    beginning needs nothing from a later start. Of a database it is ``source``, from where it has to
    be read now: a look doesn't tell that. A table that is gone has taken in nothing, and what one
    took in before it was put back to an earlier version doesn't count.
    """
    text = read(_note(table))
    if text is None:
        return None
    try:
        note = _Note.model_validate_json(text)
    except ValidationError:  # of before notes named the table's version
        return None
    before = note.source.model_copy(update={"seen": source.seen})
    starts = before.since is None or (source.since is not None and before.since <= source.since)
    same = before.model_copy(update={"since": source.since}) == source
    if not (same and starts) or put_back_since(table, note.version):
        return None
    return source if source.kind == "sql" else before


def _note(table: str) -> str:
    return f"{table.rstrip('/')}.ingested.json"
