"""Tell MLflow and W&B of new versions and of who serves. What can't be told now is told later."""

from __future__ import annotations

from contextlib import closing

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from perennial.contracts.errors import UnavailableError
from perennial.contracts.publishing import Publication
from perennial.stores.project import Project
from perennial.stores.publishing import MOST_AT_ONCE, publish, servers
from perennial.stores.registry import Registry

_LONGEST = 900.0


def publish_versions(model: str) -> None:
    """Publish what the destinations lack of a model, wherever settings name any; a failure of
    theirs is a failed task in the run, and no failure of the run."""
    if servers(Project.current()):
        _publish.with_options(timeout_seconds=_LONGEST)(model, return_state=True)


def publish_meanwhile(model: str) -> PrefectFuture[list[Publication]] | None:
    """Begin to, while the flow goes on with what is more urgent. To be waited for at its end. What
    limits it is the clients' own patience: Prefect can't stop a thread."""
    return _publish.submit(model) if servers(Project.current()) else None


@task(task_run_name="publish {model}", cache_policy=NO_CACHE)
def _publish(model: str) -> list[Publication]:
    """Each destination by itself. Raises UnavailableError when one of them fails: MLflow's and
    W&B's clients have tried again before that, and the next look will."""
    project = Project.current()
    log = get_run_logger()
    with closing(Registry(project.registry_url)) as registry:
        done = [publish(server, registry, model, MOST_AT_ONCE) for server in servers(project)]
    for one in done:
        if one.versions or one.moved:
            log.info("%s: published %s, aliases %s", one.place, [*one.versions], one.aliases)
    if failed := [one.error for one in done if one.error]:
        what = "; ".join(failed)
        raise UnavailableError(f"not all is published, the next run tries again: {what}")
    return done
