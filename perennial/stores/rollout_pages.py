"""The page of a rollout, from the registry's audit and the prediction log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from perennial.contracts.comparing import StepComparison
from perennial.contracts.rollouts import Check, Rollout, awaits_first
from perennial.decisions.guards import judge
from perennial.reports.rollout import Happened, render_html
from perennial.spec import ModelSpec
from perennial.stores.project import Project
from perennial.stores.registry import AuditEntry, Registry
from perennial.stores.rollout_comparison import compare
from perennial.stores.rollout_evidence import measure
from perennial.stores.storage.objects import write

LOOKS = 8
"""That are repeated a step: what a look found is counted anew from the log."""
_MOST_DECISIONS = 1_000


class Story(NamedTuple):
    """What is known of a rollout: decisions, looks at its steps, and both versions side by side in
    each step that requests were shared out or copied in."""

    history: tuple[Happened, ...]
    looks: tuple[Check, ...]
    compared: tuple[StepComparison, ...]


def tell(
    project: Project, spec: ModelSpec, registry: Registry, rollout: Rollout, now: datetime
) -> Story:
    """A rollout's story until ``now`` or its end. Looks are repeated as of evenly spread moments of
    each step, the last one at its end. Raises as ``compare``, and as the registry's methods."""
    entries = [
        entry
        for entry in registry.decisions(rollout.model, _MOST_DECISIONS)
        if entry.evidence.get("rollout") == rollout.id
    ]
    entries.sort(key=lambda entry: entry.id)
    history = tuple(Happened(e.at, e.action, e.actor, e.reason) for e in entries)
    looks: list[Check] = []
    compared = []
    for number, start, end in _windows(rollout, entries, rollout.ended_at or now):
        state = rollout.state.model_copy(update={"step": number, "entered_at": start})
        then = rollout.model_copy(update={"state": state})
        for i in range(1, LOOKS + 1):
            at = start + (end - start) * i / LOOKS
            measurements, requests = measure(project, spec, then, at)
            looks.append(judge(number, rollout.plan.steps[number], measurements, requests, at))
        compared.append(compare(project, spec, then, end))
    return Story(history, tuple(looks), tuple(compared))


def page_of(project: Project, rollout: Rollout) -> str:
    """Where the page of a rollout is, once it is written."""
    return f"{project.uri('reports', rollout.model)}/rollout-{rollout.id}.html"


def write_page(project: Project, rollout: Rollout, story: Story) -> str:
    """Write the page, in place of an older one. Raises InputError when the disk is full, and as
    ``storage.objects.Objects``."""
    page = page_of(project, rollout)
    write(page, render_html(rollout, *story))
    return page


def _windows(
    rollout: Rollout, entries: Sequence[AuditEntry], until: datetime
) -> list[tuple[int, datetime, datetime]]:
    """The steps that were entered, each with its first moment and the one at which it was left."""
    begun: dict[int, datetime] = {}
    for entry in entries:
        if entry.evidence.get("phase") == "running":
            begun.setdefault(int(entry.evidence["step"]), entry.at)
    state = rollout.state
    if state.step < len(rollout.plan.steps) and not awaits_first(rollout.plan, state):
        begun[state.step] = state.entered_at
    steps = sorted(begun)
    ends = [*(begun[step] for step in steps), until][1:]
    return [
        (step, begun[step], end) for step, end in zip(steps, ends, strict=True) if begun[step] < end
    ]
