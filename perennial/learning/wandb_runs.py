"""Runs in Weights & Biases that can't hurt: an error is logged once, and ends the tracking.

Runs are written below a folder (``sync`` uploads them later) unless ``WANDB_API_KEY`` or
``WANDB_MODE`` says otherwise; ``WANDB_PROJECT`` and ``WANDB_ENTITY`` say where to. Nothing of the
machine, the code or the console is recorded, nothing is printed, and W&B's own process ends with
the last user in this one.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any

import psutil

_log = logging.getLogger(__name__)

ANSWER_SECONDS = 30
"""How long W&B's server may keep a run waiting; a study loses about twice that, once."""

_CORE = "wandb-core"
"""W&B's own process, which sends what runs log."""
_LOCK = "lock"
"""In a run's folder; its process holds it as long as the run goes on. Says when that began, in
nanoseconds since 1970: the folder's name has whole seconds of local time."""
_FINISHED = "finished"
"""Marks the folder of a run that may be uploaded."""
_SETTLED = "settled"
"""Marks the folder of an offline run of which nothing (more) is ever uploaded, and says why."""
_ABANDONED_SECONDS = 3600.0
"""After so long without a word a run that never finished, and that no process of this machine
holds, was killed: it is uploaded as it is. Locks don't reach other machines on every disk."""
_HEADER_BYTES = 7
"""A log's size until its first block is full, or the run finishes."""
_UNREADABLE = "ERROR Failed to read"
"""W&B's tool opens all that it is given, and sends nothing when there is one it can't read."""
_TORN = "the file ends with an incomplete record"
"""What it says of one run, after it has sent the rest of it."""
_SYNC_AT_ONCE = 100
_SYNC_SECONDS = 600
"""For so many runs; W&B's own tool waits for a silent server for ever."""

_users = 0
_users_lock = threading.Lock()


@contextmanager
def process() -> Iterator[None]:
    """Keeps W&B's own process while it is used; it ends with the last user."""
    global _users  # noqa: PLW0603  # there is one W&B a process
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    with _users_lock:
        _users += 1
    try:
        yield
    finally:
        with _users_lock:
            _users -= 1
            if not _users:
                _end_process()


class Runs:
    """Makes runs of one project. ``directory`` None: tracks nothing."""

    def __init__(self, project: str, directory: Path | None) -> None:
        self._project = project
        self._directory = None if mode() == "disabled" else directory
        self._broken = False
        self._running: dict[Any, FileIO] = {}
        """Run → its lock."""

    @contextmanager
    def open(self) -> Iterator[None]:
        """Keeps W&B's process while runs are made."""
        if self._directory is None:
            yield
            return
        with process():
            try:
                yield
            finally:
                self._finish_running()

    def start(
        self, group: str, job: str, name: str, config: Mapping[str, Any], tags: Sequence[str]
    ) -> Run:
        """A new run. The same run of a group has the same id every time, so that one that is
        repeated after a kill takes the place of the first."""
        run = Run(self)

        def init() -> None:
            assert self._directory is not None
            begun = begin(
                self._project, group, job, name, directory=self._directory, config=config, tags=tags
            )
            self._running[begun] = _locked(_folder(begun))
            run.opened(begun)

        self.attempt(init)
        return run

    def finish(self, run: Any, *, failed: bool) -> None:
        if run in self._running:
            with self._running.pop(run):
                run.finish(exit_code=int(failed))
                (_folder(run) / _FINISHED).touch()
                (_folder(run) / _SETTLED).unlink(missing_ok=True)  # it was only taken for killed

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
        self.place = str(_folder(run).resolve()) if run.offline else run.url

    def point(self, step: int, values: Mapping[str, Any]) -> None:
        """A point of the run's curves; steps must rise."""
        if self._run is not None:
            self._runs.attempt(lambda: self._run.log(dict(values), step=step))

    def finish(self, summary: Mapping[str, Any], *, failed: bool = False) -> None:
        if self._run is not None:
            self._runs.attempt(lambda: self._run.summary.update(dict(summary)))
            self._runs.attempt(lambda: self._runs.finish(self._run, failed=failed))


def begin(
    project: str,
    group: str,
    job: str,
    name: str,
    *,
    directory: Path,
    config: Mapping[str, Any],
    tags: Sequence[str] = (),
) -> Any:
    """Begin a run, W&B's own; raises what W&B raises. To be used within ``process``. The same run
    of a group has the same id every time. ``WANDB_PROJECT`` goes before ``project``."""
    import wandb

    project = os.environ.get("WANDB_PROJECT") or project
    identity = f"{project}/{group}/{job}/{name}"
    directory.mkdir(parents=True, exist_ok=True)
    wandb.setup(wandb.Settings(silent=True))
    return wandb.init(
        project=project,
        group=group,
        job_type=job,
        id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        name=name,
        tags=tags,
        dir=str(directory),
        config=dict(config),
        mode=mode(),
        reinit="create_new",
        settings=_settings(),
    )


def _folder(run: Any) -> Path:
    return Path(run.dir).parent


def _locked(folder: Path) -> FileIO:
    lock = (folder / _LOCK).open("wb", buffering=0)
    lock.write(b"%d" % time.time_ns())
    with suppress(OSError):  # a disk without locks: there the run's last word tells
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


@dataclass(frozen=True, slots=True)
class Synced:
    """How many runs that were tracked offline were uploaded now; ``error`` is "" when all were."""

    uploaded: int
    error: str


