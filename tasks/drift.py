"""Look at a window of the prediction log, and write down what was seen."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perennial.contracts.moments import as_utc
from perennial.contracts.refs import ModelRef
from perennial.contracts.watching import Look, LookReports
from perennial.reports.drift import headline, render_html, render_markdown
from perennial.reports.markdown import plain
from perennial.stores.folders import new_folder
from perennial.stores.performance import SAMPLED_ROWS
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.storage.objects import Objects
from perennial.stores.storage.publishing import replace
from perennial.stores.watching import Seen, watch
from tasks._compute import computing
from tasks._definition import read_definition
from tasks._running import RETRIES, cores, measured

_PAGES_KEPT = 30
"""Looks whose Evidently pages (4 MB each) are kept; the workspace keeps what they show."""


@task(
    task_run_name="look at {model.name}",
    cache_policy=NO_CACHE,
    timeout_seconds=3600,
    **RETRIES,
)
def look_at_window(model: ModelRef, end: datetime | None) -> Look:
    """Compare what the champion answered in the window that ends at ``end`` with what it was
    trained on, and its performance with what was promised.

    Without ``end`` the window ends when this run was due, so that a repeated run looks at the same
    one. The same window, rows and labels are one look: its report is drawn anew, in its place.
    """
    spec = read_definition(model)
    project = Project.current()
    registry = Registry(project.registry_url)
    champion = registry.champion(model.name)
    version = registry.version(model.name, champion.version) if champion else None
    now = datetime.now(UTC)
    until = as_utc(end) if end else _due() or now
    with measured("look") as counts, computing(spec) as compute:
        window = (until - spec.drift.window, until)
        seen = watch(project, spec, version, window, now=now, threads=cores(), compute=compute)
        look = _written(seen, project)
        counts.rows_in = look.rows
    create_markdown_artifact(
        render_markdown(look),
        key=f"{model.name}-drift",
        description=plain(f"{headline(look)}: {look.reason}"),
    )
    get_run_logger().info("%s: %s", headline(look), look.reason)
    return look


def _written(seen: Seen, project: Project) -> Look:
    """The look with its pages: a folder a look, in place of the same look's former one."""
    look = seen.look
    looks = project.uri("drift", look.model)
    cause = hashlib.sha256(look.trigger.cause.encode()).hexdigest()[:8]
    place = f"{looks}/{look.window[1].astimezone(UTC):%Y%m%dT%H%M%SZ}-{cause}"
    workspace = project.home / "evidently"
    with new_folder(project.working("drift", look.model)) as folder:
        pages, notes = _drawn(seen, folder, workspace)
        reports = LookReports(
            html_uri=f"{place}/drift.html",
            json_uri=f"{place}/look.json",
            evidently={what: f"{place}/{name}" for what, name in pages.items()},
            sampled_rows=SAMPLED_ROWS if pages else 0,
            workspace=str(workspace) if pages else "",
        )
        evidence = {**look.trigger.evidence, "report": reports.html_uri}
        trigger = look.trigger.model_copy(update={"evidence": evidence})
        look = look.model_copy(
            update={"reports": reports, "trigger": trigger, "notes": (*look.notes, *notes)}
        )
        (folder / "look.json").write_text(look.model_dump_json(indent=1), encoding="utf-8")
        (folder / "drift.html").write_text(render_html(look), encoding="utf-8")
        replace(folder, place, last="drift.html")
    _prune(Objects(looks))
    return look


def _drawn(seen: Seen, folder: Path, workspace: Path) -> tuple[dict[str, str], list[str]]:
    """Evidently's pages. What it can't draw is no reason not to tell what was found."""
    if seen.rows is None and seen.labelled is None:
        return {}, []
    from tasks._evidently import draw

    try:
        return draw(seen, folder, workspace), []
    except Exception as error:
        get_run_logger().warning("Evidently drew nothing", exc_info=True)
        for half_done in folder.iterdir():
            half_done.unlink()
        return {}, [f"Evidently drew nothing: {type(error).__name__} {error}"[:200]]


def _prune(looks: Objects) -> None:
    pages = [PurePosixPath(name) for name in looks.sizes() if not name.startswith(".")]
    older = sorted({page.parts[0] for page in pages})[:-_PAGES_KEPT]
    looks.remove(
        [str(page) for page in pages if page.parts[0] in older and page.match("evidently-*.html")]
    )


def _due() -> datetime | None:
    """When this flow run was to start; a run that is repeated keeps it."""
    due = flow_run.get_scheduled_start_time()
    return None if due is None else datetime.fromtimestamp(due.timestamp(), UTC)
