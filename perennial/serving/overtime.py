"""An end to what holds the event loop up: feature code is the user's, and a pattern that backtracks
or a service that does not answer can take it for ever."""

from __future__ import annotations

import signal

SECONDS = 1.0
"""For a batch, which takes some milliseconds."""


class OvertimeError(BaseException):
    """The time is over. No Exception: feature code may catch those."""


class Overtime:
    """A clock for what computes on the main thread of a process, one thing at a time: once its time
    is over, OvertimeError is raised within it. Made on the main thread; it has SIGALRM to itself.

    What is compiled is interrupted when it comes back, or looks for signals as regular expressions
    and what waits do.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._on = False
        signal.signal(signal.SIGALRM, self._ring)

    def begin(self) -> None:
        self._on = True
        signal.setitimer(signal.ITIMER_REAL, self._seconds, self._seconds)

    def end(self) -> None:
        self._on = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _ring(self, *_: object) -> None:
        if self._on:
            raise OvertimeError
