"""What a run starts from: the model's definition, who serves it now, and what it is made of."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from perennial.contracts.refs import MemberRef, ModelRef
from perennial.contracts.runs import RouteRef
from perennial.stores.project import Project, feature_source
from perennial.stores.registry import Registry
from tasks._definition import read_definition
from tasks._running import RETRIES


@task(task_run_name="read {name}", cache_policy=NO_CACHE, timeout_seconds=60)
def read_model(name: str) -> ModelRef:
    """Read model.yaml and features.py once; every later stage insists on what was read here."""
    ref, _ = Project.current().load_model(name)
    return ref


@task(
    task_run_name="find champion of {model.name}",
    cache_policy=NO_CACHE,
    timeout_seconds=60,
    **RETRIES,
)
def find_champion(model: ModelRef) -> RouteRef:
    """Who serves the model now, with the generation a promotion must name."""
    registry = Registry(Project.current().registry_url)
    route = registry.route(model.name)
    return RouteRef(
        champion=registry.champion(model.name), generation=route.generation if route else 0
    )


@task(
    task_run_name="find members of {model.name}",
    cache_policy=NO_CACHE,
    timeout_seconds=300,
    **RETRIES,
)
def find_members(model: ModelRef) -> tuple[MemberRef, ...]:
    """The versions that an ensemble is made of in this run; none for any other model.

    Raises InputError when one is not there or doesn't fit.
    """
    from perennial.stores import ensembles  # imports pandas, see continuous_training

    spec, source = read_definition(model), feature_source(Path(model.directory))
    return ensembles.find_members(Project.current(), spec, source)
