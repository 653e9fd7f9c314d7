"""Where a matrix beyond memory lies while it is trained on: a folder that outlives no process."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

_PREFIX = "perennial-pages-"
_LOCK = "lock"
_YOUNG_SECONDS = 60.0
"""A folder of this age may be one whose owner is just about to lock it."""


class PageFolder:
    """A folder of its own in the system's temporary folder. What a process left there that was
    killed goes when the next one makes a folder: nobody holds its lock any more."""

    def __init__(self) -> None:
        _remove_orphans(Path(tempfile.gettempdir()))
        self._folder = tempfile.TemporaryDirectory(prefix=_PREFIX)
        self.path = Path(self._folder.name)
        self._lock = (self.path / _LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        self._folder.cleanup()
        self._lock.close()


def _remove_orphans(place: Path) -> None:
    for folder in place.glob(f"{_PREFIX}*"):
        try:
            found = folder.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < _YOUNG_SECONDS:
                continue
            with (folder / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # held, somebody else's, or gone by now
            continue
