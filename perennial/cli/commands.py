"""Commands that do something: demo, init, check, train, reproduce, quarantine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perennial.cli.context import context_of
from perennial.cli.moments import moment
from perennial.cli.reading import find_version
from perennial.contracts.errors import InputError, Problem
from perennial.contracts.runs import ReproductionSummary, RunSummary

_MOST_NOTES = 20
_QUICK = "Four trainings instead of ten."


def demo(
    context: typer.Context, quick: Annotated[bool, typer.Option("--quick", help=_QUICK)] = False
) -> None:
    """Replay a year of real flights. Trains, retrains, and refuses what is no better."""
    from perennial.cli.demo import run_demo

    run_demo(context_of(context), quick)


def init(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the new model.")],
    data: Annotated[Path, typer.Option(help="A CSV or Parquet file.")],
    label: Annotated[str, typer.Option(help="Column to predict.")],
    time: Annotated[str | None, typer.Option(help="Column with the time of each row.")] = None,
) -> None:
    """Write a model.yaml for a data file, ready to train."""
    from perennial.cli.deploying import write_prefect_yaml
    from perennial.data.infer import infer
    from perennial.spec.publish import write_model

    project = context_of(context).project
    inferred = infer(data, name, label, time, project.root)
    for path in write_model(project.models, inferred):
        typer.echo(f"wrote {path}")
    for line in inferred.notes[:_MOST_NOTES]:
        typer.echo(f"note: {line}")
    if len(inferred.notes) > _MOST_NOTES:
        typer.echo(f"note: {len(inferred.notes) - _MOST_NOTES} more, in comments of model.yaml")
    try:
        typer.echo(write_prefect_yaml(project))
    except InputError as error:  # the new model is there and complete
        typer.echo(f"not written: {error.message}", err=True)
    typer.echo(f"next: perennial check {name}, perennial train {name}")


def check(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write prefect.yaml anew.")] = False,
) -> None:
    """Say what is wrong before any training. Looks at model.yaml, features.py, the first rows of
    the source, and prefect.yaml."""
    from perennial.cli.checking import check_model
    from perennial.cli.deploying import compare_prefect_yaml, write_prefect_yaml

    project = context_of(context).project
    names = [name] if name else project.model_names()
    if not names:
        fix = "perennial init makes one; --project names another place"
        raise InputError(Problem(str(project.models), "no models here", fix))
    for model in names:
        for line in check_model(project, model):
            typer.echo(f"{model}: {line}")
    typer.echo(write_prefect_yaml(project) if write else compare_prefect_yaml(project))


def train(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model.")],
    as_of: Annotated[
        str | None,
        typer.Option(
            help="Train with what was known then: 2013-07-01, UTC. It takes over without a rollout "
            "if the champion was trained so too."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")] = "by hand",
    force: Annotated[bool, typer.Option("--force", help="Run every stage, cached or not.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a candidate; it takes over if the gates say so. Exit code 1: they said no."""
    from perennial.cli.checking import look_over
    from perennial.cli.outcome import print_run

    known_at = None if as_of is None else moment("--as-of", as_of)
    found = context_of(context)
    look_over(found.project, name, known_at)  # most mistakes are told before Prefect is started
    result = found.run_flow(
        "continuous_training",
        model=name,
        as_of=known_at.isoformat() if known_at else None,
        reason=reason,
        force=force,
    )
    summary = RunSummary.model_validate(result)
    if as_json:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        print_run(summary)
    if summary.decision.action == "kept":
        raise typer.Exit(1)


def reproduce(
    context: typer.Context,
    version: Annotated[str, typer.Argument(metavar="NAME@V", help="For example flight-delay@3.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a version again and compare. From its recorded lineage, file by file. Exit code 1: it
    is not the same."""
    from perennial.stores.bundles import open_stored

    found = context_of(context)
    ref = find_version(found.project, version).ref
    open_stored(ref, found.project)  # a damaged one is told before Prefect is started
    result = found.run_flow("reproduction", model=ref.model, version=ref.version)
    summary = ReproductionSummary.model_validate(result)
    if as_json:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        typer.echo(summary.reason)
        for line in summary.differences:
            typer.echo(f"  {line}")
    if not summary.identical:
        raise typer.Exit(1)


def quarantine(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model.")],
    put_back: Annotated[
        bool, typer.Option("--put-back", help="Check by today's rules; what passes goes back.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many rows to show.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show bad rows and why they are bad. Or put back those that are in order by now."""
    from perennial.cli.quarantined import put_rows_back, show_rows

    project = context_of(context).project
    if put_back:
        put_rows_back(project, name, as_json)
    else:
        show_rows(project, name, limit, as_json)
