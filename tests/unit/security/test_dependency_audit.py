"""The audit of dependencies: a known flaw fails it, an index that can't be asked doesn't."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

AUDIT = Path(__file__).parents[3] / ".ci" / "audit.py"
FLAW = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": ["2.0"], "description": ""}


def _audit(tmp_path: Path, *packages: dict[str, Any]) -> tuple[int, str]:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"dependencies": packages, "fixes": []}))
    done = subprocess.run(
        [sys.executable, str(AUDIT), str(report)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_known_flaw_fails_and_is_named_with_its_cure(tmp_path: Path) -> None:
    flawed = {"name": "a", "version": "1.0", "vulns": [FLAW]}
    well = {"name": "b", "version": "1.0", "vulns": []}

    assert _audit(tmp_path, flawed, well) == (
        1,
        "audit: a 1.0: PYSEC-2026-1, mended in 2.0\n"
        "audit: 2 of 2 packages looked up, 1 known flaws\n",
    )


def test_packages_that_could_not_be_looked_up_are_counted_as_such(tmp_path: Path) -> None:
    skipped = {"name": "a", "skip_reason": "Dependency not found on PyPI"}
    well = {"name": "b", "version": "1.0", "vulns": []}

    assert _audit(tmp_path, skipped, well) == (
        0, "audit: 1 of 2 packages looked up, 0 known flaws\n"
    )  # fmt: skip
    assert _audit(tmp_path, skipped) == (
        0,
        "audit: not done: the package index told nothing about any of the packages\n",
    )
