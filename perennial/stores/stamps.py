"""Whether a file is still what it was when it was read, without reading it again."""

from __future__ import annotations

import os
from pathlib import Path

Stamp = tuple[int, int, int]
"""Inode, size and time of change of a file, in nanoseconds: another stamp, another content."""


def stamp(path: Path) -> Stamp:
    """A link's is that of the file it points at: mounted secrets are exchanged by links.

    Raises OSError.
    """
    return stamp_of(path.stat())


def stamp_or_none(path: Path) -> Stamp | None:
    """None when the file is gone or can't be looked at."""
    try:
        return stamp(path)
    except OSError:
        return None


def stamp_of(found: os.stat_result) -> Stamp:
    """The stamp of a file that is open, by what ``os.fstat`` says of it."""
    return found.st_ino, found.st_size, found.st_mtime_ns
