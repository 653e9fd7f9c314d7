"""Comparing what is declared with what is on the server, and making the one the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.filters import AutomationFilter, AutomationFilterTags
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound

from deployments.automations import DEAD_AFTER, TAG, declared
from deployments.destinations import Destination, data_of, from_environment, on_server
from perennial.contracts.refs import Value

_PAGE = 200


class Step(Value):
    """What became of one thing, or would become of it. ``detail`` says in what it differed."""

    kind: Literal["block", "automation"]
    name: str
    outcome: Literal["created", "changed", "removed", "as declared"]
    detail: str = ""


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
    check: bool = False,
    dead_after: timedelta = DEAD_AFTER,
) -> Declaration:
    """Make the server's blocks and automations what is declared; with ``check`` only compare.

    Blocks are made of the environment and changed to it, and never removed: who made one otherwise,
    or in another shell, keeps it. Automations that have the tag of ours and are not declared any
    more are removed. Whether one is paused is left as it is.

    Raises InputError for wrong variables, before anything is asked or done.
    """
    cloud = client.server_type == ServerType.CLOUD
    wanted = from_environment(environment, cloud=cloud)
    blocks = [_declare_block(client, name, block, check) for name, block in wanted.items()]
    places = on_server(client)
    if check:  # those that would be made first
        there = {str(place) for place in places}
        made = [_place(name, block) for name, block in wanted.items()]
        places = sorted([*places, *(place for place in made if str(place) not in there)])
    automations = _declare_automations(client, declared(places, dead_after), check)
    return Declaration(
        checked=check,
        steps=(*blocks, *automations),
        destinations=tuple(str(place) for place in places),
    )


def _place(name: str, block: Block) -> Destination:
    """A block that is not on the server yet."""
    return Destination(block.get_block_type_slug(), name, UUID(int=0), isinstance(block, Webhook))


def _declare_block(client: SyncPrefectClient, name: str, block: Block, check: bool) -> Step:
    slug = block.get_block_type_slug()
    title = f"{slug}/{name}"
    try:
        found = client.read_block_document_by_name(name, slug, include_secrets=True)
    except ObjectNotFound:
        found = None
    data = data_of(block)
    if found is not None and all(found.data.get(key) == value for key, value in data.items()):
        return Step(kind="block", name=title, outcome="as declared")
    if not check:
        block.save(name, overwrite=True)
    if found is None:
        return Step(kind="block", name=title, outcome="created")
    differing = [key for key, value in data.items() if found.data.get(key) != value]
    return Step(kind="block", name=title, outcome="changed", detail=", ".join(differing))


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
