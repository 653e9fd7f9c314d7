"""``perennial setup``: the automations and alerts on a Prefect server."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from perennial.cli.context import context_of
from perennial.contracts.errors import InputError, Problem


def setup(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what differs; exit code 1 if anything does.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Declare automations on the Prefect server. What marks runs that died, and where alerts go
    (docs/alerts.md); for the server of PREFECT_API_URL. Twice changes nothing."""
    if find_spec("prefect") is None:
        fix = "pip install 'perennial[pipeline]'"
        raise InputError(Problem("perennial setup", "needs more than is installed here", fix))
    flags = [*(["--check"] if check else []), *(["--json"] if as_json else [])]
    # A process, because this package must not import Prefect (docs/adr/0002).
    done = subprocess.run(
        [sys.executable, "-P", "-m", "deployments", *flags],
        env=context_of(context).environment(),
        check=False,
    )
    raise typer.Exit(done.returncode if done.returncode in (0, 1, 2) else 1)
