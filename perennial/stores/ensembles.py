"""The members of an ensemble: found in the registry, and refused when they don't fit it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from perennial.bundle.read import Bundle
from perennial.contracts.errors import InputError, IntegrityError, Problem
from perennial.contracts.refs import Member, MemberRef, VersionRef
from perennial.data.frames import table_columns
from perennial.data.overlap import fitted_before
from perennial.spec import ModelSpec
from perennial.spec.ensemble import member_of
from perennial.spec.values import nearest
from perennial.stores.bundles import open_stored
from perennial.stores.project import Project
from perennial.stores.registry import Registry

_OF = "model.yaml, ensemble.of"


def find_members(project: Project, spec: ModelSpec, source: str) -> tuple[MemberRef, ...]:
    """The versions that an ensemble is made of now: champions, or those that are pinned. Empty for
    a model that is no ensemble. ``source`` is its features.py.

    Raises InputError with every member that is unknown, has no version or one that is quarantined,
    or doesn't fit (see ``check_members``), and for a features.py; IntegrityError for a damaged
    bundle.
    """
    if spec.ensemble is None:
        return ()
    if source:
        what = "an ensemble's features are its members' predictions"
        raise InputError(Problem("features.py", what, "remove it"))
    registry = Registry(project.registry_url)
    try:
        members: list[MemberRef] = []
        problems: list[Problem] = []
        for name in spec.ensemble.of:
            try:
                members.append(_find(project, registry, name))
            except IntegrityError:
                raise
            except InputError as error:
                problems += error.problems
    finally:
        registry.close()
    if problems:
        raise InputError(problems)
    check_members(spec, members, open_members(members, project))
    return tuple(members)


def open_members(members: Sequence[MemberRef], project: Project | None = None) -> dict[str, Bundle]:
    """The members' bundles by name, every byte checked. Raises as ``open_stored``."""
    return {member.name: open_stored(member, project) for member in members}


def members_within(version: VersionRef, bundle: Bundle) -> tuple[MemberRef, ...]:
    """The members of a registered ensemble as they lie in its own bundle, which needs no other."""
    return tuple(
        MemberRef(**member.model_dump(), uri=f"{version.uri}/members/{member.digest}")
        for member in bundle.manifest.members
    )


def check_members(
    spec: ModelSpec, members: Sequence[Member], bundles: Mapping[str, Bundle]
) -> None:
    """Raises InputError with everything about the members that doesn't fit: a version given twice,
    a circle, another objective, other classes, a column that is not declared or of another type, or
    missing where the member needs it, the label as an input, and rows of another event time or of
    none, of which ``overlap: drop`` can't tell those that were used."""
    problems: list[Problem] = []
    firsts: dict[str, str] = {}
    classes = next(iter(bundles.values())).schema.classes
    for member in members:
        bundle, where = bundles[member.name], f"{_OF}, {member.name}"
        first = firsts.setdefault(member.digest, member.name)
        if first != member.name:
            problems.append(Problem(where, f"the same version as {first}", "leave one out"))
        if any(one.model == spec.name for one in bundle.whole()):
            what = f"{member.model}@{member.version} is itself made of {spec.name!r}: a circle"
            problems.append(Problem(where, what, "pin a version of before, or leave it out"))
        if bundle.objective != spec.objective:
            what = f"its objective is {bundle.objective}, this model's is {spec.objective}"
            problems.append(Problem(where, what, "all members have the ensemble's objective"))
        elif bundle.schema.classes != classes:
            what = f"its classes are {_listed(bundle)}, those of {members[0].name} are "
            what += _listed(bundles[members[0].name])
            problems.append(Problem(where, what, "all members predict the same classes"))
        problems += _columns(spec, where, bundle)
        problems += _clocks(spec, where, bundle)
    if problems:
        raise InputError(problems)


def clean_since(spec: ModelSpec, bundles: Mapping[str, Bundle]) -> datetime | None:
    """The moment, of this model's event time, from which on no member was fitted to any row; None
    where ``overlap: keep`` says not to ask. Raises InputError for members of another event time."""
    assert spec.ensemble is not None
    if spec.ensemble.overlap == "keep":
        return None
    problems = [
        problem
        for name, bundle in bundles.items()
        for problem in _clocks(spec, f"{_OF}, {name}", bundle)
    ]
    if problems:
        raise InputError(problems)
    return max(_fitted_before(one) for bundle in bundles.values() for one in bundle.whole())


def _fitted_before(bundle: Bundle) -> datetime:
    dataset = bundle.lineage["dataset"]
    moment = fitted_before(bundle.spec, datetime.fromisoformat(dataset["as_of"] or dataset["end"]))
    assert moment is not None  # it has an event time
    return moment


def _find(project: Project, registry: Registry, name: str) -> MemberRef:
    model, version = member_of(name)
    known = sorted({*project.model_names(), *registry.models()})
    if model not in known:
        what = f"no model {model!r}{nearest(model, known)}"
        raise InputError(Problem(f"{_OF}, {name}", what, f"models here: {', '.join(known)}"))
    if version is not None:
        ref = registry.version(model, version).ref
        why = registry.quarantined(model).get(version)
        if why is not None:
            what = f"{model}@{version} is quarantined: {why}"
            raise InputError(Problem(f"{_OF}, {name}", what, "name another version"))
    else:
        champion = registry.champion(model)
        if champion is None:
            what = "no version of it serves yet"
            raise InputError(Problem(f"{_OF}, {name}", what, f"perennial train {model}"))
        ref = champion
    return MemberRef(name=name, **ref.model_dump())


def _clocks(spec: ModelSpec, where: str, bundle: Bundle) -> Iterator[Problem]:
    """What a member and those it is made of were fitted on is told by their own event times, which
    say nothing of another column."""
    assert spec.ensemble is not None
    if spec.ensemble.overlap == "keep":
        return
    mine = spec.source.event_time
    for one in bundle.whole():
        time = one.spec.source.event_time
        if time == mine:
            continue
        whose = "its" if one is bundle else f"it is made of {one.model!r}, whose"
        what = f"event time is {time!r}, this model's is {mine!r}"
        if time is None:
            what = "rows have no event time"
        yield Problem(
            where,
            f"{whose} {what}, so the rows it was fitted on can't be left out",
            "take members of this event time, or write overlap: keep and take the figures for "
            "flattering",
        )


def _columns(spec: ModelSpec, where: str, bundle: Bundle) -> Iterator[Problem]:
    declared = table_columns(spec)
    for column in bundle.schema.inputs:
        mine = declared.get(column.name)
        nullable = mine is not None and mine.nullable and column.name != spec.source.event_time
        if column.name == spec.label.column:
            yield Problem(where, f"it reads {column.name!r}, which is this model's label")
        elif mine is None:
            what = f"it reads the column {column.name!r}, which this model.yaml does not declare"
            yield Problem(where, what, "declare it under columns; the source must have it")
        elif mine.type != column.type:
            what = f"it reads {column.name!r} as {column.type}, declared here is {mine.type}"
            yield Problem(where, what, "declare the member's type")
        elif nullable and not column.nullable:
            what = f"it needs every value of {column.name!r}, here they may be missing"
            yield Problem(where, what, "declare the column with nullable: false")


def _listed(bundle: Bundle) -> str:
    return ", ".join(repr(name) for name in (bundle.schema.classes or ())[:20]) or "none"
