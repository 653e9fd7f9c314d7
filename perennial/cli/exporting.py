"""``perennial export``: a version as other servers and tools read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perennial import __version__
from perennial.cli.context import context_of
from perennial.cli.reading import find_version
from perennial.contracts.errors import InputError, Problem
from perennial.spec.values import nearest
from perennial.stores.project import Project
from perennial.stores.storage.places import is_remote

if TYPE_CHECKING:
    from perennial.bundle.read import Bundle
    from perennial.contracts.refs import VersionRef
    from perennial.stores.registry import Version

TARGETS = ("kserve", "triton", "mlflow")
_IMAGE = f"perennial:{__version__}"
_KSERVE_ONLY = "KServe only"


def export(
    context: typer.Context,
    version: Annotated[str, typer.Argument(metavar="NAME@V", help="For example flight-delay@3.")],
    to: Annotated[str, typer.Option("--to", help=f"{', '.join(TARGETS[:-1])} or {TARGETS[-1]}.")],
    output: Annotated[Path, typer.Option(help="Folder to write; new, or empty.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a former export.")] = False,
    canary_percent: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=100,
            help=f"{_KSERVE_ONLY}: share of requests; by default the route's, all for a champion.",
        ),
    ] = None,
    storage_uri: Annotated[
        str | None,
        typer.Option(
            help=f"{_KSERVE_ONLY}: where the bundle is for the cluster; by default the claim "
            "'perennial' with what is in .perennial/."
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help=f"{_KSERVE_ONLY}: image with Perennial; by default {_IMAGE}."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a version for KServe, Triton or MLflow. Manifests, a model repository, or a model
    folder."""
    from perennial.stores.bundles import open_stored
    from perennial.stores.exports import check_place, write_export

    if to not in TARGETS:
        known = ", ".join(TARGETS)
        raise InputError(Problem("--to", f"{to!r} is not known{nearest(to, TARGETS)}", known))
    given = {
        "--canary-percent": canary_percent, "--storage-uri": storage_uri, "--image": image
    }  # fmt: skip
    problems = [
        Problem(name, f"means nothing to {to}", "leave it out")
        for name, value in given.items()
        if to != "kserve" and value is not None
    ]
    if problems:
        raise InputError(problems)
    project = context_of(context).project
    place = output.expanduser().resolve()
    check_place(place, force)
    found = find_version(project, version)
    bundle = open_stored(found.ref, project)
    about: dict[str, object] = {
        "model": found.ref.model,
        "version": found.ref.version,
        "digest": found.ref.digest,
        "to": to,
        "perennial": __version__,
    }
    if to == "kserve":
        percent = _percent(project, found.ref) if canary_percent is None else canary_percent
        where = storage_uri or _storage_uri(project, found.ref)
        about |= {"canary_percent": percent, "storage_uri": where}
        files = _kserve(found.ref, where, percent, image or _IMAGE)
    else:
        files = _files(to, bundle, found)
    write_export(place, files, about, force)
    if as_json:
        typer.echo(json.dumps({**about, "folder": str(place), "files": sorted(files)}, indent=2))
        return
    for name in sorted(files):
        typer.echo(f"wrote {place / name}")
    if to == "kserve":
        share = "all" if about["canary_percent"] is None else f"{about['canary_percent']} %"
        typer.echo(f"  requests  {share}")
        typer.echo(f"  bundle    {about['storage_uri']}")


def _files(to: str, bundle: Bundle, found: Version) -> dict[str, bytes]:
    if to == "triton":
        from perennial.bundle.exports.triton import repository

        return repository(bundle, found.ref)
    from perennial.bundle.exports.mlflow import model_folder

    return model_folder(bundle, found.ref, found.created_at)


def _kserve(ref: VersionRef, storage_uri: str, percent: int | None, image: str) -> dict[str, bytes]:
    from perennial.bundle.exports.kserve import manifests

    return manifests(ref, storage_uri=storage_uri, canary_percent=percent, image=image)


def _percent(project: Project, ref: VersionRef) -> int | None:
    from perennial.bundle.exports.kserve import canary_percent
    from perennial.stores.registry import Registry

    registry = Registry(project.registry_url)
    try:
        return canary_percent(registry.route(ref.model), ref.version)
    finally:
        registry.close()


def _storage_uri(project: Project, ref: VersionRef) -> str:
    """Where the cluster finds a bundle: its own address, or a claim that holds ``.perennial``."""
    if is_remote(ref.uri):
        return ref.uri
    place = Path(ref.uri)
    if not place.is_relative_to(project.home):
        what = f"the bundle is on this machine's disk ({place}), which a cluster can't read"
        raise InputError(Problem("--storage-uri", what, "say where the cluster finds it"))
    return f"pvc://perennial/{place.relative_to(project.home).as_posix()}"
