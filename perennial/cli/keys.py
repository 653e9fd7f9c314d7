"""``perennial keys``: who signs bundles."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from perennial.cli.context import context_of
from perennial.cli.reading import find_version
from perennial.contracts.errors import InputError, Problem

app = typer.Typer(
    help="Keys that sign versions, so that only what a trusted trainer made is loaded.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="The private key's file; FILE.pub gets the other.")],
) -> None:
    """Make a key. PERENNIAL_SIGNING_KEY_FILE names it where versions are trained;
    PERENNIAL_TRUSTED_KEYS_FILE names a file of public keys where they are loaded."""
    from perennial.bundle.signing import KEY_VARIABLE, TRUST_VARIABLE, new_key

    place = file.absolute()
    identity = new_key(place)
    typer.echo(f"key {identity}")
    typer.echo(f"  {KEY_VARIABLE}={place}  (keep it secret)")
    typer.echo(f"  {TRUST_VARIABLE}={place}.pub")


@app.command()
def sign(
    context: typer.Context,
    version: Annotated[str, typer.Argument(metavar="NAME@V", help="For example flight-delay@3.")],
) -> None:
    """Sign a version that was made without a key, or by one that is no longer trusted. Its content
    is checked against its digest first; whether it deserves your signature you have to know."""
    from perennial.bundle.signing import KEY_VARIABLE, Signature
    from perennial.stores.bundles import sign_stored

    project = context_of(context).project
    ref = find_version(project, version).ref
    try:
        signature = sign_stored(ref, project)
    except OSError as error:
        what = f"can't be written: {os.strerror(error.errno or 0)}"
        raise InputError(Problem(f"bundle {ref.uri}", what)) from None
    if signature is None:
        fix = f"{KEY_VARIABLE}=FILE names one; perennial keys new FILE makes one"
        raise InputError(Problem(KEY_VARIABLE, "no key to sign with", fix))
    typer.echo(f"{version} signed by the key {Signature.model_validate_json(signature).key}")
