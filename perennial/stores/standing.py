"""What is known of all rows of a model's table: which rules they pass, and which columns no reading
has left out.

It is kept as transaction numbers of Delta, in the commit it became true with: those outlive a
checkpoint and a log that is cleaned up, and an earlier version still has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_RULES, _COLUMNS = "perennial.rules", "perennial.columns"
_BITS = 62  # of a transaction number, a bit for each column in the order of the table


@dataclass(frozen=True, slots=True)
class Standing:
    """``rules`` is the digest of rules that all rows pass, 0 when none is known. ``columns`` are
    those with which every row was read last; None: not known, of a table older than such notes."""

    rules: int = 0
    columns: frozenset[str] | None = None

    def numbers(self, names: Sequence[str]) -> dict[str, int]:
        """The transaction numbers that say so of a table with the columns ``names``."""
        complete = self.columns or frozenset()
        words = {
            f"{_COLUMNS}.{first // _BITS}": sum(
                1 << bit
                for bit, name in enumerate(names[first : first + _BITS])
                if name in complete
            )
            for first in range(0, len(names), _BITS)
        }
        return {_RULES: self.rules, **words}


def standing_of(table: Any) -> Standing:
    """What is noted with a version of a Delta table."""
    names = [field.name for field in table.schema().fields]
    complete = set()
    for first in range(0, len(names), _BITS):
        word = int(table.transaction_version(f"{_COLUMNS}.{first // _BITS}") or 0)
        some = enumerate(names[first : first + _BITS])
        complete |= {name for bit, name in some if word >> bit & 1}
    # The identity is always read, so where nothing is complete nothing was noted.
    columns = frozenset(complete) if complete else None
    return Standing(int(table.transaction_version(_RULES) or 0), columns)
