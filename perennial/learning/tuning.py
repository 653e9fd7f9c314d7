"""Search for the parameters of a model: an Optuna study that is kept, pruned, parallel, repeatable.

Trials come in rounds of ``tuning.batch``. What a round tries depends on the rounds before it alone,
and no trial sees another of its round, so the study is the same to the last bit whatever the number
of cores, whichever trial ends first, and however often the process was killed on the way. (A
``tuning.timeout`` that strikes is the exception: it ends the study where the clock says.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from perennial.contracts.errors import InputError, PerennialError, Problem
from perennial.contracts.metrics import METRICS
from perennial.learning.constraints import check_constraints
from perennial.learning.matrices import Matrices
from perennial.learning.space import (
    Params,
    parameter_importance,
    propose,
    searched,
    starting_points,
)
from perennial.learning.studies import StudyStore, TrialRecord, frozen
from perennial.learning.tracking import StudyLog, StudyTracker
from perennial.learning.trials import Proposal, TrialRunner, Trials
from perennial.spec import ModelSpec

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class StudyResult:
    """A finished study.

    ``best`` is the trial that won, ``records`` are all in order, ``importances`` how much each
    parameter mattered (shares of 1; may be empty), ``places`` where each run of this process is
    tracked, by name (``study``, ``trial 0``…): its address, or its folder when W&B is offline.
    """

    study: str
    metric: str
    best: TrialRecord
    records: tuple[TrialRecord, ...]
    importances: Mapping[str, float]
    places: Mapping[str, str]

    @property
    def best_params(self) -> Params:
        """The searched ones; with ``training.params`` and ``best_rounds`` they make the model."""
        return self.best.params

    @property
    def best_rounds(self) -> int:
        return self.best.rounds

    @property
    def best_value(self) -> float:
        return _value(self.best)

    @property
    def trials(self) -> int:
        return len(self.records)

    @property
    def pruned(self) -> int:
        return sum(record.state == "pruned" for record in self.records)

    @property
    def failed(self) -> int:
        return sum(record.state == "failed" for record in self.records)


def tune(
    spec: ModelSpec,
    matrices: Matrices,
    *,
    study_name: str,
    storage_url: str,
    warm_start: Sequence[Mapping[str, object]] = (),
    tracker: StudyTracker | None = None,
    workers: int = 1,
    progress: Progress = lambda *_: None,
    elsewhere: Callable[[float], Trials] | None = None,
) -> StudyResult:
    """Run the study to its end, or what is left of it.

    The name stands for the inputs: make it from a digest of the matrices and the settings. A study
    of this name that has ended gives its result again without training; one that was interrupted
    goes on.

    Args:
        warm_start: Best parameters of former versions, newest first; a new study tries up to
            ``tuning.warm_start`` of them first, and XGBoost's defaults when there are none.
        workers: Cores to use: as many trials side by side, and what is left as threads in each.
        progress: Called in this thread with trials done, trials in all, and a line of text.
        elsewhere: Makes what runs trials outside this process, ``workers`` at a time, given when
            they must end (of ``time.monotonic``). Trials are the same to the last bit.

    Raises InputError when the name is taken by a study of other settings and for a constraint of
    what is no feature, PerennialError when every trial failed, UnavailableError when the database
    does not answer.
    """
    check_constraints(spec, matrices.schema)
    deadline = time.monotonic() + spec.tuning.timeout.total_seconds()
    better = METRICS[spec.metric].greater_is_better
    with StudyStore.open(
        storage_url, study_name, searched(spec), greater_is_better=better
    ) as store:
        settings = _settings(spec, matrices)
        starts = _begin(store, study_name, settings, _starts(spec, warm_start))
        study = _Study(spec, store, starts, progress)
        if study.ended or tracker is None:
            tracker = StudyTracker(spec.name, None)
        parallel = max(1, min(workers, spec.tuning.batch))
        threads = max(1, workers // parallel)
        runner: Trials = (
            TrialRunner(spec, matrices, cores=workers, threads=threads, deadline=deadline)
            if elsewhere is None
            else elsewhere(deadline)
        )
        with tracker.study(study_name, settings) as log:
            study.run(runner, parallel, log)
            result = study.result(study_name)
            log.found(_summary(result))
    return replace(result, places=log.places)


class _Study:
    """A study on its way: what has ended, and what comes next."""

    def __init__(
        self, spec: ModelSpec, store: StudyStore, starts: Sequence[Proposal], progress: Progress
    ) -> None:
        self._spec = spec
        self._store = store
        self._starts = starts
        self._progress = progress
        self._space = searched(spec)
        self._total = spec.tuning.trials if self._space else 1
        self._better = METRICS[spec.metric].greater_is_better
        self._records = {n: r for n, r in store.records().items() if n < self._total}

    @property
    def ended(self) -> bool:
        """All trials have, or the time was up for as many as are asked for now."""
        return len(self._records) == self._total or self._store.get("out_of_time_at") == self._total

    def run(self, runner: Trials, parallel: int, log: StudyLog) -> None:
        """Run what is missing, round by round."""
        batch = self._spec.tuning.batch
        with ThreadPoolExecutor(parallel) as pool:
            for first in range(0, self._total, batch):
                if self.ended:
                    return
                numbers = range(first, min(first + batch, self._total))
                try:
                    self._run_round(numbers, runner, pool, log)
                except BaseException:  # an interrupt too: trials end within a boosting round
                    runner.cancelled.set()
                    raise
                if self._best(self._total) is None:
                    causes = [record.error for record in self._before(self._total)]
                    raise PerennialError(f"all {len(causes)} trials failed; the first: {causes[0]}")
                if runner.out_of_time and len(self._records) < self._total:
                    self._store.put("out_of_time_at", self._total)

    def _run_round(
        self, numbers: range, runner: Trials, pool: ThreadPoolExecutor, log: StudyLog
    ) -> None:
        before = self._before(numbers.start)
        finished = [_value(record) for record in before if record.state == "complete"]
        missing = [p for p in self._proposals(numbers) if p.number not in self._records]
        missing.sort(key=lambda p: p.params.get("learning_rate", 0))  # the slowest first
        running = {p.number: pool.submit(runner.run, p, finished, log) for p in missing}
        for number in numbers:
            if number in running:
                record = running[number].result()
                if record is None:
                    continue
                self._store.add(record)
                self._records[number] = record
            self._tell(self._records[number], log)

    def _proposals(self, numbers: range) -> Iterator[Proposal]:
        """The trials of a round: starting points first, then the search."""
        known = [record for record in self._before(numbers.start) if record.state != "failed"]
        found = propose(
            self._space,
            frozen(known, self._space),
            greater_is_better=self._better,
            seed=(self._spec.training.seed, numbers.start),
        )
        for number in numbers:
            if number < len(self._starts):
                yield self._starts[number]
            else:
                yield Proposal(number, "search", next(found))

    def _tell(self, record: TrialRecord, log: StudyLog) -> None:
        best = self._best(record.number + 1)
        log.ended(record, best.value if best else None)
        how = record.error or f"{self._spec.metric} {record.value:.6g} at round {record.rounds}"
        so_far = f", best {best.value:.6g}" if best else ""
        text = f"trial {record.number} {record.state}: {how}{so_far}"
        self._progress(record.number + 1, self._total, text)

    def _before(self, number: int) -> list[TrialRecord]:
        return [self._records[n] for n in range(number) if n in self._records]

    def _best(self, before: int) -> TrialRecord | None:
        """The best of the complete trials with a number below ``before``, the first on a tie."""
        sign = -1.0 if self._better else 1.0
        complete = [r for r in self._before(before) if r.state == "complete"]
        return min(complete, key=lambda r: (sign * _value(r), r.number), default=None)

    def result(self, name: str) -> StudyResult:
        best = self._best(self._total)
        assert best is not None
        records = self._before(self._total)
        return StudyResult(
            study=name,
            metric=self._spec.metric,
            best=best,
            records=tuple(records),
            importances=parameter_importance(
                frozen(records, self._space), greater_is_better=self._better
            ),
            places={},
        )


def _value(record: TrialRecord) -> float:
    assert record.value is not None
    return record.value


def _settings(spec: ModelSpec, matrices: Matrices) -> dict[str, Any]:
    """What a study's trials depend on, as JSON; the number of trials and the time may grow."""
    return {
        "objective": spec.objective,
        "metric": spec.metric,
        "space": {name: ends.model_dump(mode="json") for name, ends in searched(spec).items()},
        "batch": spec.tuning.batch,
        "prune": spec.tuning.prune,
        "training": spec.training.model_dump(mode="json", exclude={"refit"}),
        "features": [feature.name for feature in matrices.schema.features],
        "rows": [len(matrices.y_train), len(matrices.y_validation)],
    }


