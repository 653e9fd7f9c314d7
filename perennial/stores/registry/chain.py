"""The audit as a chain: every entry is sealed by a digest over what it says and the seal before it.

A seal is the SHA-256 of ``perennial audit 1``, a newline, and an object as JSON in UTF-8: the
entry's columns but ``id`` and ``seal``; ``at`` in UTC to the microsecond; keys sorted, no blanks,
other than ASCII characters escaped. ``number`` counts a model's entries from 1, ``follows`` is the
seal of the one before, "" for the first. The last one's number and seal, the chain's head, stand in
the row of the model's route. Order is that of ``id``, by which the audit is read.

The chain of a model shows what was done to it to whoever reads it whole. It can't show what
somebody did who rewrote the chain from there on together with the head: for that, keep heads
elsewhere (docs/adr/0031).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from perennial.contracts.refs import Value

SEALED = (
    "at", "model", "actor", "action", "version", "digest", "generation", "reason", "evidence",
    "cause", "number", "follows",
)  # fmt: skip
"""The columns that a seal covers."""
_MAGIC = b"perennial audit 1\n"


class Head(Value):
    """The end of a chain: how many entries it has, and the seal of the last ("" without any)."""

    number: int
    seal: str


START = Head(number=0, seal="")


def sealed(values: Mapping[str, Any]) -> str:
    """The seal of an entry, of its columns' values. ``at`` has a zone.

    Raises ValueError and TypeError for values that JSON has not.
    """
    content = {name: values[name] for name in SEALED}
    content["at"] = values["at"].astimezone(UTC).isoformat(timespec="microseconds")
    # There and back again: what was written must be what is read, keys as text among it.
    plain = json.loads(json.dumps(content, allow_nan=False))
    text = json.dumps(plain, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(_MAGIC + text.encode()).hexdigest()


def faults(rows: Iterable[Mapping[str, Any]], head: Head) -> Iterator[str]:
    """What is wrong with a chain: of each entry that was changed, is missing or out of place.

    ``rows`` are a model's entries as the database has them, in the order of their ``id``:
    ``evidence`` as text, ``at`` as a time in UTC without a zone, or as text.
    """
    last = START
    for row in rows:
        number = row["number"]
        if not _is_as_sealed(row):
            yield f"entry {number} does not say what was sealed: it was changed"
        if not isinstance(number, int) or number <= last.number:
            yield f"entry {number} stands after entry {last.number}: it was put in or moved"
            continue
        if number > last.number + 1:
            yield f"{_entries(last.number + 1, number - 1)} missing"
        elif row["follows"] != last.seal:
            if last.number:
                what = f"follows another entry {last.number} than the one that is there"
                yield f"entry {number} {what}: one of both was replaced"
            else:
                yield "entry 1 follows another: it was replaced"
        last = Head(number=number, seal=str(row["seal"]))
    if last.number < head.number:
        yield f"{_entries(last.number + 1, head.number)} missing at the end"
    elif last.number > head.number:
        yield f"{_entries(head.number + 1, last.number)} beyond the head, entry {head.number}"
    elif last.seal != head.seal:
        yield f"entry {last.number} is not the one that the head was taken of"


def _is_as_sealed(row: Mapping[str, Any]) -> bool:
    at = row["at"]
    try:
        moment = datetime.fromisoformat(at) if isinstance(at, str) else at
        values = {**row, "at": moment.replace(tzinfo=UTC), "evidence": json.loads(row["evidence"])}
        return sealed(values) == str(row["seal"])
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False  # what can't be read was not written so


def _entries(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"
