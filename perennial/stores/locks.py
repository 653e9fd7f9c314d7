"""Locks on files, by which processes of one machine know of each other."""

from __future__ import annotations

import fcntl
from typing import IO, Any


def taken(lock: int | IO[Any]) -> bool:
    """Whether this process has the lock of an open file now; it has it until that is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
