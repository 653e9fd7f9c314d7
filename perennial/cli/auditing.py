"""``perennial audit``: every decision in its chain, and whether anybody has touched it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perennial.cli.context import context_of
from perennial.cli.output import console, table_of
from perennial.cli.reading import AsJson, open_registry
from perennial.contracts.errors import InputError, Problem
from perennial.spec.schema import nearest

if TYPE_CHECKING:
    from perennial.stores.registry.audit import Audit

_SHOWN = 12
"""Letters of a seal, where it only tells entries apart."""


def audit(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The model; all without it.")] = None,
    head: Annotated[
        str, typer.Option(metavar="DIGEST", help="A head kept from before: is it in the chain?")
    ] = "",
    limit: Annotated[int, typer.Option(min=0, help="How many of the last entries to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The audit of every decision about a model, and whether it is as it was written: each entry is
    sealed by a digest over what it says and the seal before it. Exit code 1 if any was changed,
    removed, put in or moved, or the route changed beside it.

    Somebody who may write to the database can rewrite all of a chain, and only a head that was kept
    elsewhere shows that: --head says whether the chain still leads through it.
    """
    if head and not re.fullmatch("[0-9a-f]{64}", head):
        raise InputError(Problem("--head", f"{head!r} is not 64 hexadecimal digits"))
    if head and name is None:
        raise InputError(Problem("--head", "a head is that of one model", "name the model"))
    registry = open_registry(context_of(context).project)
    names = sorted(registry.heads())
    if name is not None and name not in names and not head:
        what = f"nothing was ever decided about {name!r}{nearest(name, names)}"
        raise InputError(Problem("registry", what, "perennial status lists the models"))
    if name is None:
        found = [registry.audit(model, limit=0) for model in names]
        values: Any = [_values(one) for one in found]
    else:
        found = [registry.audit(name, kept=head, limit=limit)]
        values = _values(found[0])
    if as_json:
        typer.echo(json.dumps(values, indent=2))
    elif name is None:
        _print_all(found)
    else:
        _print(found[0])
    if any(one.faults for one in found):
        raise typer.Exit(1)


def _values(found: Audit) -> dict[str, Any]:
    values = found.model_dump(mode="json", exclude={"last"})
    entries = [
        {"number": e.number, "seal": e.seal, **e.entry.model_dump(mode="json")} for e in found.last
    ]
    return {**values, "whole": not found.faults, "entries": entries}


def _print_all(found: list[Audit]) -> None:
    if not found:
        typer.echo("nothing was ever decided")
        return
    table = table_of("model", "entries", "", "head")
    for one in found:
        whole = "whole" if not one.faults else one.faults[0]
        table.add_row(one.model, f"{one.head.number:,}", whole, one.head.seal)
    console().print(table)


def _print(found: Audit) -> None:
    place, out = found.head, console()
    state = "NOT as it was written" if found.faults else "whole"
    entries = "1 entry" if place.number == 1 else f"{place.number:,} entries"
    out.print(f"{found.model}: {entries}, {state}")
    for fault in found.faults:
        out.print(f"  ! {fault}", soft_wrap=True)
    if found.kept is not None:
        out.print(f"  the head that was kept is entry {found.kept} of {place.number}")
    for one in found.last:
        entry = one.entry
        what = entry.action + (f" v{entry.version}" if entry.version else "")
        line = f"{one.number:>6}  {one.seal[:_SHOWN]}  {entry.at:%Y-%m-%d %H:%M}  {entry.actor}  "
        out.print(f"{line}{what}: {entry.reason}", soft_wrap=True)
    out.print(f"head  {place.seal}", soft_wrap=True)
