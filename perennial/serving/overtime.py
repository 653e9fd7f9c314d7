"""An end to what holds the event loop up: feature code is the user's, and a pattern that backtracks
or a service that does not answer can take it for ever."""

from __future__ import annotations

import signal
import threading
import time
from time import perf_counter

SECONDS = 1.0
"""For a batch, which takes some milliseconds."""
SLOW_SECONDS = 0.05
"""What takes longer is watched, and told as slow where it leaves others Python's lock."""
_RINGS = 3
_RINGS_AGAIN_SECONDS = 0.02
"""From then on: a bare ``except:`` in feature code may have caught what was raised."""
_TICK_SECONDS = 0.01
_YIELDING_TICKS = 3
_YIELDING_SECONDS = 0.05
"""Another thread comes to run at least so often beside what leaves it Python's lock."""


class OvertimeError(BaseException):
    """The time is over. ``yields``: other threads ran meanwhile. No Exception: feature code may
    catch those."""

    def __init__(self, *, yields: bool) -> None:
        super().__init__()
        self.yields = yields


class Overtime:
    """A clock for what computes on the main thread of a process, one thing at a time: once its time
    is over, OvertimeError is raised within it. Made on the main thread; it has SIGALRM to itself.

    It rings twice before: a process that stands still as a whole hears only one ring of it. What
    is compiled is interrupted when it comes back, or looks for signals as regular expressions and
    what waits do. ``over``: its time was over, whatever caught what was raised. ``slow``: what it
    was begun for last took more than some SLOW_SECONDS, and other threads ran meanwhile.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.slow = False
        self.over: OvertimeError | None = None
        self._again = (seconds - SLOW_SECONDS) / (_RINGS - 1)
        self._on = False
        self._rings = 0
        self._watch: _Watch | None = None
        self._bell = self._ring  # as a signal's handler, always the same object
        signal.signal(signal.SIGALRM, self._bell)

    def begin(self) -> None:
        if signal.getsignal(signal.SIGALRM) is not self._bell:  # feature code has taken the signal
            signal.signal(signal.SIGALRM, self._bell)
        self._on = True
        self._rings = 0
        self.slow = False
        self.over = None
        signal.setitimer(signal.ITIMER_REAL, SLOW_SECONDS, self._again)

    def end(self) -> None:
        self._on = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._watch is not None:
            self.slow = self._watch.yields
            self._watch.over = True
            self._watch = None

    def _ring(self, *_: object) -> None:
        if not self._on:
            return
        self._rings += 1
        if self._watch is None:
            self._watch = _Watch()
            self._watch.start()
        elif self._rings >= _RINGS:
            if self.over is None:
                self.over = OvertimeError(yields=self._watch.yields)
                signal.setitimer(signal.ITIMER_REAL, _RINGS_AGAIN_SECONDS, _RINGS_AGAIN_SECONDS)
            raise OvertimeError(yields=self.over.yields)


class _Watch(threading.Thread):
    """Counts how often another thread comes to run."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = False
        self._ticks = 0
        self._began = perf_counter()

    @property
    def yields(self) -> bool:
        seconds = perf_counter() - self._began
        return self._ticks >= max(_YIELDING_TICKS, seconds / _YIELDING_SECONDS)

    def run(self) -> None:
        while not self.over:
            time.sleep(_TICK_SECONDS)
            self._ticks += 1
