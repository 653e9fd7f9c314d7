"""A server with one model and nothing to do: how soon it is ready, how much memory it holds."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import show
from benchmarks.serving import ours
from benchmarks.serving.servers import cores

_SETTLE_SECONDS = 3.0


def measure(root: Path, folder: Path, repeats: int) -> dict[str, Any]:
    seconds, memories = [], []
    for i in range(repeats):
        server = ours.server(root, folder / "work" / f"idle-{i}")
        seconds.append(server.start(cores()[0]))
        time.sleep(_SETTLE_SECONDS)
        memories.append(server.memory())
        processes = len(server.processes())
        server.stop()
    figures = {
        "ready_seconds": median(seconds),
        "pss_mib": median(memory.pss for memory in memories),
        "alone_mib": median(memory.alone for memory in memories),
        "processes": processes,
    }
    show(
        f"Idle, one model, medians of {repeats} starts",
        ("start to ready", "slowest", "processes", "memory (PSS)", "alone on a machine"),
        [
            (
                f"{figures['ready_seconds']:.2f} s",
                f"{max(seconds):.2f} s",
                str(processes),
                f"{figures['pss_mib']:.0f} MiB",
                f"{figures['alone_mib']:.0f} MiB",
            )
        ],
    )
    return figures
