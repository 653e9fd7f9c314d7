"""The past of one model in memory. What is asked of a moment is answered with what was known then.

Whatever is trained, judged, looked at or measured is kept by its moments, so that policies share
it. Only ``metric`` knows more than its moment did: it is what the policies are compared by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from perennial.bundle.outputs import aligned, output_columns
from perennial.contracts.backtest import BacktestPlan, Recipe
from perennial.contracts.drift import DriftOutcome
from perennial.contracts.errors import PerennialError
from perennial.contracts.performance import PerformanceChange
from perennial.contracts.refs import Value
from perennial.contracts.retraining import Result
from perennial.contracts.verdicts import Outcome
from perennial.data.drift.counting import count_window
from perennial.data.features import FeatureProgram
from perennial.data.frames import to_arrow
from perennial.data.labels import encode_label, label_classes
from perennial.data.splits import unlearned
from perennial.decisions.backtest import Seen
from perennial.decisions.drift import judge_drift
from perennial.decisions.gates import judge
from perennial.decisions.watch import find
from perennial.decisions.wording import counted
from perennial.spec import ModelSpec
from perennial.stores import tables
from perennial.stores.folders import new_folder
from perennial.stores.hindsight.candidates import Candidate, find_recipe, train_candidate
from perennial.stores.performance import realised_change
from perennial.stores.promises import Promise


class Judged(Value):
    """What the gates made of a candidate: taken over, kept out, the same again, or none."""

    outcome: Result
    verdict: str
    rows: int
    seconds: float


def read_past(spec: ModelSpec, plan: BacktestPlan) -> pd.DataFrame:
    """The plan's rows in canonical order: all, or a random part of them."""
    frames, total = [], plan.dataset.rows
    kept = np.ones(total, bool)
    if plan.rows < total:
        random = np.random.default_rng(spec.split.seed)
        kept[:] = False
        kept[random.choice(total, plan.rows, replace=False)] = True
    start = 0
    for frame in tables.scan(plan.dataset, spec):
        frames.append(frame[kept[start : start + len(frame)]])
        start += len(frame)
    return pd.concat(frames, ignore_index=True)


