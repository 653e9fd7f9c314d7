"""``perennial rollout`` and ``perennial rollback``: a version's way to the requests, and back."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.error import HTTPError

import typer

from perennial.cli.context import Context, context_of
from perennial.cli.output import console
from perennial.cli.reading import name_and_version, open_registry
from perennial.cli.watchers import deployment_of, have_watched, is_watched
from perennial.contracts.errors import InputError, Problem, UnavailableError
from perennial.contracts.rollouts import ENDS, Command, Rollout
from perennial.spec.values import nearest

if TYPE_CHECKING:
    from perennial.contracts.routes import Route
    from perennial.stores.registry import Registry

_NOW = "for this rollout only, in place of model.yaml's"


def rollout(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME[@V]", help="A version to roll out; a model: what it is rolling out now."
        ),
    ],
    strategy: Annotated[
        list[str] | None,
        typer.Option(help=f"shadow, canary, blue_green or ab_test, {_NOW}; several: one by one."),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="5,25,100", help="Of a canary, in percent; likewise.")
    ] = None,
    split: Annotated[
        int | None, typer.Option(help="Of an ab_test, the version's percent; likewise.")
    ] = None,
    bake: Annotated[
        str | None, typer.Option(metavar="10m", help="The least time at a step; likewise.")
    ] = None,
    min_requests: Annotated[
        int | None, typer.Option(help="The least rows at a step; likewise.")
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="End it well, measured or not.")
    ] = False,
    abort: Annotated[bool, typer.Option("--abort", help="End it; the champion stays.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Stay at this step.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a pause.")] = False,
    approve: Annotated[
        bool, typer.Option("--approve", help="Let the step begin that waits for a person.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")] = "by hand",
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also a version in quarantine, or older than the champion or the one rolled out.",
        ),
    ] = False,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="A worker of the Prefect server watches it, if none does."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Roll a version out, step by step, and watch it. Or say what is to become of the rollout that
    is under way, which works without Prefect too. Exit code 1: it was not promoted."""
    found = context_of(context)
    name, version = name_and_version(target)
    settings = _settings(strategy, steps, split, bake, min_requests)
    order = _order(promote=promote, abort=abort, pause=pause, resume=resume, approve=approve)
    registry = open_registry(found.project)
    if order is not None:
        if settings or force or detach:
            what = "goes without settings, --force and --detach"
            raise InputError(Problem(f"--{order}", what, "they are for beginning a rollout"))
        _expect(registry, name, version)
        now = datetime.now(UTC)
        done = registry.rollouts.command(name, order, actor=_actor(), reason=reason, now=now)
        _show((done,), as_json)
        return
    deployment = deployment_of(_call, name) if detach else None  # before anything is begun
    if version is None:
        current = _under_way(registry, name, settings)
    else:
        current = _begun(found, registry, name, version, settings, reason, force)
    if deployment is not None and not current.ended:
        # A run that has done its watching may be about to end: what has just begun gets its own.
        if version is not None or not _is_watched(found, current):
            have_watched(_call, deployment)
        _show((current,), as_json)
        return
    watched = (current,) if current.ended else _watched(found, name)
    _show(watched, as_json)
    if watched[0].state.phase != "promoted":
        raise typer.Exit(1)


