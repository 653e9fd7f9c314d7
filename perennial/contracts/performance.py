"""How well a version does in production: promised, realised on late labels, estimated without."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from perennial.contracts.refs import Value
from perennial.contracts.verdicts import CalibrationBin, Estimate, Evidence


class LabelCounts(Value):
    """Predictions of one version and their labels, at one moment of knowledge.

    A prediction is *due* once its event is ``label.delay`` old. Each is labelled, overdue (due, no
    label), or pending (neither); ``labelled_due`` are both. Of the labelled, ``early`` have a label
    that came before the event itself (a clock is wrong, or the label is of something else),
    ``repeated`` have more than one label and ``contradicted`` labels that don't agree.
    """

    predictions: int
    due: int
    labelled: int
    labelled_due: int
    overdue: int
    pending: int
    early: int
    repeated: int
    contradicted: int

    @property
    def coverage(self) -> float | None:
        """The share of the due predictions that have a label; None when none is due."""
        return self.labelled_due / self.due if self.due else None


class JoinCounts(Value):
    """What a join of labels to the predictions made in ``start <= time < end`` found, knowing the
    labels received before ``as_of``.

    ``labels`` counts those received since ``start``, whatever they are of; ``unknown`` those of
    them that are of no prediction in the log. ``versions`` has an entry a version that predicted.
    """

    start: datetime
    end: datetime
    as_of: datetime
    labels: int
    unknown: int
    versions: dict[int, LabelCounts]


class RealisedPerformance(Value):
    """A version's metrics on the rows that are due and labelled.

    ``rows`` is how many there were, ``estimates`` rest on all of them or on a sample whose size
    they tell. ``unreadable`` rows were left out: their label is no class of this version, or their
    prediction is not a number.
    """

    version: int
    rows: int
    unreadable: int
    estimates: tuple[Estimate, ...]
    calibration: tuple[CalibrationBin, ...]


class EstimatedPerformance(Value):
    """A version's metrics on rows whose labels nobody knows yet.

    ``method``: confidence-based (cbpe) for a classifier, direct loss estimation (dle) for a
    regression. ``rows`` were given, the estimates tell how many they rest on; ``holdout_rows`` are
    what the method learnt from, ``calibrator`` what it learnt ("" for dle). ``fixed_rows``: the
    intervals are of these very rows' metric, not of rows like them. ``problem`` says why there are
    no estimates, "" when there are.
    """

    method: Literal["cbpe", "dle"]
    rows: int
    holdout_rows: int
    calibrator: str
    fixed_rows: bool
    estimates: tuple[Estimate, ...]
    problem: str = ""


Change = Literal["better", "as expected", "worse", "inconclusive"]


class PerformanceChange(Value):
    """One metric, observed against expected.

    The evidence's ``value`` is the gain (> 0: better, whatever the metric's direction) with its
    interval, ``limit`` the loss that counts, as a negative gain.
    """

    change: Change
    reason: str
    evidence: Evidence
    observed: Estimate | None
    expected: Estimate | None
