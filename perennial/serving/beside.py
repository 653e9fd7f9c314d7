"""What the processes beside the server, the log's keeper and the shadows', last told of themselves.

They tell it in files, keeper.json and shadow.json. What an earlier server's processes told is old.
When it was told is judged by the monotonic clock, which all processes of a machine share, and which
nobody sets: ``updated_at`` is for people. (After a restart of the machine it begins anew, and what
was told before then mostly lies in the future.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SILENT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a shadow version did since the server's start. ``reason`` is the most frequent one of
    the rows that could not be scored; "" when all could."""

    model: str
    version: int
    rows: int
    failed_rows: int
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Beside:
    """``problems`` are sentences; none when all is well."""

    problems: tuple[str, ...] = ()
    shadows: tuple[Shadow, ...] = ()


def read_beside(folder: Path, started: float, now: float) -> Beside:
    """What is told in a folder (a project's .perennial/serving) since the server's start. Both
    moments are seconds of the monotonic clock.

    A keeper that is not heard of for a minute is a problem itself; the shadows' process only tells
    something when it has something to do.
    """
    keeper = told_since(folder / "keeper.json", started, now)
    shadow = told_since(folder / "shadow.json", started, now)
    problems = (*_keeper_problems(keeper, started, now), *shadow.get("problems", ()))
    return Beside(problems, tuple(_shadows(shadow)))


def told_since(path: Path, started: float, now: float) -> Mapping[str, Any]:
    """What a process told last, if that was since a server's start; empty when not."""
    try:
        state: dict[str, Any] = json.loads(path.read_bytes())
        return state if started <= state["monotonic_seconds"] <= now else {}
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or torn by a full disk
        return {}


def _keeper_problems(keeper: Mapping[str, Any], started: float, now: float) -> Iterator[str]:
    if now - keeper.get("monotonic_seconds", started) > _SILENT_SECONDS:
        yield "The process that writes the log's tables has not been heard of for a minute."
    yield from keeper.get("problems", ())
    damaged = keeper.get("damaged", ())
    if damaged:
        yield (
            f"Parts of {len(damaged)} log segment{'' if len(damaged) == 1 else 's'} could not be "
            f"read and are kept aside, the last as {damaged[-1]}."
        )


def _shadows(state: Mapping[str, Any]) -> Iterator[Shadow]:
    for name, done in sorted(state.get("versions", {}).items()):
        model, _, version = name.rpartition("@")
        reasons: Mapping[str, int] = done["reasons"]
        yield Shadow(
            model=model,
            version=int(version),
            rows=done["rows"],
            failed_rows=done["failed_rows"],
            seconds=done["seconds"],
            reason=max(reasons, key=lambda reason: reasons[reason], default=""),
        )
