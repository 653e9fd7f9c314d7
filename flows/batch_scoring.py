"""Score many rows at once, by the code that serves requests."""

from __future__ import annotations

from typing import Literal

from prefect import flow

from perennial.contracts.scoring import ScoringSummary
from tasks._storage import connect_storage, result_storage
from tasks.scoring import find_scores, inspect_scoring, publish_scores, score_rows, summarise_scores


@flow(
    name="batch-scoring",
    flow_run_name="score by {model}",
    persist_result=False,
    result_storage=result_storage(),
    result_serializer="json",
)
def batch_scoring(
    model: str,
    source: str,
    output: str,
    version: int | None = None,
    columns: list[str] | Literal["all"] | None = None,
) -> ScoringSummary:
    """Write a version's predictions for the rows of a source to a Delta table, in place of those it
    holds. The same rows and version a second time change nothing.

    Args:
        model: Name of a model below ``models/``.
        source: CSV or Parquet files (a file, folder or glob) or a Delta table; local or ``s3://``.
        output: Folder or ``s3://`` address of the Delta table.
        version: A registered version of the model; by default the champion.
        columns: Columns of the source to carry along: names, or "all"; by default the entity and
            the event time.
    """
    connect_storage()
    job = inspect_scoring(model, source, output, version, columns)
    scores = find_scores(job)
    if scores is None:
        staged = score_rows(job.version, job.source, job.columns)
        scores = publish_scores(job, staged)
    return summarise_scores(job, scores)
