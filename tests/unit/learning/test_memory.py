"""What a process may use, by the limits of its control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perennial.learning import memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
SERVICE, SLICE = 100_000_000, 70_000_000
UNLIMITED = 9223372036854771712


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/a.slice/b.service", {"a.slice/b.service/memory.max": SERVICE}, SERVICE),
        (
            "0::/a.slice/b.service",
            {"a.slice/b.service/memory.max": SERVICE, "a.slice/memory.max": SLICE},
            SLICE,
        ),
        ("0::/", {"memory.max": SERVICE}, SERVICE),  # a container
        ("0::/docker/7f3a", {"memory.max": SERVICE}, SERVICE),  # one that sees its outer name
        ("0::/a", {"a/memory.max": "max"}, MACHINE),
        ("0::/a", {"b/memory.max": SERVICE}, MACHINE),
        (
            "3:cpu:/x\n4:memory:/job/7\n0::/",
            {
                "memory/job/7/memory.limit_in_bytes": SERVICE,
                "memory/memory.limit_in_bytes": UNLIMITED,
            },
            SERVICE,
        ),
        (None, {}, MACHINE),  # no Linux
    ],
)
def test_the_least_of_the_limits_of_its_groups_counts(
    own: str | None,
    limits: dict[str, object],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if own is not None:
        (tmp_path / "own").write_text(f"{own}\n")
    for name, limit in limits.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n")
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")
    assert memory.usable_memory() == expected
