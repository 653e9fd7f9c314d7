"""Drift: what is counted of a column, what was found, and the verdict on a window.

A column's values fall into *bins* that its reference fixed. Counts in the same bins add up, so a
window may be counted in parts, in any order, on several machines.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict

from perennial.contracts.refs import Value

Kind = Literal["number", "text", "time"]


class Bins(Value):
    """Where the values of a column are counted; in each the last bin is for missing values.

    ``number``: ``edges`` ascend, bins are what lies below the first, from each to the next
    (exclusive), and from the last on. ``text``: a bin for each of ``levels`` (commonest first),
    then ``buckets`` into which all other texts are hashed. ``time``: one bin for any value.

    ``known`` are the hashes of levels that were seen when the bins were chosen. ``least`` and
    ``greatest`` (inclusive) and ``allowed`` are what model.yaml says is possible.
    """

    kind: Kind
    edges: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()
    buckets: int = 0
    known: tuple[int, ...] = ()
    least: float | None = None
    greatest: float | None = None
    allowed: tuple[str, ...] | None = None

    @property
    def size(self) -> int:
        """How many bins there are, that of missing values included."""
        match self.kind:
            case "number":
                return len(self.edges) + 2
            case "text":
                return len(self.levels) + self.buckets + 1
            case "time":
                return 2


class ColumnCounts(Value):
    """What a column held in some rows.

    ``counts`` are by bin. Rows in which the column was absent, or not of its kind (``types`` names
    what it was, sorted), are in no bin. ``impossible`` values break model.yaml's range or list,
    ``unseen`` texts are not among the known levels, ``infinite`` are in the outer bins. ``total``
    and ``squares`` are sums over the finite values of a number minus the first edge, and of its
    square. ``least`` and ``greatest`` are the extreme values of a number, of a time in its own
    unit, of a text's hashes; None without values. All but the two sums are exact, whatever the
    order in which they were added up.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")  # what is infinite stays so

    counts: tuple[int, ...]
    absent: int = 0
    mistyped: int = 0
    types: tuple[str, ...] = ()
    impossible: int = 0
    unseen: int = 0
    infinite: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float | None = None
    greatest: float | None = None

    @property
    def rows(self) -> int:
        """Rows that were counted in a bin."""
        return sum(self.counts)

    @property
    def missing(self) -> int:
        return self.counts[-1]

    @property
    def present(self) -> int:
        return self.rows - self.missing


class WindowStatistics(Value):
    """What the columns held in ``rows`` rows."""

    rows: int
    columns: dict[str, ColumnCounts]


class ReferenceStatistics(Value):
    """What a version was trained on: each column's bins, and the counts of rows that had no part in
    choosing them. ``blocks`` are parts of those rows, each from a stretch of time as long as the
    windows that are compared; none where rows have no time."""

    bins: dict[str, Bins]
    window: WindowStatistics
    blocks: tuple[WindowStatistics, ...] = ()


class ColumnOutcome(StrEnum):
    DRIFTED = "drifted"
    STABLE = "stable"
    INCONCLUSIVE = "inconclusive"
    FAULT = "fault"


class Fault(StrEnum):
    """What looks like a broken upstream, not like a changed world."""

    GONE = "gone"
    TYPE = "another type"
    MISSING = "missing values"
    CONSTANT = "constant"
    UNSEEN = "unseen categories"
    IMPOSSIBLE = "impossible values"


class Change(Value):
    """A bin that gained or lost rows; shares of all rows that have the column."""

    values: str
    before: float
    after: float


class ColumnDrift(Value):
    """What was found of one column.

    ``effect`` is the Jensen-Shannon distance (base 2) between reference and window beyond what
    chance makes of equal ones at these sizes: 0 alike, 1 nothing in common; ``limit`` is where it
    counts as drift, ``p_value`` the share of windows of independent rows without drift that are at
    least as far apart. ``usual`` is the greatest effect that a stretch of the training time had,
    as far as it is certain.
    ``shift`` is how far the quantiles of a number moved on average, in spreads of the reference;
    at least so far (``shift_at_least``) where some lie beyond the values that fixed the bins.
    ``found`` is the effect that such a window would show as drift with 90 % probability (None: not
    even the greatest), ``found_as`` the same as something to picture: standard deviations
    (``spreads``) between two normals, or the ``share`` of rows that turn into something new.
    ``weight`` is the column's share of the model's importance, 0 for predictions. None is what
    could not be measured.
    """

    column: str
    outcome: ColumnOutcome
    reason: str
    rows: int
    weight: float
    effect: float | None = None
    limit: float | None = None
    p_value: float | None = None
    usual: float = 0.0
    shift: float | None = None
    shift_at_least: bool = False
    found: float | None = None
    found_as: tuple[float, Literal["spreads", "share"]] | None = None
    missing_before: float | None = None
    missing_after: float | None = None
    changes: tuple[Change, ...] = ()
    fault: Fault | None = None


class DriftOutcome(StrEnum):
    """``FAULT`` hides nothing: what else drifted is in the verdict's columns."""

    DRIFTED = "drifted"
    STABLE = "stable"
    INCONCLUSIVE = "inconclusive"
    FAULT = "data quality fault"


class DriftVerdict(Value):
    """The verdict on a window, with the evidence for it, the columns that matter most first.

    ``drifted_share`` is the importance of the columns that drifted, ``found`` the median over
    columns of the effect found with 90 % probability.
    """

    outcome: DriftOutcome
    reason: str
    rows: int
    reference_rows: int
    drifted_share: float
    max_drifted_share: float
    false_alarm_rate: float
    min_effect: float
    found: float | None
    columns: tuple[ColumnDrift, ...]

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        return tuple(c for c in self.columns if c.outcome is ColumnOutcome.DRIFTED)

    @property
    def faults(self) -> tuple[ColumnDrift, ...]:
        return tuple(c for c in self.columns if c.outcome is ColumnOutcome.FAULT)
