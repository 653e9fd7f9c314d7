"""Comparing what is declared with what is on the server, and making the one the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.client.schemas.objects import BlockDocument
from prefect.events.filters import AutomationFilter, AutomationFilterTags
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound

from deployments import storing
from deployments.automations import DEAD_AFTER, TAG, declared
from deployments.deployed import compare
from deployments.destinations import Destination, data_of, from_environment, on_server
from deployments.pools import declare_pools, ours
from deployments.steps import Outcome, Step
from perennial.contracts.refs import Value

_PAGE = 200


class Declaration(Value):
    """All of it. ``checked``: nothing was touched. ``destinations`` are where alerts go, then."""

    checked: bool
    steps: tuple[Step, ...]
    destinations: tuple[str, ...]

    @property
    def as_declared(self) -> bool:
        """Whether nothing was to do."""
        return all(step.outcome == "as declared" for step in self.steps)


def declare(
    client: SyncPrefectClient,
    environment: Mapping[str, str],
    *,
    pools: Mapping[str, str] | None = None,
    prefect_yaml: Mapping[str, Any] | None = None,
    check: bool = False,
    dead_after: timedelta = DEAD_AFTER,
) -> Declaration:
    """Make the server's blocks, variables, work pools and automations what is declared; with
    ``check`` only compare, and the deployments of ``prefect_yaml`` too.

    ``pools`` are kinds by name, made beside those that were made here before. Blocks and variables
    are made of the environment and changed to it, and never removed: who made one otherwise, or in
    another shell, keeps it. Automations that have the tag of ours and are not declared any more are
    removed. What is paused stays so.

    Raises InputError for wrong variables, before anything is done.
    """
    cloud = client.server_type == ServerType.CLOUD
    alerts = from_environment(environment, cloud=cloud)
    kinds = ours(client) | dict(pools or {})
    stored = storing.blocks(environment, kinds.values())
    values = storing.variables(environment)
    if pools:
        storing.check_needs(client, pools.values(), stored)
    made = list(declare_pools(client, kinds, check=True))  # refuses before anything is done
    if not check:
        made = list(declare_pools(client, kinds, check=False))
    wanted = {
        **stored,
        **{f"{one.get_block_type_slug()}/{name}": one for name, one in alerts.items()},
    }
    blocks = [_declare_block(client, title, block, check) for title, block in wanted.items()]
    variables = [_declare_variable(client, *item, check) for item in values.items()]
    places = on_server(client)
    if check:  # those that would be made first
        there = {str(place) for place in places}
        new = [_place(name, block) for name, block in alerts.items()]
        places = sorted([*places, *(place for place in new if str(place) not in there)])
    automations = _declare_automations(client, declared(places, dead_after), check)
    deployments = compare(client, prefect_yaml) if check and prefect_yaml is not None else ()
    return Declaration(
        checked=check,
        steps=(*blocks, *variables, *made, *automations, *deployments),
        destinations=tuple(str(place) for place in places),
    )


def _place(name: str, block: Block) -> Destination:
    """A block that is not on the server yet."""
    return Destination(block.get_block_type_slug(), name, UUID(int=0), isinstance(block, Webhook))


def _declare_block(client: SyncPrefectClient, title: str, block: Block, check: bool) -> Step:
    slug, _, name = title.partition("/")
    try:
        found = client.read_block_document_by_name(name, slug, include_secrets=True)
    except ObjectNotFound:
        found = None
    differing = [] if found is None else _differing_fields(block, found, name)
    if found is not None and not differing:
        return Step(kind="block", name=title, outcome="as declared")
    if not check:
        held = {key: type(value).load(name) for key, value in _held(block).items()}
        block.model_copy(update=held).save(name, overwrite=True)
    outcome: Outcome = "created" if found is None else "changed"
    return Step(kind="block", name=title, outcome=outcome, detail=", ".join(differing))


def _differing_fields(block: Block, found: BlockDocument, name: str) -> list[str]:
    held = _held(block)
    data = {key: value for key, value in data_of(block).items() if key not in held}
    references = {
        key: told["block_document"]["name"]
        for key, told in found.block_document_references.items()
        if "block_document" in told
    }
    return [
        *(key for key, value in data.items() if found.data.get(key) != value),
        *(key for key in held if references.get(key) != name),
    ]


def _held(block: Block) -> dict[str, Block]:
    """The blocks that a block refers to; they are declared before it, under the same name."""
    values = {key: getattr(block, key) for key in type(block).model_fields}
    return {key: value for key, value in values.items() if isinstance(value, Block)}


def _declare_variable(client: SyncPrefectClient, name: str, value: str, check: bool) -> Step:
    found = client.read_variable_by_name(name)
    if found is not None and found.value == value:
        return Step(kind="variable", name=name, outcome="as declared")
    if found is None:
        if not check:
            client.create_variable(VariableCreate(name=name, value=value))
        return Step(kind="variable", name=name, outcome="created")
    if not check:
        client.update_variable(VariableUpdate(name=name, value=value))
    return Step(kind="variable", name=name, outcome="changed", detail=f"was {found.value}")


def _declare_automations(
    client: SyncPrefectClient, wanted: Sequence[AutomationCore], check: bool
) -> list[Step]:
    steps = []
    present = _ours(client)
    for automation in wanted:
        # By name: the first is kept, others of the same name can only come of a race.
        index = next((i for i, one in enumerate(present) if one.name == automation.name), None)
        found = None if index is None else present.pop(index)
        steps.append(_declare_automation(client, automation, found, check))
    for automation in present:
        if not check:
            client.delete_automation(automation.id)
        steps.append(Step(kind="automation", name=automation.name, outcome="removed"))
    return steps


def _declare_automation(
    client: SyncPrefectClient, wanted: AutomationCore, found: Automation | None, check: bool
) -> Step:
    if found is None:
        if not check:
            client.create_automation(wanted)
        return Step(kind="automation", name=wanted.name, outcome="created")
    wanted = wanted.model_copy(update={"enabled": found.enabled})
    differing = _differing(wanted, found)
    if not differing:
        detail = "" if found.enabled else "paused"
        return Step(kind="automation", name=wanted.name, outcome="as declared", detail=detail)
    if not check:
        # The client sends what is set; an update with an owner is refused.
        data = wanted.model_dump(exclude={"owner_resource"})
        client.update_automation(found.id, AutomationCore.model_validate(data))
    return Step(kind="automation", name=wanted.name, outcome="changed", detail=", ".join(differing))


def _differing(wanted: AutomationCore, found: Automation) -> list[str]:
    """The fields that differ. ``owner_resource`` is not among those that a server tells."""
    fields = set(AutomationCore.model_fields) - {"owner_resource"}
    one, other = wanted.model_dump(include=fields), found.model_dump(include=fields)
    return sorted(field for field in fields if one[field] != other[field])


def _ours(client: SyncPrefectClient) -> list[Automation]:
    found: list[Automation] = []
    tagged = AutomationFilter(tags=AutomationFilterTags(all_=[TAG]))
    while True:
        page = client.read_automations(automations=tagged, limit=_PAGE, offset=len(found))
        found += page
        if len(page) < _PAGE:
            # Whatever a server makes of the filter: what is not ours is never touched.
            return [automation for automation in found if TAG in automation.tags]
