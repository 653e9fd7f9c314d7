"""Writes the pages that are made from the code: ``python -m docs.generate [--check]``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from perennial.cli.reference import cli_page
from perennial.spec.deployment import prefect_yaml
from perennial.spec.places import FILE_NAME, load_deploy
from perennial.spec.publish import json_schema_text
from perennial.spec.reference import reference_page
from perennial.stores.project import Project

ROOT = Path(__file__).resolve().parent.parent

PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/model.schema.json": json_schema_text,
    "docs/reference/model-yaml.md": reference_page,
    "docs/reference/cli.md": cli_page,
    "prefect.yaml": lambda: prefect_yaml(Project(ROOT).specs(), load_deploy(ROOT / FILE_NAME)),
}


def stale() -> list[str]:
    """The pages whose file is missing or is not what the code would write now."""
    return [path for path, text in PAGES.items() if _written(ROOT / path) != text()]


def _written(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main(arguments: list[str]) -> int:
    """Write what is stale; with ``--check`` only name it, and 1 if there is any."""
    check = "--check" in arguments
    paths = stale()
    for path in paths:
        print(f"{'stale' if check else 'written'}: {path}")
        if not check:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(PAGES[path](), encoding="utf-8")
    return 1 if check and paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
