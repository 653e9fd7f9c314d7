"""``python -m deployments [--check] [--json]``: tell the Prefect server of PREFECT_API_URL what
prefect.yaml can't declare. ``perennial setup`` calls this.

Prints a line a thing. Errors are their message on standard error and their exit code (see
perennial.contracts.errors); ``--check`` ends with 1 when anything differs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

from deployments.declaring import Declaration, declare
from deployments.server import asking
from perennial.contracts.errors import PerennialError


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m deployments", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say what differs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        with asking() as client:
            done = declare(client, os.environ, check=options.check)
    except PerennialError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    print(done.model_dump_json(indent=2) if options.json else "\n".join(_lines(done)))
    return 1 if done.checked and not done.as_declared else 0


def _lines(done: Declaration) -> Iterator[str]:
    for step in done.steps:
        would = "would be " if done.checked and step.outcome != "as declared" else ""
        detail = f" ({step.detail})" if step.detail else ""
        yield f"{step.kind} {step.name}: {would}{step.outcome}{detail}"
    if done.destinations:
        yield f"alerts go to {', '.join(done.destinations)}"
    else:
        yield "alerts go nowhere yet: docs/alerts.md says where they can go"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
