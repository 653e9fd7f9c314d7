"""A study in Weights & Biases: a run a trial, one for the study, one for the registered version.

All runs of a study are one group, named like the study. They are written below the project
(``wandb sync`` uploads them later) unless ``WANDB_API_KEY`` or ``WANDB_MODE`` says otherwise;
``WANDB_PROJECT`` and ``WANDB_ENTITY`` say where to. Nothing of the machine, the code or the console
is recorded. Tracking never fails the work: its first error is logged and ends it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perennial.contracts.refs import StudyRef, VersionRef
from perennial.learning.studies import TrialRecord

_log = logging.getLogger(__name__)

POINT_EVERY = 5
"""Rounds between two points of a tracked learning curve; a point costs about 0.3 ms."""

_open_trackers = 0
_open_lock = threading.Lock()


class StudyTracker:
    """Where a model's studies are tracked. Making one does nothing; it costs when it is used.

    ``directory`` is the folder that holds W&B's own ``wandb`` folder. ``links`` (a flow run's id
    and address, for example) are in the config of every run.
    """

    def __init__(
        self,
        model: str,
        directory: Path,
        *,
        links: Mapping[str, str] | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        self._model = model
        self._directory = directory
        self._links = dict(links or {})
        self._tags = (model, *tags)
        self._off = _mode() == "disabled"
        self._broken = False

    @classmethod
    def off(cls) -> StudyTracker:
        """A tracker that tracks nothing."""
        tracker = cls("", Path())
        tracker._off = True
        return tracker

    @contextmanager
    def study(self, study: str, config: Mapping[str, Any]) -> Iterator[StudyLog]:
        """Track a study while it runs; leaves no process of W&B behind."""
        with self._running():
            log = StudyLog(self, study, config)
            try:
                yield log
            finally:
                log.close()

    def link_registration(self, study: StudyRef, version: VersionRef) -> str:
        """Point from a study's group to the version it became; returns the run's place or ""."""
        config = {
            "version": version.version,
            "digest": version.digest,
            "bundle": version.uri,
            "best_params": study.best_params,
            "best_rounds": study.best_rounds,
            study.metric: study.best_value,
        }
        with self._running():
            name = f"{version.model}@{version.version}"
            run = self._start(study.tracking_group, "registration", name, config)
            run.finish({"registered_version": name, "bundle_digest": version.digest})
            return run.place

    def _start(self, study: str, job: str, name: str, config: Mapping[str, Any]) -> _Run:
        """A run of a study's group. The same run of the same study has the same id every time."""
        run = _Run(self._attempt)
        project = os.environ.get("WANDB_PROJECT") or f"perennial-{self._model}"
        identity = hashlib.sha256(f"{project}/{study}/{job}/{name}".encode()).hexdigest()[:16]

        def start() -> None:
            import wandb

            self._directory.mkdir(parents=True, exist_ok=True)
            run.opened(
                wandb.init(
                    project=project,
                    group=study,
                    job_type=job,
                    id=identity,
                    name=name,
                    tags=self._tags,
                    dir=str(self._directory),
                    config={
                        **config,
                        "model": self._model,
                        "study": study,
                        "links": self._links,
                    },
                    mode=_mode(),
                    reinit="create_new",
                    settings=wandb.Settings(
                        silent=True, console="off", init_timeout=30, finish_timeout=60,
                        disable_git=True, disable_code=True, save_code=False, host="", program="",
                        symlink=False,
                        x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
                        x_save_requirements=False,
                    ),
                )
            )  # fmt: skip

        self._attempt(start)
        return run

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do something with W&B; its first error is logged, and nothing is tried after it."""
        if self._off or self._broken:
            return
        try:
            action()
        except Exception as error:
            self._broken = True
            _log.warning("Tracking in W&B ended, the work goes on: %s", error)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Ends W&B's own process with the last tracker of this process that uses it."""
        global _open_trackers  # noqa: PLW0603  # W&B has one such process a process
        if self._off:
            yield
            return
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        with _open_lock:
            _open_trackers += 1
        try:
            yield
        finally:
            with _open_lock:
                _open_trackers -= 1
                if not _open_trackers:
                    self._broken = False
                    self._attempt(_teardown)


class StudyLog:
    """The runs of one study. Trials may run side by side in threads."""

    def __init__(self, tracker: StudyTracker, study: str, config: Mapping[str, Any]) -> None:
        self._tracker = tracker
        self._study = study
        self._run = tracker._start(study, "study", study, config)
        self._best: float | None = None
        self._summary: dict[str, Any] = {}
        self.places: dict[str, str] = {}
        """Where each run is: its address, or its folder when W&B is offline."""

    def trial(self, number: int, origin: str, params: Mapping[str, Any]) -> TrialLog:
        """Start tracking a trial."""
        name = f"trial {number}"
        config = {**params, "trial": number, "origin": origin}
        run = self._tracker._start(self._study, "trial", name, config)
        if run.place:
            self.places[name] = run.place
        return TrialLog(run)

    def ended(self, record: TrialRecord, best: float | None) -> None:
        """A point of the study's own history; trials come in the order of their numbers.

        ``best`` is the best value of the study so far, this trial included.
        """
        point = {
            "value": record.value,
            "best_value": best,
            "rounds": record.rounds,
            "pruned": int(record.state == "pruned"),
            "failed": int(record.state == "failed"),
            "seconds": record.seconds,
        }
        self._run.point(record.number, {k: v for k, v in point.items() if v is not None})

    def found(self, summary: Mapping[str, Any]) -> None:
        """What the study came to, kept in its run's summary."""
        self._summary |= summary

    def close(self) -> None:
        if self._run.place:
            self.places["study"] = self._run.place
        self._run.finish(self._summary)


class TrialLog:
    """The run of one trial: its learning curve and its end."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def point(self, rounds: int, value: float, best: float) -> None:
        """The metric after so many rounds; most calls are dropped to keep the curve small."""
        if rounds % POINT_EVERY == 0 or rounds == 1:
            self._run.point(rounds, {"validation": value, "best": best})

    def ended(self, record: TrialRecord) -> None:
        self._run.finish(
            {
                "state": record.state,
                "value": record.value,
                "best_rounds": record.rounds,
                "stopped": record.stopped,
                "error": record.error,
                "feature_importance": dict(record.importance),
            },
            failed=record.state == "failed",
        )


class _Run:
    """One W&B run that may not exist."""

    def __init__(self, attempt: Callable[[Callable[[], object]], None]) -> None:
        self._attempt = attempt
        self._run: Any = None
        self.place = ""

    def opened(self, run: Any) -> None:
        self._run = run
        self.place = str(Path(run.dir).parent.resolve()) if run.offline else run.url

    def point(self, step: int, values: Mapping[str, Any]) -> None:
        if self._run is not None:
            self._attempt(lambda: self._run.log(dict(values), step=step))

    def finish(self, summary: Mapping[str, Any], failed: bool = False) -> None:
        if self._run is None:
            return
        self._attempt(lambda: self._run.summary.update(dict(summary)))
        self._attempt(lambda: self._run.finish(exit_code=int(failed)))


def _mode() -> Any:
    """Offline unless there is a key, or the environment says which."""
    key = "online" if os.environ.get("WANDB_API_KEY") else "offline"
    return os.environ.get("WANDB_MODE") or key


def _teardown() -> None:
    import wandb

    wandb.teardown()
