"""Commands that only look: status, versions, show. Each takes ``--json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from perennial.cli.context import context_of
from perennial.cli.output import console, table_of
from perennial.contracts.errors import InputError, Problem
from perennial.contracts.rollouts import Rollout
from perennial.spec.schema import nearest
from perennial.stores.project import Project
from perennial.stores.storage.objects import read

if TYPE_CHECKING:
    from perennial.contracts.retraining import Retraining
    from perennial.contracts.routes import Route
    from perennial.stores.registry import AuditEntry, Registry, Standing, Version

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def status(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    as_json: AsJson = False,
    decisions: Annotated[int, typer.Option(min=0, help="How many decisions to show of each.")] = 5,
) -> None:
    """Who serves each model, what is being rolled out, and what was decided last. About versions,
    and whenever a retraining was asked for: retrain, wait until when, or no, and why."""
    project = context_of(context).project
    registry = open_registry(project)
    names = [_known(project, registry, name)] if name else _all_models(project, registry)
    found = statuses(registry, names, decisions)
    if as_json:
        _print_json(found)
        return
    if not found:
        typer.echo(f"no models in {project.models}; perennial init makes one")
    for model in found:
        _print_status(console(), project, model)


def versions(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model.")],
    as_json: AsJson = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many of the newest.")] = None,
) -> None:
    """All versions of a model, the newest first."""
    project = context_of(context).project
    registry = open_registry(project)
    found = registry.versions(_known(project, registry, name), limit)
    route, quarantined = registry.route(name), registry.quarantined(name)
    values = [_version_values(version, route, quarantined) for version in found]
    if as_json:
        _print_json(values)
        return
    if not found:
        typer.echo(f"{name} has no version yet; perennial train {name} makes the first")
        return
    metrics = list(found[0].metrics)
    table = table_of("version", "registered (UTC)", *metrics, "route")
    for version, value in zip(found, values, strict=True):
        table.add_row(
            str(version.ref.version),
            f"{version.created_at:%Y-%m-%d %H:%M}",
            *(_figure(version.metrics.get(metric)) for metric in metrics),
            _place(value),
        )
    console().print(table)


def show(
    context: typer.Context,
    version: Annotated[str, typer.Argument(metavar="NAME@V", help="For example flight-delay@3.")],
    as_json: AsJson = False,
) -> None:
    """One version: metrics, verdicts, and what it was made from."""
    project = context_of(context).project
    found = find_version(project, version)
    registry, name = open_registry(project), found.ref.model
    values = _version_values(found, registry.route(name), registry.quarantined(name))
    lineage = read(f"{found.ref.uri}/lineage.json")
    values["lineage"] = None if lineage is None else json.loads(lineage)
    if as_json:
        _print_json(values)
        return
    _print_version(console(), found, values)


def find_version(project: Project, text: str) -> Version:
    """The registered version ``flight-delay@3``. Raises InputError."""
    name, number = name_and_version(text, "NAME@V")
    if number is None:
        raise InputError(f"{text!r} is not NAME@V; write for example flight-delay@3")
    registry = open_registry(project)
    return registry.version(_known(project, registry, name), number)


def name_and_version(text: str, form: str = "NAME or NAME@V") -> tuple[str, int | None]:
    """``flight-delay@3`` or ``flight-delay``, which has no number. Raises InputError that asks for
    the ``form``."""
    name, at, number = text.partition("@")
    number = number.removeprefix("v")
    if not name or (at and not (number.isdecimal() and int(number) > 0)):
        raise InputError(f"{text!r} is not {form}; write for example flight-delay@3")
    return name, int(number) if at else None


def open_registry(project: Project) -> Registry:
    """The project's registry. Raises InputError where there is no project."""
    from perennial.stores.registry import Registry

    if not project.models.is_dir() and not project.home.is_dir():  # and leave none behind
        fix = "perennial init makes a model here; --project names another place"
        raise InputError(Problem(str(project.root), "no models here", fix))
    return Registry(project.registry_url)


def _all_models(project: Project, registry: Registry) -> list[str]:
    return sorted({*project.model_names(), *registry.models()})


def _known(project: Project, registry: Registry, name: str) -> str:
    names = _all_models(project, registry)
    if name not in names:
        fix = f"models here: {', '.join(names)}" if names else "perennial init makes one"
        raise InputError(
            Problem(str(project.root), f"no model {name!r}{nearest(name, names)}", fix)
        )
    return name


