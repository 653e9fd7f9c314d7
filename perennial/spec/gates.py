"""The gates a candidate must pass to be registered, each told by its own key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from perennial.contracts.metrics import METRICS
from perennial.spec.values import (
    Confidence,
    MetricName,
    Mistake,
    Number,
    Section,
    Text,
    Whole,
    nearest_key,
    repeated,
)


def _one_limit(gate: Floor) -> Iterator[Mistake]:
    if (gate.min is None) == (gate.max is None):
        yield "", "give either min or max"
    elif gate.metric in METRICS:
        limit = "min" if METRICS[gate.metric].greater_is_better else "max"
        if getattr(gate, limit) is None:
            better = "greater" if limit == "min" else "smaller"
            yield "", f"{gate.metric} is better when {better}: give {limit}"


def _slices_once(gate: Slices) -> Iterator[Mistake]:
    yield from repeated(gate.slices, "slices")


class Floor(Section):
    """The metric on the test part must reach an absolute value."""

    metric: MetricName
    """Measured on the test part."""
    min: Number | None = None
    """For a metric that is better when greater. Inclusive."""
    max: Number | None = None
    """For a metric that is better when smaller. Inclusive."""
    confidence: Confidence | None = None
    """Ask that the whole one-sided interval clears the limit, not just the estimate."""
    min_rows: Annotated[Whole, Field(ge=1)] = 50
    """With fewer test rows the gate is inconclusive."""

    rules = (_one_limit,)


class Beats(Section):
    """The candidate must beat the champion on the same test rows, those that the champion was not
    fitted to (paired bootstrap)."""

    beats: Literal["champion"]
    """The version that serves now."""
    metric: MetricName
    """What the two are compared by."""
    min_gain: Number = 0.0
    """In the metric's unit; above 0 the candidate must be better by more than this."""
    confidence: Confidence = 0.95
    """Of the one-sided interval of the gain, whose lower end must be above `min_gain`."""
    min_rows: Annotated[Whole, Field(ge=1)] = 50
    """With fewer such rows the gate is inconclusive."""
    first_version: Literal["passed", "inconclusive"] = "inconclusive"
    """The verdict without a champion: `passed` lets the first version in on the other gates."""


class Slices(Section):
    """No level of these columns may get clearly worse than under the champion, on the same rows."""

    slices: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Columns of type category, string, boolean or integer."""
    metric: MetricName
    """What the two are compared by."""
    max_regression: Annotated[Number, Field(ge=0)]
    """In the metric's unit; a slice fails when the whole interval of its loss is beyond it."""
    min_rows: Annotated[Whole, Field(ge=1)] = 200
    """Smaller slices are reported, not judged."""
    confidence: Confidence = 0.95
    """Of the gate as a whole, one-sided, however many slices are judged."""
    first_version: Literal["passed", "inconclusive"] = "passed"
    """The verdict without a champion."""

    rules = (_slices_once,)


class Latency(Section):
    """One-row prediction in a fresh process must be quick enough."""

    p99_ms: Annotated[Number, Field(gt=0)]
    """The 99th percentile, in milliseconds. Inclusive."""


GATES: dict[str, type[Section]] = {
    "floor": Floor,
    "beats": Beats,
    "slices": Slices,
    "latency": Latency,
}
_TELLING = {"beats": "beats", "slices": "slices", "p99_ms": "latency"}


def gate_kind(value: object) -> str:
    """Which gate a mapping means, told by its key, so that only that one's mistakes are shown.

    A key that is nearly a telling one (``beat``) tells too.
    """
    if isinstance(value, Section):
        return type(value).__name__.lower()
    keys = [str(key) for key in value] if isinstance(value, dict) else []
    for telling, kind in _TELLING.items():
        if telling in keys or nearest_key(telling, keys, cutoff=0.75):
            return kind
    return "floor"


Gate = Annotated[
    Annotated[Floor, Tag("floor")]
    | Annotated[Beats, Tag("beats")]
    | Annotated[Slices, Tag("slices")]
    | Annotated[Latency, Tag("latency")],
    Discriminator(gate_kind),
]
