"""``python -m deployments [--pool KIND[=NAME]]… [--check] [--json]``: tell the Prefect server of
PREFECT_API_URL what prefect.yaml can't declare. ``perennial setup`` calls this.

Prints a line a thing. Errors are their message on standard error and their exit code (see
perennial.contracts.errors); ``--check`` ends with 1 when anything differs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from deployments.declaring import Declaration, declare
from deployments.deployed import COMPARED
from deployments.pools import asked
from deployments.server import asking
from perennial.contracts.errors import InputError, PerennialError, Problem
from perennial.spec.deployment import is_ours
from perennial.spec.places import FILE_NAME, WORK_POOL, load_deploy
from perennial.stores.project import Project


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m deployments", description=__doc__)
    parser.add_argument("--pool", action="append", default=[], help="make this work pool")
    parser.add_argument("--check", action="store_true", help="only say what differs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        project = Project.current()
        deploy = load_deploy(project.root / FILE_NAME)
        pools = asked(options.pool, deploy.work_pool.name or WORK_POOL)
        files = _prefect_yaml(project) if options.check else None
        with asking() as client:
            done = declare(client, os.environ, pools=pools, prefect_yaml=files, check=options.check)
    except PerennialError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    print(done.model_dump_json(indent=2) if options.json else "\n".join(_lines(done)))
    return 1 if done.checked and not done.as_declared else 0


def _prefect_yaml(project: Project) -> dict[str, Any] | None:
    """What prefect.yaml declares; None where there is none of Perennial's. Raises InputError for
    one that was edited until nothing can be compared."""
    path = project.root / "prefect.yaml"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not is_ours(text):
        return None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    declared = found.get("deployments") if isinstance(found, dict) else None
    if isinstance(declared, list) and all(
        isinstance(one, dict) and one.keys() >= COMPARED for one in declared
    ):
        return {**found}
    what = "holds no deployments that can be read any more"
    raise InputError(Problem(str(path), what, "perennial check --write writes it anew"))


_DONE = ("created", "changed", "removed")


def _lines(done: Declaration) -> Iterator[str]:
    for step in done.steps:
        would = "would be " if done.checked and step.outcome in _DONE else ""
        detail = f" ({step.detail})" if step.detail else ""
        yield f"{step.kind} {step.name}: {would}{step.outcome}{detail}"
    if any(step.outcome in ("not deployed", "differs") for step in done.steps):
        yield "prefect --no-prompt deploy --all deploys what prefect.yaml declares"
    if any(step.outcome == "not declared" for step in done.steps):
        yield "prefect deployment delete FLOW/NAME removes what no model declares any more"
    if done.destinations:
        yield f"alerts go to {', '.join(done.destinations)}"
    else:
        yield "alerts go nowhere yet: docs/alerts.md says where they can go"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
