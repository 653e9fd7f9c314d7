"""Which source a table has taken in last, so that the same source is not read again."""

from __future__ import annotations

from pathlib import Path

from perennial.contracts.refs import SourceRef
from perennial.stores.folders import write_file


def remember(table: Path, source: SourceRef) -> None:
    """Note that all of ``source`` is in the table."""
    write_file(_note(table), source.model_dump_json(indent=1))


def ingested(table: Path, source: SourceRef) -> SourceRef | None:
    """The source as it was taken in last, if ``source`` holds the same; else None.

    The two may differ in where reading starts: a table that has taken in everything from the
    beginning needs nothing from a later start. A table that is gone has taken in nothing.
    """
    note = _note(table)
    if not note.is_file() or not (table / "_delta_log").is_dir():
        return None
    before = SourceRef.model_validate_json(note.read_text(encoding="utf-8"))
    starts = before.since is None or (source.since is not None and before.since <= source.since)
    same = before.model_copy(update={"since": source.since}) == source
    return before if same and starts else None


def forget(table: Path) -> None:
    """The source is read again, from the table's last event on."""
    _note(table).unlink(missing_ok=True)


def _note(table: Path) -> Path:
    return table.with_name(f"{table.name}.ingested.json")
