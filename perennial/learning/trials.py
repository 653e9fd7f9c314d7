"""One trial of a study: trained on the shared matrix, followed, given up when it is hopeless."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import xgboost as xgb

from perennial.contracts.errors import InputError, PerennialError
from perennial.contracts.metrics import METRICS
from perennial.learning.matrices import Matrices, quantised
from perennial.learning.pruning import EVERY, hopeless
from perennial.learning.space import Params
from perennial.learning.studies import TrialRecord
from perennial.learning.tracking import StudyLog, TrialLog
from perennial.learning.training import Watch, booster_params, first_line, importance, own_metric
from perennial.spec import ModelSpec

MAIN_FEATURES = 30
"""How many features' importance a trial keeps."""


@dataclass(frozen=True)
class Proposal:
    """A trial to run: its place in the study, where its parameters came from, and they."""

    number: int
    origin: str
    params: Params


class Trials(ABC):
    """Runs trials, side by side in threads.

    After ``deadline`` (of ``time.monotonic``) running trials end with what they have reached, and
    none begins but the study's first. ``cancelled`` ends all within a round.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self.cancelled = threading.Event()

    @property
    def out_of_time(self) -> bool:
        return time.monotonic() >= self._deadline

    def run(
        self, proposal: Proposal, finished: Sequence[float], log: StudyLog
    ) -> TrialRecord | None:
        """Train a trial; ``finished`` are the values of the trials it is compared with.

        A failure is a record too. None when there was no time left to begin.
        """
        if self.cancelled.is_set() or (self.out_of_time and proposal.number > 0):
            return None
        tracked = log.trial(proposal.number, proposal.origin, proposal.params)
        record = self._trained(proposal, finished, tracked)
        if record is not None:
            tracked.ended(record)
        return record

    @abstractmethod
    def _trained(
        self, proposal: Proposal, finished: Sequence[float], tracked: TrialLog
    ) -> TrialRecord | None:
        """The trial's record; None when there was no time left where it should run."""


class TrialRunner(Trials):
    """Runs trials in this process: ``cores`` are for building a matrix, ``threads`` for each
    trial."""

    def __init__(
        self, spec: ModelSpec, matrices: Matrices, *, cores: int, threads: int, deadline: float
    ) -> None:
        super().__init__(deadline)
        self._spec = spec
        self._schema = matrices.schema
        self._threads = threads
        self._building = threading.Lock()
        # A searched max_bin needs a matrix a value; those in use live on when they leave the cache.
        self._matrix = lru_cache(maxsize=2)(lambda bins: quantised(matrices, bins, cores))

    def _trained(
        self, proposal: Proposal, finished: Sequence[float], tracked: TrialLog
    ) -> TrialRecord:
        start = time.monotonic()
        try:
            return self._train(proposal, finished, tracked, start)
        except InputError:  # of what is around it, a full disk: the trial itself may yet run
            raise
        except (xgb.core.XGBoostError, PerennialError, MemoryError) as error:
            return TrialRecord(
                number=proposal.number,
                origin=proposal.origin,
                params=proposal.params,
                state="failed",
                value=None,
                rounds=0,
                curve={},
                stopped="",
                error=first_line(error),
                importance={},
                seconds=time.monotonic() - start,
            )

    def _train(
        self, proposal: Proposal, finished: Sequence[float], tracked: TrialLog, start: float
    ) -> TrialRecord:
        training, tuning = self._spec.training, self._spec.tuning
        sign = -1.0 if METRICS[self._spec.metric].greater_is_better else 1.0
        losses = [sign * value for value in finished] if tuning.prune else []

        def look(watch: Watch) -> str:
            rounds = len(watch.losses)
            tracked.point(rounds, sign * watch.losses[-1], watch.best_value)
            if self.cancelled.is_set():
                return "cancelled"
            if rounds % EVERY == 0 and hopeless(watch.best_losses, losses, training.rounds):
                return "hopeless"
            return "timeout" if self.out_of_time else ""

        watch = Watch(self._spec, look)
        settings = booster_params(self._schema, self._spec, proposal.params, self._threads)
        with self._building:
            rows, validation = self._matrix(settings["max_bin"])
        booster = xgb.train(
            settings,
            rows,
            training.rounds,
            evals=[(validation, "validation")],
            callbacks=[watch],
            custom_metric=own_metric(self._spec),
            verbose_eval=False,
        )
        main = list(importance(booster, self._schema).items())[:MAIN_FEATURES]
        return TrialRecord(
            number=proposal.number,
            origin=proposal.origin,
            params=proposal.params,
            state="pruned" if watch.stopped == "hopeless" else "complete",
            value=watch.best_value,
            rounds=watch.best_rounds,
            curve={r: sign * watch.best_losses[r - 1] for r in _places(len(watch.losses))},
            stopped=watch.stopped,
            error="",
            importance=dict(main),
            seconds=time.monotonic() - start,
        )


def _places(rounds: int) -> list[int]:
    """Where a curve is kept: 10, 20, 50, 100… and the last round."""
    places = [step * 10**power for power in range(1, 6) for step in (1, 2, 5)]
    return [*(place for place in places if place < rounds), rounds]
