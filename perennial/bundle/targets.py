"""What a version predicts, so that only versions of one target are compared."""

from __future__ import annotations

from typing import NamedTuple

from perennial.bundle.read import Bundle
from perennial.contracts.metrics import Objective
from perennial.spec.values import some

_FEW = 5


class Target(NamedTuple):
    """A label's column as a version predicts it; ``classes`` as in ``FeatureSchema``."""

    objective: Objective
    label: str
    classes: tuple[str, ...] | None

    def __str__(self) -> str:
        classes = f": {some(self.classes, _FEW)}" if self.classes else ""
        return f"{self.label} ({self.objective}{classes})"


def target_of(bundle: Bundle) -> Target:
    return Target(bundle.objective, bundle.spec.label.column, bundle.schema.classes)


def alike(one: Target, other: Target) -> bool:
    """Whether predictions of the two can be compared once they are ``aligned``: the same column for
    the same objective; in binary the same two classes, whichever is the positive one; of several
    some that both know, for new ones come and old ones go."""
    if (one.objective, one.label) != (other.objective, other.label):
        return False
    mine, theirs = set(one.classes or ()), set(other.classes or ())
    return bool(mine & theirs) if one.objective == "multiclass" else mine == theirs
