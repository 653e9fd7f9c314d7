"""An end to what holds the event loop up: feature code is the user's, and a pattern that backtracks
or a service that does not answer can take it for ever."""

from __future__ import annotations

import signal
import threading
import time

SECONDS = 1.0
"""For a batch, which takes some milliseconds."""
_TICK_SECONDS = 0.02
_YIELDING = 3


class OvertimeError(BaseException):
    """The time is over. ``yields``: other threads ran meanwhile. No Exception: feature code may
    catch those."""

    def __init__(self, *, yields: bool) -> None:
        super().__init__()
        self.yields = yields


class Overtime:
    """A clock for what computes on the main thread of a process, one thing at a time: once its time
    is over, OvertimeError is raised within it. Made on the main thread; it has SIGALRM to itself.

    It rings at half of the time too: a process that stands still as a whole hears only that. What
    is compiled is interrupted when it comes back, or looks for signals as regular expressions and
    what waits do.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._half = seconds / 2
        self._on = False
        self._watch: _Watch | None = None
        signal.signal(signal.SIGALRM, self._ring)

    def begin(self) -> None:
        self._on = True
        signal.setitimer(signal.ITIMER_REAL, self._half, self._half)

    def end(self) -> None:
        self._on = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._watch is not None:
            self._watch.over = True
            self._watch = None

    def _ring(self, *_: object) -> None:
        if not self._on:
            return
        watch, self._watch = self._watch, None
        if watch is None:
            self._watch = _Watch()
            self._watch.start()
        else:
            watch.over = True
            raise OvertimeError(yields=watch.ticks >= _YIELDING)


class _Watch(threading.Thread):
    """Counts how often another thread comes to run."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ticks = 0
        self.over = False

    def run(self) -> None:
        while not self.over:
            time.sleep(_TICK_SECONDS)
            self.ticks += 1