def sync(directory: Path) -> Synced:
    """Upload the offline runs below a folder by ``wandb sync``, which marks each that it has
    uploaded, so that it is uploaded once; runs keep their ids. Those still going on are left, and
    so are those whose file is empty and those that a newer run of the same id took the place of."""
    waiting = _due(directory)
    if waiting and (silence := _silence()):
        return Synced(0, f"{len(waiting)} offline runs were not uploaded: {silence}")
    starts = range(0, len(waiting), _SYNC_AT_ONCE)
    batches = deque(waiting[start : start + _SYNC_AT_ONCE] for start in starts)
    reason = ""
    while batches:
        batch = batches.popleft()
        try:
            said = _upload(batch, directory)
        except subprocess.TimeoutExpired:
            reason = f": W&B did not answer for {_SYNC_SECONDS} s"
            break
        if _UNREADABLE in said and len(batch) > 1:
            batches.extendleft([place] for place in reversed(batch))
        elif not all(map(_is_done, batch)):
            reason = _reason(said)
    left = sum(not _is_done(place) for place in waiting)
    error = f"{left} offline runs were not uploaded{reason}" if left else ""
    return Synced(len(waiting) - left, error)


def _upload(batch: Sequence[Path], directory: Path) -> str:
    """What W&B's tool says, which has uploaded these runs or not."""
    environment = {
        **os.environ,
        "WANDB_MODE": "online",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DIR": str(directory),  # where its log goes
    }
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--skip-synced", *map(str, batch)],
        env=environment, capture_output=True, text=True, timeout=_SYNC_SECONDS, check=False,
    )  # fmt: skip
    said = done.stderr or done.stdout
    torn = [line for line in said.splitlines() if _TORN in line]
    for place in batch:  # W&B writes the end of one that finished just now a moment later
        if _is_silent(place) and any(place.name in line for line in torn):
            _settle(place, f"uploaded, but for its end: {_TORN}")
    return said


def _reason(said: str) -> str:
    lines = [line.removeprefix("wandb: ") for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") and _TORN not in line] or lines
    return f": {errors[-1][:200]}" if errors else ""


def _silence() -> str:
    """Why W&B can't be used now; "" when it answers and knows who asks."""
    with process():
        try:
            import wandb

            wandb.setup(wandb.Settings(silent=True))
            wandb.Api(timeout=ANSWER_SECONDS)
        except Exception as error:
            return cause_of(error)
    return ""


def cause_of(error: Exception) -> str:
    """What W&B's client says, on one line and bounded."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _due(directory: Path) -> list[Path]:
    """The folders to upload now: of each run the newest that holds something, once it has ended.
    Older ones would take its place in W&B, where a run is one id; they and empty ones are settled.
    """
    runs: dict[str, list[Path]] = defaultdict(list)
    for place in directory.glob("wandb/*run-*"):
        if any(place.glob("*.wandb")):
            runs[place.name.rpartition("-")[2]].append(place)
    due = []
    for places in runs.values():
        newest_first = deque(sorted(places, key=_begun, reverse=True))
        while newest_first:
            place = newest_first.popleft()
            if _goes_on(place):
                break  # the older ones wait for what becomes of it
            if _is_offline(place) and _is_silent(place) and _size(place) <= _HEADER_BYTES:
                _settle(place, "it ended before anything was written")
                continue
            if _is_offline(place) and not _is_done(place):
                due.append(place)
            for older in newest_first:
                _settle(older, f"{place.name} is the same run, begun again")
            break
    return sorted(due)


def _begun(place: Path) -> float:
    """In nanoseconds since 1970."""
    try:
        return int((place / _LOCK).read_text())
    except (OSError, ValueError):  # it was killed before it could say so
        named = place.name.partition("run-")[2].rpartition("-")[0]
        return datetime.strptime(named, "%Y%m%d_%H%M%S").astimezone().timestamp() * 1e9


def _is_offline(place: Path) -> bool:
    return place.name.startswith("offline-")


def _size(place: Path) -> int:
    return max(log.stat().st_size for log in place.glob("*.wandb"))


def _goes_on(place: Path) -> bool:
    if (place / _FINISHED).exists():
        return False
    return not _is_silent(place) or _is_held(place / _LOCK)


def _is_silent(place: Path) -> bool:
    last_word = max(log.stat().st_mtime for log in place.glob("*.wandb"))
    return time.time() - last_word > _ABANDONED_SECONDS


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it has none, or the disk knows no locks
        return False
    return False


def _settle(place: Path, why: str) -> None:
    if _is_offline(place) and not _is_done(place):
        (place / _SETTLED).write_text(f"{why}\n")


def _is_done(place: Path) -> bool:
    return (place / _SETTLED).exists() or any(place.glob("*.wandb.synced"))


def mode() -> Any:
    """``online``, ``offline``, ``disabled``…: offline unless there is a key, or the environment
    says which."""
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
    """W&B waits without end for its process, which may wait for a silent server, and ends this one
    when that has failed: so this is done beside, and a process that does not end is killed."""
    ending = threading.Thread(target=_tear_down, name="wandb teardown", daemon=True)
    ending.start()
    ending.join(ANSWER_SECONDS)
    if ending.is_alive():
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if child.name() == _CORE:
                    child.kill()
        ending.join(ANSWER_SECONDS)


def _tear_down() -> None:
    with suppress(Exception, SystemExit):
        import wandb

        wandb.teardown()