def rollback(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model.")],
    to: Annotated[
        int | None,
        typer.Option(metavar="V", help="A former champion; by default the one before this."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")] = "by hand",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Give all requests back, at once. To the champion while a version is being rolled out, else to
    the champion before this one; once more rolls that back. Needs nothing but the registry."""
    registry = open_registry(context_of(context).project)
    _known(registry, name)
    before = registry.route(name)
    route = registry.rollback(name, to, actor=_actor(), reason=reason, now=datetime.now(UTC))
    if as_json:
        typer.echo(route.model_dump_json(indent=2))
    else:
        typer.echo(f"{name}: version {route.champion} answers all requests ({_said(before)})")


def _said(before: Route) -> str:
    shares = ", ".join(f"version {arm.version} {arm.weight} %" for arm in before.arms)
    return f"before: {shares}" if shares else "before: nobody"


def _settings(
    strategy: list[str] | None,
    steps: str | None,
    split: int | None,
    bake: str | None,
    min_requests: int | None,
) -> dict[str, Any]:
    """As they stand below ``rollout`` in model.yaml. Whether they are right is for the spec."""
    given: dict[str, Any] = {
        "strategy": strategy[0] if strategy and len(strategy) == 1 else strategy,
        "steps": None if steps is None else [_whole(part) for part in steps.split(",")],
        "split": split,
        "bake": bake,
        "min_requests": min_requests,
    }
    return {key: value for key, value in given.items() if value is not None}


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        what = f"{text.strip()!r} is not a whole number"
        raise InputError(Problem("--steps", what, "write percents: 5,25,100")) from None


def _order(**flags: bool) -> Command | None:
    given = [name for name, wanted in flags.items() if wanted]
    if len(given) > 1:
        raise InputError(Problem(f"--{given[1]}", f"contradicts --{given[0]}", "give one of them"))
    return next((order for order in _ORDERS if order in given), None)


_ORDERS: tuple[Command, ...] = ("promote", "abort", "pause", "resume", "approve")


def _known(registry: Registry, name: str) -> None:
    """A model is known by the registry here: a broken model.yaml is no reason not to go back."""
    names = registry.models()
    if name not in names:
        known = f"models here: {', '.join(names)}" if names else "nothing was registered yet"
        raise InputError(Problem("registry", f"no model {name!r}{nearest(name, names)}", known))


def _expect(registry: Registry, name: str, version: int | None) -> None:
    """That it is this version which is being rolled out: an order is not for another."""
    _known(registry, name)
    active = registry.rollouts.active(name)
    if active is not None and version not in (None, active.version):
        what = f"it is version {active.version} that is being rolled out"
        raise InputError(Problem(f"{name}@{version}", what, f"write {name}@{active.version}"))


def _under_way(registry: Registry, name: str, settings: dict[str, Any]) -> Rollout:
    _known(registry, name)
    if settings:
        fix = f"perennial rollout {name}@V begins another"
        raise InputError(Problem(name, "a rollout under way keeps its settings", fix))
    active = registry.rollouts.active(name)
    if active is None:
        what, fix = "no version of it is being rolled out", f"perennial rollout {name}@V begins one"
        raise InputError(Problem(name, what, fix))
    return active


def _begun(
    found: Context,
    registry: Registry,
    name: str,
    version: int,
    settings: dict[str, Any],
    reason: str,
    force: bool,
) -> Rollout:
    from perennial.stores.rolling_out import begin

    now = datetime.now(UTC)
    return begin(
        found.project, registry, name, version, settings, actor=_actor(), reason=reason,
        cause=f"{_actor()} {now.isoformat()}", force=force, now=now,
    )  # fmt: skip


def _watched(found: Context, name: str) -> tuple[Rollout, ...]:
    """Watch it in a flow, until it has ended."""
    from perennial.contracts.runs import Watch

    try:
        return Watch.model_validate(found.run_flow("rollout", model=name)).rollouts
    except (typer.Exit, KeyboardInterrupt):
        typer.echo(
            f"nobody watches it from here any more; perennial rollout {name} goes on with that, "
            f"perennial rollout {name} --abort ends the rollout",
            err=True,
        )
        raise


def _is_watched(found: Context, current: Rollout) -> bool:
    from perennial.stores.rolling_out import at_work_since

    since = at_work_since(found.project, current, datetime.now(UTC))
    return is_watched(_call, current.model, since)


def _call(method: str, path: str, body: Any = None) -> Any:
    from perennial.cli import prefect_server

    url = os.environ.get("PREFECT_API_URL")
    fix = "name the server that a worker is at: perennial up starts one and says its address"
    if not url:
        raise InputError(Problem("--detach", "PREFECT_API_URL is not set", fix))
    try:
        return prefect_server.call(method, f"{url.rstrip('/')}{path}", body)
    except HTTPError as error:
        if error.code == 404:
            deploy = "perennial check --write, then prefect deploy --all"
            raise InputError(Problem(url, "has no such deployment", deploy)) from None
        raise UnavailableError(f"{url}: the Prefect server refuses ({error.code})") from None
    except OSError as error:
        raise UnavailableError(f"{url}: the Prefect server does not answer ({error})") from None


def _actor() -> str:
    try:
        return f"{getpass.getuser()} by hand"
    except (KeyError, OSError):  # a container's user has no name
        return f"user {os.getuid()} by hand"


def _show(rollouts: tuple[Rollout, ...], as_json: bool) -> None:
    if as_json:
        typer.echo(rollouts[0].model_dump_json(indent=2))
        return
    from perennial.reports.rollout_progress import headline

    out = console()
    for one in rollouts:
        out.print(headline(one), style="bold", soft_wrap=True)
        if one.state.reason:
            out.print(one.state.reason, soft_wrap=True)
        if one.state.phase not in ENDS:
            line = f"perennial rollout {one.model} watches it, perennial status {one.model} tells"
            out.print(line, soft_wrap=True)
