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
    killed goes when the next one makes a folder: nobody holds its lock any more.

    Its lock file says how much will be written, so that several who find room at the same moment,
    for what none of them has written yet, don't all count on the same.
    """

    def __init__(self) -> None:
        _remove_orphans(Path(tempfile.gettempdir()))
        self._folder = tempfile.TemporaryDirectory(prefix=_PREFIX)
        self.path = Path(self._folder.name)
        self._lock = (self.path / _LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def claim(self, size: int) -> None:
        """Say how many bytes will be in it; 0 when all is written."""
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(str(size).encode())
        self._lock.flush()

    def room(self) -> int:
        """The free bytes there, without what others have claimed and not written yet. To be asked
        after ``claim``: of two at once, one at least then knows of the other."""
        free = shutil.disk_usage(self.path).free
        others = (each for each in self.path.parent.glob(f"{_PREFIX}*") if each != self.path)
        return free - sum(map(_unwritten, others))

    def remove(self) -> None:
        """Remove it with all that is in it."""
        self._folder.cleanup()
        self._lock.close()


def _unwritten(folder: Path) -> int:
    try:
        claimed = int((folder / _LOCK).read_bytes() or 0)
        written = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    except (OSError, ValueError):  # gone by now, somebody else's, or just being said
        return 0
    return max(0, claimed - written)


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
