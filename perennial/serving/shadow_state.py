"""What the shadow process did, could not do and why, in a file that outlives it."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from logging import getLogger
from pathlib import Path
from typing import Any

from perennial.contracts.errors import PerennialError
from perennial.serving.beside import told_since
from perennial.serving.shadow_version import Scored
from perennial.stores.predictions.waiting import Waiting

_CRASHES_A_SEGMENT = 2
_CRASHES = 4
_MOST_REASONS = 20
_log = getLogger("perennial.serving.shadow")


class ShadowState:
    """What was done, what could not be and why, and what a process before this one died of.

    Counts are since the server's start, and go over what the processes of all servers did that
    have run since then: they take turns, and share the file. ``started`` is that start, in seconds
    of the monotonic clock; only the process whose turn it is may make a state. The file is written
    before and after a version is tried on a segment: one that is found between the two ended the
    process.
    """

    def __init__(self, path: Path, started: float) -> None:
        self._path = path
        self._versions: dict[str, dict[str, Any]] = {}
        self._crashes: Counter[str] = Counter()
        self._trying = ""
        self._waiting = 0
        self._problems: dict[str, str] = {}
        former = told_since(path, started, time.monotonic())
        if former:
            self._versions = former["versions"]
            self._crashes = Counter(former["crashes"])
            if former["trying"]:
                self._crashes[former["trying"]] += 1

    @contextmanager
    def trying(self, segment: Waiting, version: int) -> Iterator[str]:
        """Say what is about to be tried. Yields why it must not be; "" when it may."""
        name = f"{segment.model}@{version}"
        key = f"{name} {segment.session}/{segment.number}"
        total = sum(n for tried, n in self._crashes.items() if tried.startswith(f"{name} "))
        if total >= _CRASHES:
            yield f"not tried any more: it ended the process {total} times"
            return
        if self._crashes[key] >= _CRASHES_A_SEGMENT:
            yield f"not tried again: it ended the process {self._crashes[key]} times on a segment"
            return
        self._trying = key
        self._write()
        try:
            yield ""
        finally:
            self._trying = ""
            self._write()

    def done(self, model: str, results: Mapping[int, Scored]) -> None:
        """Count what versions made of a segment, once it needs them no more."""
        for version, scored in results.items():
            known = self._versions.setdefault(
                f"{model}@{version}", {"rows": 0, "seconds": 0.0, "failed_rows": 0, "reasons": {}}
            )
            known["rows"] += scored.rows
            known["seconds"] += scored.seconds
            known["failed_rows"] += sum(scored.reasons.values())
            reasons = known["reasons"]
            for reason, rows in scored.reasons.items():
                name = reason[:300]
                if name not in reasons and len(reasons) >= _MOST_REASONS:
                    name = "other reasons"
                reasons[name] = reasons.get(name, 0) + rows
        self._waiting = max(0, self._waiting - 1)
        self._write()

    def waiting(self, segments: int) -> None:
        self._waiting = segments
        self._write()

    def problem(self, model: str, error: Exception | None) -> None:
        """Why a model's segments wait; None when they don't have to."""
        what = "" if error is None else told(error)
        if what == self._problems.get(model, ""):
            return
        if what:
            _log.warning("shadow rows wait", extra={"model": model, "problem": what})
        self._problems[model] = what
        self._write()

    def _write(self) -> None:
        state = {
            "pid": os.getpid(),
            "updated_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "monotonic_seconds": time.monotonic(),
            "versions": self._versions,
            "waiting_segments": self._waiting,
            "problems": [what for what in self._problems.values() if what],
            "crashes": dict(self._crashes),
            "trying": self._trying,
        }
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(state), encoding="utf-8")
            partial.replace(self._path)
        except OSError as error:  # a full disk: what is scored is still worth committing
            _log.warning("the state can't be written: %s", error)
            partial.unlink(missing_ok=True)


def told(error: BaseException) -> str:
    """An error for the state file. Other exceptions than ours may quote rows: their type only."""
    text = error.message if isinstance(error, PerennialError) else type(error).__name__
    return " ".join(text.split())[:1000]
