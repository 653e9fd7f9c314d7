"""Bring a source's new rows into the model's table: look, stage, and, once audited, publish."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from perennial.contracts.errors import PerennialError
from perennial.contracts.refs import DatasetRef, ModelRef, SourceRef, StagedRef, ValidationRef
from perennial.stores import sources, staging, tables
from perennial.stores.history import put_back_since
from perennial.stores.ingested import ingested, remember
from perennial.stores.project import Project
from tasks._caching import Stage
from tasks._compute import computing
from tasks._definition import read_definition
from tasks._running import RETRIES, measured

_SECTIONS = ("source", "columns", "label", "objective")


@task(
    task_run_name="look at source of {model.name}",
    cache_policy=NO_CACHE,
    timeout_seconds=300,
    **RETRIES,
)
def inspect_source(model: ModelRef, as_of: datetime | None, full: bool) -> SourceRef:
    """What the source holds now, and from where on it has to be read.

    A source that was ingested as it is now is the same source: later stages are then cached.
    """
    project = Project.current()
    spec = read_definition(model)
    table = project.uri("tables", model.name)
    seen = tables.ingestions(table)  # before the look: what comes between counts as later
    source = sources.inspect(spec, project.root, tables.watermark(spec, table), as_of, full)
    source = source.model_copy(update={"seen": seen})
    return ingested(table, source) or source


@task(
    task_run_name="stage {model.name}",
    cache_policy=Stage(name="stage", sections=_SECTIONS, libraries=("pyarrow", "duckdb")),
    result_serializer="json",
    timeout_seconds=4 * 3600,
    **RETRIES,
)
def stage(model: ModelRef, source: SourceRef) -> StagedRef:
    """Read, type and check the source's rows into a folder of their own."""
    project = Project.current()
    spec = read_definition(model)
    with measured("stage") as counts, computing(spec) as compute:
        place = project.folder("staging", model.name)
        staged = staging.stage(spec, project.root, source, place, compute)
        counts.rows_in, counts.rows_out = staged.rows + staged.bad_rows, staged.rows
    return staged


@task(
    task_run_name="publish {model.name}",
    cache_policy=Stage(name="publish", sections=(*_SECTIONS, "quarantine")),
    result_serializer="json",
    timeout_seconds=4 * 3600,
    **RETRIES,
)
def publish(
    model: ModelRef,
    source: SourceRef,
    staged: StagedRef,
    audit: ValidationRef,
    as_of: datetime | None,
) -> DatasetRef:
    """Upsert good rows into the table and bad ones into quarantine; nothing twice. Rules that have
    changed hold for the table's rows as well."""
    if not audit.passed:
        raise PerennialError(f"the batch was not accepted; see {audit.uri}")
    project = Project.current()
    spec = read_definition(model)
    table = project.uri("tables", model.name)
    with measured("publish") as counts:
        done = tables.publish(
            spec,
            staged,
            table,
            project.uri("quarantine", model.name),
            source.since,
            source.seen,
        )
        if done.refused or done.put_back:
            get_run_logger().warning(
                "By the rules of today %s rows of the table went to quarantine, %s came back",
                f"{done.refused:,}", f"{done.put_back:,}",
            )  # fmt: skip
        dataset = tables.dataset(spec, table, as_of)
        if put_back_since(table, done.version):  # the dataset may lack what was just published
            raise PerennialError(
                f"{table}: an earlier version was put back while this run published to the table; "
                "run again: the source is then read from the restored rows on"
            )
        remember(table, source, done.version)
        staging.prune(project.folder("staging", model.name), keep=Path(staged.uri))
        counts.rows_in, counts.rows_out = staged.rows, dataset.rows
    return dataset
