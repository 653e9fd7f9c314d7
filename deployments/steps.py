"""What became of one thing that is declared on a Prefect server."""

from __future__ import annotations

from typing import Literal

from perennial.contracts.refs import Value

Kind = Literal["block", "variable", "work pool", "automation", "deployment"]
Outcome = Literal[
    "created", "changed", "removed", "as declared", "not deployed", "differs", "not declared"
]


class Step(Value):
    """What became of one thing, or would become of it. ``detail`` says in what it differed; it
    names keys and never has a value of a block."""

    kind: Kind
    name: str
    outcome: Outcome
    detail: str = ""
