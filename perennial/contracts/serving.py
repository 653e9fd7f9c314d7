"""What the parts of the inference service tell each other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpoolLag:
    """What the prediction log has on this machine and not yet in its table.

    ``oldest_seconds`` is the age of the oldest such record; 0.0 when nothing waits.
    """

    segments: int
    bytes: int
    oldest_seconds: float
