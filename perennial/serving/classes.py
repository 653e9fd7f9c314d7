"""The classes of an answer. During a rollout several versions may give it, each knowing its own."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from perennial.bundle.outputs import aligned, all_classes
from perennial.serving.service import Predicted


def in_one_order(
    found: Sequence[Predicted],
) -> tuple[tuple[str, ...] | None, list[np.ndarray]]:
    """The classes of a whole answer, and the predictions of each part in their order.

    The champion's classes come first, then those that only other versions know. Of several classes
    the predictions are (rows, classes), with 0 for a class that a part's version never saw; of the
    same two they are the probability of the last; others are as they were.
    """
    if len(found) == 1:
        return found[0].classes, [found[0].values]
    parts = sorted(found, key=lambda part: (part.arm != "champion", part.version))
    classes = all_classes(part.classes for part in parts)
    return classes, [aligned(part.values, part.classes, classes) for part in found]


def announced(classes: Sequence[str]) -> str:
    """The order of the classes as metadata tell it: a JSON list in a text, for neither the Open
    Inference Protocol's parameters nor Arrow's metadata have lists."""
    return msgspec.json.encode(classes).decode()
