"""How much memory this process may use."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def usable_memory() -> int:
    """Bytes that this process may use: the machine's memory, or less where a limit is set (RLIMIT
    of data or address space, or of its control group or one above it)."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits += [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
    for path in _group_limits():
        with suppress(OSError, ValueError):  # a group that isn't shown here, or one without a limit
            limits.append(int(path.read_text()))
    return min(limit for limit in limits if limit > 0)


def _group_limits() -> Iterator[Path]:
    """Where Linux keeps the limits of this process's control group and of those above it. A
    container sees its own as the root, whatever its name is outside."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, kinds, group = line.split(":", 2)
        if not kinds:
            root, name = _GROUPS, "memory.max"
        elif "memory" in kinds.split(","):
            root, name = _GROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = Path(group.lstrip("/"))
        for above in (own, *own.parents):
            yield root / above / name
