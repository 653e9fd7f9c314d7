"""``perennial publish``: what the registry holds, told to MLflow and W&B."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from perennial.cli.context import context_of
from perennial.cli.reading import AsJson, open_registry

if TYPE_CHECKING:
    from perennial.contracts.publishing import Publication

_HELP = (
    "nothing to publish to: set PERENNIAL_MLFLOW_URI, or WANDB_API_KEY (docs/mlflow.md, wandb.md)"
)


def publish(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Publish to MLflow and W&B what they lack. Versions, aliases as the route is, and the runs
    that were tracked while W&B was offline. Twice does nothing twice. Exit code 1: some of it is
    left to do."""
    from perennial.learning import wandb_runs
    from perennial.stores.publishing import publish as publish_to
    from perennial.stores.publishing import servers

    project = context_of(context).project
    registry = open_registry(project)
    if name is not None:
        project.model_folder(name)
    found = servers(project)
    if not found:
        typer.echo(_HELP, err=True)
        raise typer.Exit(2)
    synced = wandb_runs.sync(project.home) if wandb_runs.mode() == "online" else None
    models = [name] if name else registry.models()
    done = [publish_to(server, registry, model) for server in found for model in models]
    if as_json:
        runs = None if synced is None else {"uploaded": synced.uploaded, "error": synced.error}
        published = [one.model_dump(mode="json") for one in done]
        typer.echo(json.dumps({"published": published, "offline_runs": runs}, indent=2))
    else:
        if synced is not None and (synced.uploaded or synced.error):
            said = f"{synced.uploaded} offline runs uploaded"
            typer.echo(f"wandb: {said}" + (f"; {synced.error}" if synced.error else ""))
        for one in done:
            typer.echo(_line(one))
    if any(one.error for one in done) or (synced is not None and synced.error):
        raise typer.Exit(1)


def _line(one: Publication) -> str:
    if one.error:
        return f"{one.model}: {one.error}"
    new = f"{len(one.versions)} new versions" if len(one.versions) != 1 else "1 new version"
    aliases = ", ".join(f"{alias} is version {v}" for alias, v in one.aliases.items())
    return f"{one.model}: {one.destination} at {one.place}, {new}, {aliases or 'no champion'}"
