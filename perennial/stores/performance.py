"""How well a version does in production, from its log: estimated, and by late labels."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import Bundle
from perennial.contracts.errors import InputError
from perennial.contracts.performance import JoinCounts, PerformanceChange
from perennial.contracts.verdicts import Estimate
from perennial.decisions.performance import Rarer, against_promise, unexplained
from perennial.learning.clusters import Clustering, clustering, widened
from perennial.learning.estimation import estimate
from perennial.learning.metrics import rarer_labels
from perennial.learning.realised import Outputs, read_outputs, readable, realise
from perennial.stores.predictions.answers import Columns, Sample, hashes_of, own
from perennial.stores.predictions.joining import DUE, LABEL, join_labels
from perennial.stores.predictions.tables import open_log, schema_of
from perennial.stores.promises import Promise

SAMPLED_ROWS = 20_000
"""That performance is measured on, at most: a random part of more."""

_OUTPUTS = ("_prediction", "_class", "_probabilities")
_INSTEAD = {"r2": "rmse"}
"""What is watched where the model's own metric can't be estimated."""


@dataclass(frozen=True)
class Labelled:
    """The version's answers that are due and labelled: ``rows`` (``_id``, ``_time``, outputs,
    inputs, ``_label``, ``_happened``; a sample of ``count``), and the join they come from.
    ``inside`` of them were predicted in the window itself. ``digest`` tells them and their labels
    from others."""

    rows: pa.Table | None
    count: int
    inside: int
    joined: JoinCounts
    digest: int


@dataclass(frozen=True)
class Realised:
    """By labels, against the promise and against the estimate of the same rows."""

    change: PerformanceChange
    unexplained: PerformanceChange | None
    clusters: Clustering
    unreadable: int


def watched_metric(bundle: Bundle) -> str:
    """The metric that the version's trials were ranked by, or the nearest that can be estimated."""
    return _INSTEAD.get(bundle.spec.metric, bundle.spec.metric)


def labelled_answers(
    bundle: Bundle,
    delay: timedelta,
    version: int,
    predictions_uri: str,
    labels_uri: str,
    window: tuple[datetime, datetime],
    as_of: datetime,
) -> Labelled:
    """What is known by labels received before ``as_of`` of answers in the window, and of as much
    before it as labels are late: by ``delay``, whatever the version was trained with. Raises as
    ``join_labels``."""
    label = bundle.spec.label.model_copy(update={"delay": delay})
    spec, (start, end) = bundle.spec.model_copy(update={"label": label}), window
    table = open_log(predictions_uri)
    log = schema_of(table) if table is not None else pa.schema([])
    columns = Columns(log, bundle.schema.inputs)
    time = spec.source.event_time
    timed = time is not None and time in log.names and pa.types.is_timestamp(log.field(time).type)
    asked = ["_id", "_time", "_version", "_arm", *_OUTPUTS, *columns.names]
    if time is not None and timed:
        asked.append(time)
    sample, inside, digest = Sample(SAMPLED_ROWS), 0, 0
    since = start - delay
    with join_labels(spec, predictions_uri, labels_uri, since, end, as_of) as joined:
        every = joined.batches([*dict.fromkeys(asked)], version)
        for batch in every if version in joined.counts.versions else ():
            known = own(batch.filter(_known(batch)), version)
            if not known.num_rows:
                continue
            happened = known.column("_time")
            if timed:
                happened = pc.coalesce(known.column(time), happened)
            kept = {name: known.column(name) for name in ("_id", "_time", *_OUTPUTS, LABEL)}
            kept |= columns.of(known) | {"_happened": happened}
            sample.add(pa.RecordBatch.from_pydict(kept))
            inside += int(pc.sum(pc.greater_equal(known.column("_time"), start)).as_py() or 0)
            digest = (digest + _label_digest(known)) % 2**64
        counts = joined.counts
    return Labelled(sample.table(), sample.rows, inside, counts, digest)


