"""Known vulnerabilities of what requirements.lock pins: ``python .ci/audit.py [REPORT]``.

Exit code 1 when there is one. When the package index can't be asked, or knows nothing of a package,
that is said and is no failure: pip-audit alone would call it "no known vulnerabilities". REPORT is
a file that pip-audit has written (JSON); without it, it is asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
IGNORED: dict[str, str] = {}
"""Vulnerabilities that don't concern Perennial: the identifier, and why."""
_SECONDS = 600


def main(arguments: list[str]) -> int:
    report = Path(arguments[0]).read_text(encoding="utf-8") if arguments else _asked()
    if report is None:
        return 0
    packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    looked_at = [package for package in packages if "vulns" in package]
    if not looked_at:
        print("audit: not done: the package index told nothing about any of the packages")
        return 0
    found = [
        f"audit: {package['name']} {package['version']}: {flaw['id']}, mended in "
        f"{' or '.join(flaw['fix_versions']) or 'no version yet'}"
        for package in looked_at
        for flaw in package["vulns"]
        if not IGNORED.keys() & {flaw["id"], *flaw["aliases"]}
    ]
    print(*found, sep="\n", end="\n" if found else "")
    print(
        f"audit: {len(looked_at)} of {len(packages)} packages looked up, {len(found)} known flaws"
    )
    return 1 if found else 0


def _asked() -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [
            str(Path(sys.executable).with_name("pip-audit")),
            *("--requirement", str(ROOT / "requirements.lock"), "--disable-pip", "--no-deps"),
            *("--progress-spinner", "off", "--timeout", "10"),
            *("--format", "json", "--output", str(report)),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
            why = done.stderr.strip().splitlines()[-1:]
        except (OSError, subprocess.TimeoutExpired) as error:
            why = [str(error)]
        if report.is_file() and report.stat().st_size:
            return report.read_text(encoding="utf-8")
        print("audit: not done:", *why)
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
