"""Runs in Weights & Biases that can't hurt: an error is logged once, and ends the tracking.

Runs are written below a folder (``wandb sync`` uploads them later) unless ``WANDB_API_KEY`` or
``WANDB_MODE`` says otherwise; ``WANDB_PROJECT`` and ``WANDB_ENTITY`` say where to. Nothing of the
machine, the code or the console is recorded, nothing is printed, and W&B's own process ends with
the last user in this one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

ANSWER_SECONDS = 30
"""How long W&B's server may keep a run waiting; a study loses about twice that, once."""

_users = 0
_users_lock = threading.Lock()


class Runs:
    """Makes runs of one project. ``directory`` None: tracks nothing."""

    def __init__(self, project: str, directory: Path | None) -> None:
        self._project = os.environ.get("WANDB_PROJECT") or project
        self._directory = None if _mode() == "disabled" else directory
        self._broken = False
        self._running: list[Any] = []

    @contextmanager
    def open(self) -> Iterator[None]:
        """Keeps W&B's process while runs are made."""
        global _users  # noqa: PLW0603  # there is one W&B a process
        if self._directory is None:
            yield
            return
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        with _users_lock:
            _users += 1
        try:
            yield
        finally:
            self._finish_running()
            with _users_lock:
                _users -= 1
                if not _users:
                    _end_process()

    def start(
        self, group: str, job: str, name: str, config: Mapping[str, Any], tags: Sequence[str]
    ) -> Run:
        """A new run. The same run of a group has the same id every time, so that one that is
        repeated after a kill takes the place of the first."""
        identity = f"{self._project}/{group}/{job}/{name}"
        run = Run(self)

        def init() -> None:
            import wandb

            assert self._directory is not None
            self._directory.mkdir(parents=True, exist_ok=True)
            wandb.setup(wandb.Settings(silent=True))
            begun = wandb.init(
                project=self._project,
                group=group,
                job_type=job,
                id=hashlib.sha256(identity.encode()).hexdigest()[:16],
                name=name,
                tags=tags,
                dir=str(self._directory),
                config=dict(config),
                mode=_mode(),
                reinit="create_new",
                settings=_settings(),
            )
            self._running.append(begun)
            run.opened(begun)

        self.attempt(init)
        return run

    def finish(self, run: Any, *, failed: bool) -> None:
        if run in self._running:
            self._running.remove(run)
            run.finish(exit_code=int(failed))

    def _finish_running(self) -> None:
        """What an error left open is ended too, all at once: each may wait for a silent server."""

        def finish(run: Any) -> None:
            with suppress(Exception):
                self.finish(run, failed=True)

        with ThreadPoolExecutor(max(1, len(self._running))) as pool:
            list(pool.map(finish, list(self._running)))

    def attempt(self, action: Callable[[], object]) -> None:
        """Do something with W&B; after its first error nothing is done any more."""
        if self._directory is None or self._broken:
            return
        try:
            action()
        except Exception as error:
            self._broken = True
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            _log.warning("tracking in W&B ended, the work goes on: %s", cause)


class Run:
    """One run, which may not exist. ``place``: its address, or its folder when W&B is offline."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._run: Any = None
        self.place = ""

    def opened(self, run: Any) -> None:
        self._run = run
        self.place = str(Path(run.dir).parent.resolve()) if run.offline else run.url

    def point(self, step: int, values: Mapping[str, Any]) -> None:
        """A point of the run's curves; steps must rise."""
        if self._run is not None:
            self._runs.attempt(lambda: self._run.log(dict(values), step=step))

    def finish(self, summary: Mapping[str, Any], *, failed: bool = False) -> None:
        if self._run is not None:
            self._runs.attempt(lambda: self._run.summary.update(dict(summary)))
            self._runs.attempt(lambda: self._runs.finish(self._run, failed=failed))


def _mode() -> Any:
    """Offline unless there is a key, or the environment says which."""
    key = "online" if os.environ.get("WANDB_API_KEY") else "offline"
    return os.environ.get("WANDB_MODE") or key


def _settings() -> Any:
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        init_timeout=ANSWER_SECONDS,
        finish_timeout=ANSWER_SECONDS,
        finish_timeout_raises=True,
        host="",
        program="",
        save_code=False,
        disable_code=True,
        disable_git=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        symlink=False,
    )


def _end_process() -> None:
    import wandb

    with suppress(Exception):
        wandb.teardown()
