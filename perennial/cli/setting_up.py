"""``perennial setup``: blocks, work pools, automations and alerts on a Prefect server."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from perennial.cli.context import context_of
from perennial.contracts.distribution import pip_install
from perennial.contracts.errors import InputError, Problem


def setup(
    context: typer.Context,
    pool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[=NAME]",
            help="Make a work pool, by its template: process, docker, kubernetes or ecs. By "
            "default it has the name that deploy.yaml says.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what differs; exit code 1 if anything does.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Declare on the Prefect server what prefect.yaml can't. Blocks and variables of the
    environment, work pools (docs/work-pools.md), what marks runs that died, and where alerts go
    (docs/alerts.md); for the server of PREFECT_API_URL. Twice changes nothing. --check tells the
    deployments of prefect.yaml apart too."""
    if find_spec("prefect") is None:
        fix = pip_install("pipeline")
        raise InputError(Problem("perennial setup", "needs more than is installed here", fix))
    pools = [f"--pool={one}" for one in pool or []]
    flags = [*pools, *(["--check"] if check else []), *(["--json"] if as_json else [])]
    # A process, because this package must not import Prefect (docs/adr/0002).
    done = subprocess.run(
        [sys.executable, "-P", "-m", "deployments", *flags],
        env=context_of(context).environment(),
        check=False,
    )
    raise typer.Exit(done.returncode if done.returncode in (0, 1, 2) else 1)