def statuses(registry: Registry, models: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """What ``status`` tells of these models, with up to ``limit`` decisions and retrainings."""
    found = registry.standings(models, limit)  # twice the decisions: registered, then promoted
    return [_status(model, standing, limit) for model, standing in found.items()]


def _status(model: str, standing: Standing, limit: int) -> dict[str, Any]:
    route, champion, quarantined = standing.route, standing.champion, standing.quarantined
    decided = [e for e in standing.decisions if e.action != "registered"]
    return {
        "model": model,
        "champion": _version_values(champion, route, quarantined) if champion else None,
        "rollout": standing.rollout and standing.rollout.model_dump(mode="json"),
        "quarantined": {str(version): why for version, why in quarantined.items()},
        "generation": route.generation,
        "versions": standing.versions,
        "decisions": [_decision_values(e) for e in decided[:limit]],
        "retrainings": [_retraining_values(r) for r in standing.retrainings],
    }


def _version_values(version: Version, route: Route, quarantined: dict[int, str]) -> dict[str, Any]:
    """``weight`` is the share of requests in percent, null for a version that is no arm;
    ``quarantined`` says why it is, or null."""
    values, number = version.model_dump(mode="json"), version.ref.version
    place = {
        "champion": number == route.champion,
        "weight": next((arm.weight for arm in route.arms if arm.version == number), None),
        "shadow": number in route.shadow,
        "quarantined": quarantined.get(number),
    }
    return {**values.pop("ref"), **place, **values}


def _place(version: dict[str, Any]) -> str:
    """What a version does, in words: ``champion``, or ``challenger, 5 %``."""
    weight = version["weight"]
    role = "champion" if version["champion"] else "" if weight is None else "challenger"
    share = "" if weight is None or (role == "champion" and weight == 100) else f"{weight} %"
    marks = ("shadow" * version["shadow"], "quarantined" * bool(version["quarantined"]))
    return ", ".join(filter(None, (role, share, *marks)))


def _decision_values(entry: AuditEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude={"evidence"})


def _retraining_values(retraining: Retraining) -> dict[str, Any]:
    return retraining.model_dump(mode="json", exclude={"trigger": {"evidence"}})


def _print_status(console: Console, project: Project, model: dict[str, Any]) -> None:
    champion = model["champion"]
    console.print(model["model"], style="bold")
    if champion is None:
        console.print("  serving   nobody: no version was accepted yet")
    else:
        figures = "  ".join(f"{k} {_figure(v)}" for k, v in champion["metrics"].items())
        age = _ago(datetime.fromisoformat(champion["created_at"]))
        console.print(
            f"  serving   version {champion['version']} of {model['versions']}, {age}; {figures}",
            soft_wrap=True,
        )
    if model["rollout"] is not None:
        from perennial.reports.rollout_progress import standing
        from perennial.stores.rolling_out import check_every

        rollout = Rollout.model_validate(model["rollout"])
        every = check_every(project, rollout.model)
        line = f"  rollout   {standing(rollout, every, datetime.now(UTC))}"
        console.print(line, soft_wrap=True)
    for version, why in model["quarantined"].items():
        console.print(f"  held back version {version}: {why}", soft_wrap=True)
    for decision in model["decisions"]:
        at = datetime.fromisoformat(decision["at"])
        what = decision["action"] + (f" v{decision['version']}" if decision["version"] else "")
        line = f"  {at:%Y-%m-%d %H:%M}  {what}: {decision['reason']}"
        console.print(line, soft_wrap=True)
    if model["retrainings"]:
        console.print("  asked to retrain")
    for retraining in model["retrainings"]:
        answer = retraining["current"]
        at = datetime.fromisoformat(answer["decided_at"])
        line = f"    {at:%Y-%m-%d %H:%M}  {_answer(retraining)}: {answer['reason']}"
        console.print(line, soft_wrap=True)


def _answer(retraining: dict[str, Any]) -> str:
    """The answer with until when, or what became of it."""
    answer = retraining["current"]
    if answer["answer"] == "wait" and answer["wait_until"]:
        return f"wait until {datetime.fromisoformat(answer['wait_until']):%Y-%m-%d %H:%M}"
    if answer["answer"] != "retrain":
        return str(answer["answer"])
    became = {
        "decided": "not started yet", "started": "under way",
        "died": "ended early: its run was cancelled or died",
    }  # fmt: skip
    return f"retrain ({became.get(retraining['state'], retraining['outcome'])})"


def _print_version(console: Console, version: Version, values: dict[str, Any]) -> None:
    ref = version.ref
    mark = f" ({place})" if (place := _place(values)) else ""
    console.print(Text.assemble((f"{ref.model}@{ref.version}", "bold"), mark))
    console.print(f"  registered  {version.created_at:%Y-%m-%d %H:%M} UTC")
    console.print(f"  bundle      {ref.uri}", soft_wrap=True)
    for section, content in (
        ("metrics", {k: _figure(v) for k, v in version.metrics.items()}),
        ("parameters", {k: _figure(v) for k, v in version.params.items()}),
        ("links", version.links),
    ):
        console.print(f"  {section}")
        width = max(map(len, content), default=0)
        for key, value in content.items():
            line = f"    {key:<{width}}  {value}"
            console.print(line, soft_wrap=True)
    console.print("  gates")
    for verdict in version.judgement.get("verdicts", []):
        line = f"    {verdict['outcome']:<13}{verdict['reason']}"
        console.print(line, soft_wrap=True)
    if values["lineage"]:
        console.print("  lineage")
        text = json.dumps(values["lineage"], indent=2, sort_keys=True)
        console.print("\n".join(f"    {line}" for line in text.splitlines()))


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value if value is not None else "–")


def _ago(moment: datetime) -> str:
    age = datetime.now(UTC) - moment
    for unit in ("day", "hour", "minute"):
        number = age // timedelta(**{f"{unit}s": 1})
        if number > 0:
            return f"{number} {unit}{'s' * (number > 1)} old"
    return "just registered"


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