def _starts(spec: ModelSpec, warm_start: Sequence[Mapping[str, object]]) -> list[Proposal]:
    limit = spec.tuning.warm_start
    origin = "former version" if warm_start and limit else "defaults"
    points = starting_points(searched(spec), warm_start, limit)
    return [Proposal(number, origin, point) for number, point in enumerate(points)]


def _begin(
    store: StudyStore, name: str, settings: dict[str, Any], starts: list[Proposal]
) -> list[Proposal]:
    """Start a study, or take up one of these settings with the starting points it began with."""
    kept = store.get("settings")
    if kept is None:
        store.put("starts", [asdict(start) for start in starts])
        store.put("settings", settings)
        return starts
    if kept != settings:
        changed = [key for key in settings if settings[key] != kept.get(key)]
        raise InputError(
            Problem(
                f"study {name}",
                f"its trials ran with another {' and another '.join(changed)}",
                "give every digest of the inputs its own study",
            )
        )
    return [Proposal(**start) for start in store.get("starts")]


def _summary(result: StudyResult) -> dict[str, Any]:
    """What the study's tracked run ends with."""
    return {
        "best_value": result.best_value,
        "best_rounds": result.best_rounds,
        "best_trial": result.best.number,
        "best_params": result.best_params,
        "trials": result.trials,
        "trials_pruned": result.pruned,
        "trials_failed": result.failed,
        "parameter_importance": dict(result.importances),
        "feature_importance": dict(result.best.importance),
    }
