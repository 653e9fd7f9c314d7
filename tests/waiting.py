"""Waiting for what other processes do, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def until(found: Callable[[], _T], seconds: float = 240.0) -> _T:
    """What ``found`` gives, as soon as that is true. It has long: the machine may be busy."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
    return value