def estimated_change(
    bundle: Bundle, promise: Promise, rows: pa.Table, *, seed: int, threads: int
) -> tuple[PerformanceChange | None, str]:
    """The metric as the inputs foretell it on these answers, against the promise; None and why."""
    rows = _readable(bundle, rows)
    p = _outputs(bundle, rows).p
    found, why = _estimate(bundle, promise, rows, p, seed, threads, fixed_rows=False)
    if not found:
        return None, why
    metric, rarer = watched_metric(bundle), Rarer(holdout=_held(promise))
    return against_promise(metric, found, promise.estimates, rarer=rarer), ""


def realised_change(
    bundle: Bundle, version: int, promise: Promise, rows: pa.Table, *, seed: int, threads: int
) -> Realised | None:
    """The metric by labels; None when no label can be read. Rows of a day are alike, so intervals
    are as much wider as that makes them (``learning.clusters``)."""
    metric, every = watched_metric(bundle), rows.num_rows
    rows = _readable(bundle, rows)
    if not rows.num_rows:
        return None
    outputs = _outputs(bundle, rows)
    found = realise(bundle.spec, version, outputs, seed=seed).estimates
    alike = clustering(bundle.objective, outputs.y, outputs.p, rows["_happened"].to_numpy())
    promised = widened(promise.estimates, alike.widening_of(promise.rows, promise.days or 1.0))
    rarer = rarer_labels(bundle.objective, outputs.y)
    change = against_promise(
        metric, widened(found, alike.widening), promised, rarer=Rarer(rarer, promise.rarer)
    )
    foretold, _ = _estimate(bundle, promise, rows, outputs.p, seed, threads, fixed_rows=True)
    beyond = None
    if any(e.metric == metric for e in foretold):
        wider, few = widened(foretold, alike.widening), Rarer(rarer, _held(promise))
        beyond = unexplained(metric, found, wider, rarer=few)
    return Realised(change, beyond, alike, every - rows.num_rows)


def _held(promise: Promise) -> int | None:
    """Of the labels that estimates are learnt from, those not of the commonest class."""
    held = promise.holdout
    return None if held is None else rarer_labels(held.objective, held.y)


def _estimate(
    bundle: Bundle,
    promise: Promise,
    rows: pa.Table,
    p: np.ndarray,
    seed: int,
    threads: int,
    *,
    fixed_rows: bool,
) -> tuple[tuple[Estimate, ...], str]:
    """What can be estimated of readable rows and their predictions ``p``; and if nothing, why (""
    where the promise's notes say it)."""
    if promise.holdout is None:
        return (), ""
    x = None
    if bundle.objective == "regression" and rows.num_rows:
        predictor = Predictor(bundle, threads)
        try:
            x = predictor.matrix(predictor.frame(rows))
        except InputError as error:  # columns that the log hashes, or leaves out
            return (), f"nothing can be estimated: {error.message.splitlines()[0]}"
    found = estimate(
        promise.holdout, p, x, bundle.schema,
        seed=seed, fixed_rows=fixed_rows, threads=threads,
    )  # fmt: skip
    return found.estimates, f"nothing can be estimated: {found.problem}" if found.problem else ""


def _outputs(bundle: Bundle, rows: pa.Table) -> Outputs:
    return read_outputs(rows.to_batches(), bundle.objective, bundle.schema.classes)


def _readable(bundle: Bundle, rows: pa.Table) -> pa.Table:
    kept = readable(rows.to_batches(), bundle.objective, bundle.schema.classes)
    return rows.filter(pa.array(kept))


def _known(batch: pa.RecordBatch) -> pa.Array:
    return pc.and_(batch.column(LABEL).is_valid(), batch.column(DUE))


def _label_digest(batch: pa.RecordBatch) -> int:
    """A number of these rows and their labels, whatever their order."""
    both = hashes_of(batch.column("_id")) * np.uint64(31) + hashes_of(batch.column(LABEL))
    return int(both.sum(dtype=np.uint64))
