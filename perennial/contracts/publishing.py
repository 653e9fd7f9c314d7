"""What was told to places outside that keep models too: MLflow, the W&B Registry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from perennial.contracts.refs import Value

Destination = Literal["mlflow", "wandb"]


class Publication(Value):
    """One look after a destination: what it lacked was published, and its aliases follow the route.

    ``versions`` were published now, ``waiting`` are left for the next time. ``aliases`` is what
    they are at the end, by version; ``moved`` the ones that were changed now. ``error`` says what
    went wrong, "" when nothing did: then and with none waiting, the destination tells the same as
    the registry.
    """

    model: str
    destination: Destination
    place: str
    versions: tuple[int, ...] = ()
    waiting: int = 0
    aliases: dict[str, int] = Field(default_factory=dict)
    moved: tuple[str, ...] = ()
    error: str = ""
