"""Work pools: where workers run flows, from templates that say what a run may be given.

A pool that is made here says so in its description; from then on it is held to its template, by
every ``perennial setup``. Pools that somebody made otherwise are left alone until they are asked
for. What a team sets for its own runs (image, roles, sizes) belongs into deploy.yaml's job
variables, so that a template is the same everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.exceptions import ObjectNotFound

from deployments.steps import Step
from perennial.contracts.errors import InputError, Problem
from perennial.spec.values import nearest

KINDS = ("process", "docker", "kubernetes", "ecs")

_FOLDER = Path(__file__).parent / "work_pools"
_PAGE = 200


def template(kind: str) -> dict[str, Any]:
    """The base job template of a kind of pool."""
    found: dict[str, Any] = json.loads((_FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
    return found


def asked(texts: Sequence[str], usual_name: str) -> dict[str, str]:
    """Kinds by the names of pools, of ``KIND`` or ``KIND=NAME``. Raises InputError."""
    found: dict[str, str] = {}
    for text in texts:
        kind, _, name = text.partition("=")
        name = name or usual_name
        if kind not in KINDS:
            what = f"{kind!r} is no kind of work pool{nearest(kind, KINDS)}"
            raise InputError(Problem("--pool", what, f"known: {', '.join(KINDS)}"))
        if found.get(name, kind) != kind:
            what = f"the pool {name!r} can't be both {found[name]} and {kind}"
            raise InputError(Problem("--pool", what, "name them: KIND=NAME"))
        found[name] = kind
    return found


def ours(client: SyncPrefectClient) -> dict[str, str]:
    """Kinds of the pools that were made here, by their names."""
    found: dict[str, str] = {}
    offset = 0
    while True:
        page = client.read_work_pools(limit=_PAGE, offset=offset)
        found |= {
            pool.name: pool.type
            for pool in page
            if pool.type in KINDS and pool.description == _description(pool.type)
        }
        if len(page) < _PAGE:
            return found
        offset += len(page)


def declare_pools(
    client: SyncPrefectClient, wanted: Mapping[str, str], check: bool
) -> Iterator[Step]:
    """Make the pools what their templates say, with ``check`` only compare. A pause and a limit are
    left as they are. Raises InputError for a name that a pool of another kind has."""
    found = {name: _read(client, name) for name in wanted}
    for name, kind in wanted.items():
        pool = found[name]
        if pool is not None and pool.type != kind:
            what = f"the pool {name!r} is there, of the type {pool.type}"
            raise InputError(Problem("--pool", what, f"take another name: --pool {kind}=NAME"))
    for name, kind in sorted(wanted.items()):
        yield _declare(client, name, kind, found[name], check)


def _declare(
    client: SyncPrefectClient, name: str, kind: str, found: WorkPool | None, check: bool
) -> Step:
    data = {"description": _description(kind), "base_job_template": template(kind)}
    if found is None:
        if not check:
            client.create_work_pool(WorkPoolCreate(name=name, type=kind, **data))
        return Step(kind="work pool", name=name, outcome="created", detail=kind)
    differing = sorted(key for key, value in data.items() if getattr(found, key) != value)
    if not differing:
        return Step(kind="work pool", name=name, outcome="as declared", detail=kind)
    if not check:
        client.update_work_pool(name, WorkPoolUpdate(**data))
    return Step(kind="work pool", name=name, outcome="changed", detail=", ".join(differing))


def _read(client: SyncPrefectClient, name: str) -> WorkPool | None:
    try:
        return client.read_work_pool(name)
    except ObjectNotFound:
        return None


def _description(kind: str) -> str:
    return f"As perennial setup --pool {kind} declares it; docs/work-pools.md"
