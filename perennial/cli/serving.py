"""``perennial serve``: answer requests with what the registry routes."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from perennial.cli.context import context_of
from perennial.contracts.errors import InputError, Problem
from perennial.stores.project import Project
from perennial.stores.tokens import FILE_NAME

_FAST_OR_STRICT = (
    "fast: a prediction is acknowledged when it survives a crash of the server; "
    "strict: when it survives a power cut."
)

_DIGEST = re.compile(r"[0-9a-f]{64}")


def serve(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Models; by default all.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Serve this bundle's folder and nothing else; the registry is not asked.",
        ),
    ] = None,
    digest: Annotated[
        str | None, typer.Option(help="The bundle's digest; by default its folder's name.")
    ] = None,
    version: Annotated[int, typer.Option(min=1, help="The bundle's version, for answers.")] = 1,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    tokens: Annotated[
        Path | None,
        typer.Option(
            help=f"File of `perennial tokens`; by default .perennial/{FILE_NAME} where there is "
            "one. Needed for any address but loopback."
        ),
    ] = None,
    acknowledge: Annotated[str, typer.Option(help=_FAST_OR_STRICT)] = "fast",
    max_body_mib: Annotated[int, typer.Option(min=1, help="Largest body of a request.")] = 16,
    max_rows: Annotated[int, typer.Option(min=1, help="Most rows of a request.")] = 10_000,
    max_requests: Annotated[
        int, typer.Option(min=1, help="At one moment; others are told to come back.")
    ] = 2_000,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds, for body and answer.")] = 10.0,
    max_log_mib: Annotated[
        int, typer.Option(min=1, help="Most predictions waiting for their table.")
    ] = 4_096,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="A log line for every request.")
    ] = False,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
) -> None:
    """Serve models over HTTP: what the registry routes, followed as it changes. Ends with SIGTERM
    or Ctrl-C, after the requests under way."""
    project = context_of(context).project
    _check_names(project, names or [])
    fixed = None if bundle is None else _fixed(bundle, digest, version, names)
    if acknowledge not in ("fast", "strict"):
        raise InputError(Problem("--acknowledge", f"{acknowledge!r} is not fast or strict"))
    if (certificate is None) != (key is None):
        raise InputError(Problem("--certificate", "TLS needs both --certificate and --key"))
    settings = {
        "project": str(project.root),
        "models": [fixed["model"]] if fixed else names or [],
        "fixed": fixed,
        "host": host,
        "port": port,
        "tokens": _absolute(tokens or _own_tokens(project)),
        "acknowledge": acknowledge,
        "access_log": access_log,
        "max_body_bytes": max_body_mib * 2**20,
        "max_rows": max_rows,
        "max_waiting_requests": max_requests,
        "timeout_seconds": timeout,
        "max_spool_bytes": max_log_mib * 2**20,
        "certificate": _absolute(certificate),
        "key": _absolute(key),
    }
    # The server takes this process's place: signals reach it, and nothing else stays in memory.
    os.execv(sys.executable, [sys.executable, "-m", "perennial.serving", json.dumps(settings)])


def _fixed(
    bundle: Path, digest: str | None, version: int, names: list[str] | None
) -> dict[str, str | int]:
    """What is served of a bundle's folder. Raises InputError when it is damaged or another."""
    from perennial.bundle.read import open_bundle

    if names:
        what = "a bundle is served as the model it was made for"
        raise InputError(Problem("--bundle", what, f"leave out {' '.join(names)}"))
    place = bundle.resolve()
    if digest is None and not _DIGEST.fullmatch(place.name):
        what = f"{place} is not named by the bundle's digest, so nothing says which it must be"
        raise InputError(
            Problem("--digest", what, "give the digest; perennial show NAME@V --json has it")
        )
    opened = open_bundle(place, digest or place.name)
    return {
        "bundle": str(place), "digest": opened.digest, "model": opened.model, "version": version
    }  # fmt: skip


def _absolute(path: Path | None) -> str | None:
    # Links stay links: a mounted secret is exchanged by pointing its link elsewhere.
    return None if path is None else str(path.absolute())


def _own_tokens(project: Project) -> Path | None:
    path = project.home / FILE_NAME
    return path if path.exists() else None


def _check_names(project: Project, names: list[str]) -> None:
    problems: list[Problem] = []
    for name in names:
        try:
            project.model_folder(name)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
