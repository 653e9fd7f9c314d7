"""A look at a window of the prediction log: drift, performance, and what follows from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pyarrow as pa

from perennial.bundle.read import Bundle
from perennial.bundle.reference import bundle_reference
from perennial.contracts.drift import (
    Bins,
    Change,
    ColumnDrift,
    DriftOutcome,
    DriftVerdict,
    ReferenceStatistics,
    WindowStatistics,
)
from perennial.contracts.features import InputColumn
from perennial.contracts.performance import PerformanceChange
from perennial.contracts.refs import VersionRef
from perennial.contracts.retraining import Trigger
from perennial.contracts.watching import Look
from perennial.data.drift.counting import count_window, empty_window, merged
from perennial.decisions.binned import joined, named, shares
from perennial.decisions.drift import PREDICTIONS, judge_drift
from perennial.decisions.watch import drifted, find
from perennial.decisions.wording import counted, figure, listed
from perennial.spec import ModelSpec
from perennial.stores.bundles import open_stored
from perennial.stores.compute import HERE, Compute
from perennial.stores.importance import bundle_importance
from perennial.stores.performance import (
    SAMPLED_ROWS,
    Labelled,
    Realised,
    estimated_change,
    labelled_answers,
    realised_change,
)
from perennial.stores.predictions.answers import Sample, answers
from perennial.stores.predictions.reading import predictions
from perennial.stores.project import Project
from perennial.stores.promises import Promise, promise_of
from perennial.stores.registry.records import Version

SHOWN_COLUMNS = 6
"""Whose values before and after are pictured."""
_BARS = 10
_CLOCKS = timedelta(minutes=5)  # by how much servers' clocks may differ
_DAY = timedelta(days=1)
_STRETCHES = 32
_FOLDERS = ("predictions", "labels")


@dataclass(frozen=True)
class Seen:
    """A look, and what a report of it is drawn from: rows of the log, a sample of many, and of
    those with labels. None where there was nothing."""

    look: Look
    bundle: Bundle | None = None
    promise: Promise | None = None
    rows: pa.Table | None = None
    labelled: pa.Table | None = None
    columns: tuple[str, ...] = ()


def watch(
    project: Project,
    spec: ModelSpec,
    version: Version | None,
    window: tuple[datetime, datetime],
    *,
    now: datetime,
    threads: int = 1,
    compute: Compute = HERE,
) -> Seen:
    """Look at what the champion answered in a window, knowing the labels received before ``now``.

    ``spec`` is the model's present one: its drift and log sections and its label.delay hold.
    ``compute`` counts the answers, stretch by stretch of the window: the same wherever it does.
    Nothing that is in the data raises; IntegrityError is a damaged bundle or log, UnavailableError
    a store that does not answer.
    """
    log, labels = (project.uri(kind, spec.name) for kind in _FOLDERS)
    if version is None:
        why = f"no version of {spec.name} serves"
        return Seen(_look(spec, None, window, now, notes=(why,)))
    number, seed = version.ref.version, spec.split.seed
    bundle = open_stored(version.ref, project)
    promise = promise_of(version)
    held_out = promise.holdout.p if promise.holdout is not None else None
    left_out = {*spec.log.hash, *spec.log.omit}
    reference = bundle_reference(bundle, held_out, left_out, window[1] - window[0])
    counts, sample = empty_window(reference.bins), Sample(SAMPLED_ROWS)
    count = partial(_counted, log, number, bundle.schema.inputs, reference.bins)
    for each, drawn in compute.map(count, _stretches(window)):
        counts = merged(counts, each)
        sample.merge(drawn)
    drift = judge_drift(
        reference, counts, importance=bundle_importance(bundle), settings=spec.drift, seed=seed
    )
    rows, notes = sample.table(), [*promise.notes, *_left_out(bundle, left_out)]
    known = labelled_answers(bundle, spec.label.delay, number, log, labels, window, now)
    estimated, realised = None, None
    if rows is not None and drift.outcome is not DriftOutcome.FAULT:
        estimated, why = estimated_change(bundle, promise, rows, seed=seed, threads=threads)
        notes += [why] if why else []
    if known.rows is not None:
        realised = realised_change(bundle, number, promise, known.rows, seed=seed, threads=threads)
    notes += [*_about_labels(known, realised), *_ahead(log, max(now, window[1]))]
    look = _look(
        spec, version.ref, window, now,
        drift=drift if reference.bins else None,
        estimated=estimated,
        realised=realised,
        known=known,
        data=_fingerprint(version, sample, known),
        notes=tuple(notes),
        pictures=_pictures(reference, counts, drift),
    )  # fmt: skip
    return Seen(look, bundle, promise, rows, known.rows, tuple(reference.bins))


def _counted(
    log: str,
    version: int,
    inputs: tuple[InputColumn, ...],
    bins: Mapping[str, Bins],
    window: tuple[datetime, datetime],
) -> tuple[WindowStatistics, Sample]:
    """A stretch of the log in the bins of the reference, and rows drawn from it."""
    sample = Sample(SAMPLED_ROWS)
    counts = count_window(bins, sample.through(answers(log, version, inputs, *window)))
    return counts, sample.settled()


def _stretches(window: tuple[datetime, datetime]) -> list[tuple[datetime, datetime]]:
    """A window cut at midnights of UTC, where the log's folders are; a long one every few days."""
    start, end = (moment.astimezone(UTC) for moment in window)
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    days = (end - midnight) // _DAY + 1
    step = -(-days // _STRETCHES)
    cuts = [midnight + number * _DAY for number in range(step, days, step)]
    ends = [start, *(cut for cut in cuts if start < cut < end), end]
    return list(pairwise(ends))


def _look(
    spec: ModelSpec,
    version: VersionRef | None,
    window: tuple[datetime, datetime],
    now: datetime,
    *,
    drift: DriftVerdict | None = None,
    estimated: PerformanceChange | None = None,
    realised: Realised | None = None,
    known: Labelled | None = None,
    data: str = "",
    notes: tuple[str, ...] = (),
    pictures: dict[str, tuple[Change, ...]] | None = None,
) -> Look:
    rows = drift.rows if drift else 0
    labels = known.joined.versions.get(version.version) if known and version else None
    by_labels = realised.change if realised else None
    unexplained = realised.unexplained if realised else None
    finding, reason = find(
        drift,
        realised=by_labels,
        estimated=estimated,
        unexplained=unexplained,
        covered=known.inside / rows if known and rows else 0.0,
        labels=labels,
        joined=known.joined if known else None,
    )
    if version is None:
        reason = notes[0]
    evidence: dict[str, Any] = {
        "version": version.version if version else None,
        "rows": rows,
        "drift": drift.reason if drift else None,
        "columns": {c.column: c.reason for c in _worst(drift)},
        "estimated": estimated.reason if estimated else None,
        "realised": by_labels.reason if by_labels else None,
        "unexplained": unexplained.reason if unexplained else None,
    }
    trigger = Trigger(
        kind="drift" if drifted(drift) else "performance",
        reason=reason,
        at=min(now, window[1]),
        finding=finding,
        version=version.version if version else None,
        window=window,
        data=data,
        evidence={key: value for key, value in evidence.items() if value is not None},
    )
    return Look(
        model=spec.name,
        version=version,
        window=window,
        rows=rows,
        finding=finding,
        reason=reason,
        drift=drift,
        realised=by_labels,
        estimated=estimated,
        unexplained=unexplained,
        labels=labels,
        joined=known.joined if known else None,
        notes=notes,
        pictures=pictures or {},
        trigger=trigger,
    )


def _worst(drift: DriftVerdict | None) -> tuple[ColumnDrift, ...]:
    return (*drift.faults, *drift.drifted)[:SHOWN_COLUMNS] if drift else ()


def _fingerprint(version: Version, sample: Sample, known: Labelled) -> str:
    """Of the rows and labels that were seen."""
    seen = f"{version.ref.digest} {sample.rows} {sample.digest} {known.count} {known.digest}"
    return f"version {version.ref.version} {hashlib.sha256(seen.encode()).hexdigest()[:16]}"


def _left_out(bundle: Bundle, left_out: set[str]) -> Iterator[str]:
    names = [column.name for column in bundle.schema.inputs if column.name in left_out]
    if names:
        yield f"not compared, since the log hashes or leaves them out: {listed(names)}"


def _about_labels(known: Labelled, realised: Realised | None) -> Iterator[str]:
    joined = known.joined
    if joined.unknown:
        stray = f"{joined.unknown:,} of {joined.labels:,} labels received are of no prediction"
        yield f"{stray} in the log; they are not used"
    for what, number in (
        ("have several labels; the last received counts", "repeated"),
        ("have labels that contradict each other", "contradicted"),
        ("have a label that came before their event", "early"),
    ):
        if count := sum(getattr(each, number) for each in joined.versions.values()):
            yield f"{counted(count)} {what}"
    if realised is None:
        if known.count:
            yield f"none of {known.count:,} labels is one that this version predicts"
        return
    if realised.unreadable:
        yield f"{counted(realised.unreadable)} have a label that is no class of this version"
    if realised.clusters.widening > 1:
        by = f"{figure(realised.clusters.widening, 2)} times as wide as of independent rows"
        yield f"rows of the same time have similar losses: intervals by labels are {by}"


def _ahead(log: str, now: datetime) -> Iterator[str]:
    batches = predictions(log, now + _CLOCKS, None, ["_version"])
    if rows := sum(batch.num_rows for batch in batches):
        verb = "is" if rows == 1 else "are"
        yield f"{counted(rows)} of the log {verb} dated later than now: a server's clock is ahead"


def _pictures(
    reference: ReferenceStatistics, window: WindowStatistics, drift: DriftVerdict
) -> dict[str, tuple[Change, ...]]:
    """Shares of values of the columns that matter most, the predictions among them."""
    ranked = [c for c in drift.columns if reference.bins[c.column].kind != "time"]
    shown = [c.column for c in ranked if c.column in PREDICTIONS]
    shown += [c.column for c in ranked if c.column not in shown]
    wanted = sorted(shown[:SHOWN_COLUMNS], key=[c.column for c in ranked].index)
    return {name: _bars(reference, window, name) for name in wanted}


def _bars(
    reference: ReferenceStatistics, window: WindowStatistics, name: str
) -> tuple[Change, ...]:
    bins = reference.bins[name]
    places = joined(bins, _BARS)
    was, now = (shares(counts.columns[name], places) for counts in (reference.window, window))
    p, q = was / max(was.sum(), 1), now / max(now.sum(), 1)
    return tuple(
        Change(values=named(bins, places, at), before=float(p[at]), after=float(q[at]))
        for at in range(len(p))
        if p[at] or q[at]
    )
