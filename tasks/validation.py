"""Audit a staged batch before anything of it is published."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from perennial.contracts.errors import IntegrityError
from perennial.contracts.refs import ModelRef, StagedRef, ValidationRef
from perennial.contracts.runs import RouteRef
from perennial.reports.markdown import plain
from perennial.reports.validation import render_validation, verdict
from perennial.stores import staging
from perennial.stores.bundles import open_stored
from perennial.stores.folders import keep_folder, new_folder
from perennial.stores.project import Project
from tasks._caching import Stage
from tasks._definition import read_definition
from tasks._running import RETRIES, measured

_CACHE = Stage(name="validate", sections=("source", "columns", "label", "objective", "quarantine"))


@task(
    task_run_name="validate {model.name}",
    cache_policy=_CACHE,
    result_serializer="json",
    timeout_seconds=3600,
    **RETRIES,
)
def validate(model: ModelRef, staged: StagedRef, route: RouteRef) -> ValidationRef:
    """Judge the batch as a whole: too many bad rows, a label nothing can learn, an empty column.

    How far columns moved from the champion's training set is reported, never a failure: that is
    what retraining is for. Raises InputError with every failed check, after the report is written.
    """
    spec = read_definition(model)
    with measured("validate") as counts:
        report = staging.validate(spec, staged, _reference(route))
        with new_folder(Project.current().folder("audits", model.name)) as folder:
            (folder / "audit.json").write_text(report.model_dump_json(indent=1))
            place, digest = keep_folder(folder)
        counts.rows_in, counts.rows_out = staged.rows + staged.bad_rows, staged.rows
    create_markdown_artifact(
        render_validation(report, report.stats.profile),
        key=f"{model.name}-validation",
        description=plain(verdict(report)),
    )
    report.raise_failures()
    return ValidationRef(
        uri=str(place / "audit.json"),
        digest=digest,
        passed=report.passed,
        warnings=report.warnings,
    )


def _reference(route: RouteRef) -> dict[str, Any] | None:
    """The profile of the champion's training rows. None without a champion, and for one whose
    bundle is damaged: this run may make it anew, and if not its evaluation refuses it."""
    if route.champion is None:
        return None
    try:
        return open_stored(route.champion).profile
    except IntegrityError as error:
        get_run_logger().warning("Compared with no champion: %s", error.message)
        return None
