"""A study in Weights & Biases: a run a trial, one for the study, one for the registered version.

All runs of a study are one group, named like the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perennial.contracts.refs import StudyRef, VersionRef
from perennial.learning.studies import TrialRecord
from perennial.learning.wandb_runs import Run, Runs

POINT_EVERY = 5
"""Rounds between two points of a tracked learning curve; a point costs about 0.3 ms."""


class StudyTracker:
    """Tracks a model's studies. Making one does nothing; it costs when it is used.

    ``directory`` is the folder that holds W&B's own ``wandb`` folder; None tracks nothing.
    ``links`` (a flow run's id and address, for example) are in the config of every run, and so is
    ``model``; ``tags`` are its tags.
    """

    def __init__(
        self,
        model: str,
        directory: Path | None,
        *,
        links: Mapping[str, str] | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        self._runs = Runs(f"perennial-{model}", directory)
        self._tags = tuple(tags)
        self._shared = {"model": model, "links": dict(links or {})}

    @contextmanager
    def study(self, study: str, config: Mapping[str, Any]) -> Iterator[StudyLog]:
        """Track a study while it runs."""
        with self._runs.open():
            log = StudyLog(self, study, config)
            try:
                yield log
            finally:
                log.close()

    def link_registration(self, study: StudyRef, version: VersionRef) -> str:
        """Point from a study's group to the version it became; returns the run's place."""
        config = {
            "version": version.version,
            "digest": version.digest,
            "bundle": version.uri,
            "best_params": study.best_params,
            "best_rounds": study.best_rounds,
            study.metric: study.best_value,
        }
        name = f"{version.model}@{version.version}"
        with self._runs.open():
            run = self.start(study.tracking_group, "registration", name, config)
            run.finish({"registered_version": name, "bundle_digest": version.digest})
        return run.place

    def start(self, study: str, job: str, name: str, config: Mapping[str, Any]) -> Run:
        """A run of a study's group."""
        return self._runs.start(
            study, job, name, {**config, "study": study, **self._shared}, self._tags
        )


class StudyLog:
    """The runs of one study. Trials may run side by side in threads."""

    def __init__(self, tracker: StudyTracker, study: str, config: Mapping[str, Any]) -> None:
        self._tracker = tracker
        self._study = study
        self._run = tracker.start(study, "study", study, config)
        self._summary: dict[str, Any] = {}
        self.places = {"study": self._run.place} if self._run.place else {}
        """Where each run is, by name (``study``, ``trial 0``…)."""

    def trial(self, number: int, origin: str, params: Mapping[str, Any]) -> TrialLog:
        """Start tracking a trial."""
        name = f"trial {number}"
        config = {**params, "trial": number, "origin": origin}
        run = self._tracker.start(self._study, "trial", name, config)
        if run.place:
            self.places[name] = run.place
        return TrialLog(run)

    def ended(self, record: TrialRecord, best: float | None) -> None:
        """A point of the study's own curves; trials come in the order of their numbers.

        ``best`` is the best value of the study so far, this trial included.
        """
        values = {
            "value": record.value,
            "best_value": best,
            "rounds": record.rounds,
            "pruned": int(record.state == "pruned"),
            "failed": int(record.state == "failed"),
            "seconds": record.seconds,
        }
        self._run.point(record.number, {k: v for k, v in values.items() if v is not None})

    def found(self, summary: Mapping[str, Any]) -> None:
        """What the study came to."""
        self._summary |= summary

    def close(self) -> None:
        self._run.finish(self._summary, failed=not self._summary)


class TrialLog:
    """The run of one trial: its learning curve and its end."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def point(self, rounds: int, value: float, best: float) -> None:
        """The metric after so many rounds; most calls are dropped to keep the curve small."""
        if rounds % POINT_EVERY == 0 or rounds == 1:
            self._run.point(rounds, {"validation": value, "best": best})

    def ended(self, record: TrialRecord) -> None:
        summary = {
            "state": record.state,
            "value": record.value,
            "best_rounds": record.rounds,
            "stopped": record.stopped,
            "error": record.error,
            "feature_importance": dict(record.importance),
        }
        self._run.finish(summary, failed=record.state == "failed")
