"""What a run starts from: the model's definition and who serves it now."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from perennial.contracts.refs import ModelRef
from perennial.contracts.runs import RouteRef
from perennial.stores.project import Project
from perennial.stores.registry import Registry
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
