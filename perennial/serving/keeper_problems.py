"""What the log's keeper, a process of its own, last told of its troubles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

_SILENT = timedelta(minutes=1)


def keeper_problems(state_file: Path, started_at: datetime, now: datetime) -> tuple[str, ...]:
    """Sentences on what keeps the log from its tables; none when all is well.

    ``started_at`` is the server's start: what a keeper of an earlier server told is old. A keeper
    that is not heard of for a minute is a problem itself.
    """
    return tuple(_problems(state_file, started_at, now))


def _problems(state_file: Path, started_at: datetime, now: datetime) -> Iterator[str]:
    try:
        state = json.loads(state_file.read_bytes())
        heard = datetime.fromisoformat(state["updated_at"]).astimezone(UTC)
    except (OSError, ValueError, KeyError, TypeError):
        state, heard = {}, started_at
    if now - max(heard, started_at) > _SILENT:
        yield "The process that writes the log's tables has not been heard of for a minute."
    if heard < started_at:
        return
    yield from state.get("problems", ())
    damaged = state.get("damaged", ())
    if damaged:
        yield (
            f"Parts of {len(damaged)} log segment{'' if len(damaged) == 1 else 's'} could not be "
            f"read and are kept aside, the last as {damaged[-1]}."
        )
