"""What goes wrong, when, and to whom: drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "kill",
    "pause",
    "starve",
    "disk full",
    "cut",
    "hang",
    "slow",
    "busy",
    "half",
    "restart",
    "locked",
    "clock",
]
"""- kill: SIGKILL; the process is started again as a supervisor would.
- pause: SIGSTOP, and SIGCONT afterwards.
- starve: no file of the process may grow (RLIMIT_FSIZE).
- disk full: no file of anybody may grow (a file system of its own, filled up).
- cut, hang, slow, busy, half: of a network, as ``proxy.Mode``.
- restart: of the database's server, without a checkpoint.
- locked: somebody else holds the database.
- clock: of a process, which jumps, and jumps back afterwards.
"""
_LASTS: dict[Kind, tuple[float, float]] = {
    "pause": (0.3, 4.0),
    "starve": (0.5, 4.0),
    "disk full": (0.5, 4.0),
    "cut": (0.2, 3.0),
    "hang": (0.5, 4.0),
    "slow": (0.5, 4.0),
    "busy": (0.5, 4.0),
    "half": (0.3, 2.0),
    "locked": (0.5, 4.0),
    "clock": (1.5, 8.0),
}
JUMPS_SECONDS = (-86_400, -3_600, -61, -5, 5, 61, 3_600, 86_400)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong. ``at`` and ``seconds`` are from the beginning; 0 seconds is an
    event. ``amount`` is the bytes a file may have (starve), or the seconds a clock jumps."""

    at: float
    kind: Kind
    target: str
    seconds: float = 0.0
    amount: int = 0

    def __str__(self) -> str:
        lasts = f" for {self.seconds:.1f} s" if self.seconds else ""
        amount = f" by {self.amount:+} s" if self.kind == "clock" else ""
        return f"{self.kind} {self.target}{amount}{lasts}"


@dataclass(frozen=True, slots=True)
class Possible:
    """A kind of fault that a world can have, to whom, and how often next to others."""

    kind: Kind
    targets: Sequence[str]
    weight: float = 1.0


def plan(
    seed: int, seconds: float, possible: Sequence[Possible], mean_gap: float = 0.9
) -> list[Fault]:
    """All that goes wrong within so many seconds, in order of time. The same seed, seconds and
    possibilities give the same plan. Every kind comes once before any comes at random; of one kind
    nothing happens twice to the same target at once, and all is over in the end."""
    chance = random.Random(f"{seed} {seconds}")
    first = [one for one in possible if one.targets]
    chance.shuffle(first)
    found: list[Fault] = []
    busy: dict[tuple[Kind, str], float] = {}
    at = 0.0
    while (at := at + chance.expovariate(1 / mean_gap)) < seconds:
        weights = [one.weight for one in possible]
        drawn = first.pop() if first else chance.choices(possible, weights)[0]
        if not drawn.targets:
            continue
        target = chance.choice(drawn.targets)
        shortest, longest = _LASTS.get(drawn.kind, (0.0, 0.0))
        lasts = min(chance.uniform(shortest, longest), seconds - at)
        amount = {
            "starve": chance.choice((0, 4096, 65_536)), "clock": chance.choice(JUMPS_SECONDS)
        }.get(drawn.kind, 0)  # fmt: skip
        if busy.get((drawn.kind, target), 0.0) > at:
            continue
        busy[drawn.kind, target] = at + lasts
        found.append(Fault(round(at, 2), drawn.kind, target, round(lasts, 2), amount))
    return found
