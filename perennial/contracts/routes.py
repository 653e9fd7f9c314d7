"""Who answers a model's requests."""

from __future__ import annotations

from datetime import datetime

from perennial.contracts.refs import Value


class Arm(Value):
    """A version and its share of requests in percent."""

    version: int
    weight: int


class Route(Value):
    """Who answers a model's requests. The arms' weights sum to 100; shadow versions see requests
    and answer nobody. ``generation`` counts changes; 0 means nothing was ever promoted, and then
    there is no champion and no arm."""

    model: str
    champion: int | None
    arms: tuple[Arm, ...]
    shadow: tuple[int, ...]
    generation: int
    updated_at: datetime | None