class Past:
    """``frame`` holds a model's rows in canonical order, ``source`` is its features.py.

    Files of trainings are written below ``folder``, one training's at a time. The rounds of a
    ``recipe`` without any are found at ``first``. Raises PerennialError as training does there.
    """

    def __init__(
        self,
        spec: ModelSpec,
        source: str,
        frame: pd.DataFrame,
        recipe: Recipe,
        first: datetime,
        folder: Path,
        threads: int,
    ) -> None:
        assert spec.source.event_time is not None
        self._spec, self._source, self._frame = spec, source, frame
        self._folder, self._threads = folder, threads
        self._program = FeatureProgram.load(source, spec)
        self._times = frame[spec.source.event_time]
        label = frame[spec.label.column]
        self._labelled = label.notna().to_numpy()
        self._classes = label_classes(label[self._labelled], spec)
        self._candidates: dict[datetime, Candidate | PerennialError] = {}
        self._judged: dict[tuple[datetime, datetime | None], Judged] = {}
        self._promised: dict[datetime, Promise] = {}
        self._seen: dict[tuple[datetime, datetime], Seen] = {}
        self._metrics: dict[tuple[datetime, datetime, datetime], dict[str, float]] = {}
        with new_folder(folder) as place:
            self.recipe = find_recipe(
                spec, self._program, self._known(first), first, recipe, place, threads
            )

    def judged(self, at: datetime, champion: datetime | None) -> Judged:
        """What would have become of a candidate of this moment, beside the version trained at
        another one (None: beside nobody)."""
        key = (at, champion)
        if key not in self._judged:
            self._judged[key] = self._judge(at, champion)
        return self._judged[key]

    def seen(self, at: datetime, trained_at: datetime) -> Seen:
        """What the drift watch would have found at a moment of the version trained at another."""
        key = (at, trained_at)
        if key not in self._seen:
            self._seen[key] = self._look(at, trained_at)
        return self._seen[key]

    def metric(
        self, name: str, trained_at: datetime, start: datetime, end: datetime
    ) -> float | None:
        """A version's metric on the labelled rows from ``start`` until ``end`` (see ``_between``),
        whenever their labels came; None where they don't define it."""
        key = (trained_at, start, end)
        if key not in self._metrics:
            from perennial.learning.metrics import scores

            rows = self._labelled_between(start, end)
            y, p = self._answers(self.version(trained_at), rows, self._classes)
            self._metrics[key] = scores(self._spec.objective, y, p) if len(y) else {}
        return self._metrics[key].get(name)

    def prepare(
        self, moments: Sequence[datetime], progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Train candidates that will be asked for, side by side: ``progress`` is told how many are
        done."""
        missing = [at for at in moments if at not in self._candidates]
        with ThreadPoolExecutor(self._threads) as pool:
            for done, found in enumerate(pool.map(self._trained, missing)):
                self._candidates[missing[done]] = found
                progress(done + 1)

    def labelled_rows(self, start: datetime, end: datetime) -> int:
        return len(self._labelled_between(start, end))

    def version(self, at: datetime) -> Candidate:
        """The candidate of a moment, trained if need be. Raises PerennialError when there can be
        none."""
        if at not in self._candidates:
            self._candidates[at] = self._trained(at)
        found = self._candidates[at]
        if isinstance(found, PerennialError):
            raise found
        return found

    def _trained(self, at: datetime) -> Candidate | PerennialError:
        with new_folder(self._folder) as place:
            try:
                return train_candidate(
                    self._spec, self._program, self._source, self._known(at), at,
                    self.recipe, place, self._threads,
                )  # fmt: skip
            except PerennialError as error:
                return error

    def _judge(self, at: datetime, champion: datetime | None) -> Judged:
        from perennial.learning.evaluation import measure
        from perennial.learning.metrics import rarer_labels

        try:
            candidate = self.version(at)
        except PerennialError as error:
            return Judged(outcome="failed", verdict=error.message, rows=0, seconds=0.0)
        cost = {"rows": candidate.rows, "seconds": candidate.seconds}
        rows = self._frame.iloc[candidate.test].reset_index(drop=True)
        beaten, compared, left_out = None, None, ""
        if champion is not None:
            version = self.version(champion)
            if version.bundle.digest == candidate.bundle.digest:
                same = "the same data and settings make the same version again"
                return Judged(outcome="unchanged", verdict=same, **cost)
            values = version.predictor.predict(rows).values
            beaten = aligned(values, version.bundle.schema.classes, candidate.bundle.schema.classes)
            compared = ~np.isin(candidate.test, version.fitted)
            if not compared.all():
                seen = counted(int((~compared).sum()))
                left_out = f"the {seen} that the version of {champion:%Y-%m-%d %H:%M} was fitted to"
        found = measure(
            self._spec,
            candidate.y,
            candidate.p,
            beaten,
            rows,
            seed=self._spec.split.seed,
            compared=compared,
        )
        times = rows[self._spec.source.event_time]
        days = max((times.max() - times.min()) / timedelta(days=1), 1.0)
        rarer = rarer_labels(self._spec.objective, candidate.y)
        self._promised[at] = Promise(found.estimates, len(rows), days, holdout=None, rarer=rarer)
        judgement = judge(
            self._spec.gates,
            found,
            serving=None,
            has_champion=champion is not None,
            left_out=left_out,
            probed=False,
        )
        outcome: Result = "promoted" if judgement.outcome is Outcome.PASSED else "kept"
        return Judged(outcome=outcome, verdict=judgement.reason, **cost)

    def _look(self, at: datetime, trained_at: datetime) -> Seen:
        """A look at the rows that the version answered itself: none from before it was trained."""
        spec, version = self._spec, self.version(trained_at)
        start, due = at - spec.drift.window, at - spec.label.delay
        rows = self._between(max(start, trained_at), at)
        inputs = {column.name: column for column in version.bundle.schema.inputs}
        frame = version.predictor.frame(self._frame.iloc[rows].reset_index(drop=True))
        values = version.predictor.predict_frame(frame).values
        answers = to_arrow(frame[list(inputs)], inputs)
        for name, column in output_columns(version.bundle.schema.classes, values).items():
            answers = answers.append_column(name, column)
        verdict = judge_drift(
            version.reference,
            count_window(version.reference.bins, [answers]),
            importance=version.column_importance,
            settings=spec.drift,
            seed=spec.split.seed,
        )
        known = self._labelled_between(max(start - spec.label.delay, trained_at), due)
        inside = known[known >= rows[0]] if len(rows) else known[:0]
        finding, why = find(
            verdict,
            realised=self._realised(trained_at, known) if len(known) else None,
            covered=len(inside) / max(len(rows), 1),
        )
        return Seen(finding=finding, why=why, drifted=verdict.outcome is DriftOutcome.DRIFTED)

    def _realised(self, trained_at: datetime, rows: np.ndarray) -> PerformanceChange | None:
        """The version's metric on labelled rows against what its evaluation promised."""
        version = self.version(trained_at)
        y, p = self._answers(version, rows, version.bundle.schema.classes)
        labels = (
            pa.array(y)
            if self._classes is None
            else pa.array(self._classes).take(pa.array(y.astype(np.int64)))
        )
        answers = pa.table(
            {
                **output_columns(version.bundle.schema.classes, p),
                "_label": labels,
                "_happened": pa.array(self._times.iloc[rows]),
            }
        )
        found = realised_change(
            version.bundle, 0, self.promise(trained_at), answers,
            seed=self._spec.split.seed, threads=self._threads,
        )  # fmt: skip
        return found.change if found else None

    def promise(self, trained_at: datetime) -> Promise:
        """What the evaluation of a moment's candidate promised."""
        if trained_at not in self._promised:
            self.judged(trained_at, None)
        return self._promised[trained_at]

    def _answers(
        self, version: Candidate, rows: np.ndarray, classes: tuple[str, ...] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels of labelled rows by the classes of all the past, and a version's predictions by
        the ones given."""
        frame = self._frame.iloc[rows].reset_index(drop=True)
        y = encode_label(frame[self._spec.label.column], self._spec, self._classes)
        p = version.predictor.predict(frame).values
        return y, aligned(p, version.bundle.schema.classes, classes)

    def _known(self, at: datetime) -> pd.DataFrame:
        """The rows there were, up to and including the events of this moment."""
        return self._frame.iloc[: self._place(at, "right")]

    def _between(self, start: datetime, end: datetime) -> np.ndarray:
        """Places of the rows with ``start <= event time < end``; where labels come with their
        events ``start < event time <= end``, as versions of both moments learn from theirs."""
        first, last = (self._place(unlearned(self._spec, at), "left") for at in (start, end))
        return np.arange(first, last)

    def _labelled_between(self, start: datetime, end: datetime) -> np.ndarray:
        places = self._between(start, end)
        labelled: np.ndarray = places[self._labelled[places]]
        return labelled

    def _place(self, at: datetime, side: Literal["left", "right"]) -> int:
        return int(self._times.searchsorted(pd.Timestamp(at), side=side))
