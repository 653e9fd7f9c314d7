"""The model's tracker, with the links from W&B back to the Prefect run."""

from __future__ import annotations

from prefect.runtime import flow_run

from perennial.contracts.refs import ModelRef
from perennial.learning.tracking import StudyTracker
from perennial.stores.project import Project


def tracker_of(model: ModelRef) -> StudyTracker:
    """Where this model's studies are tracked; below the project while W&B is offline."""
    return StudyTracker(model.name, Project.current().home, links=run_links())


def run_links() -> dict[str, str]:
    """This Prefect run: its id, and its page, "" where the server doesn't say where its pages
    are."""
    page = str(flow_run.ui_url or "")
    return {
        "prefect_flow_run": str(flow_run.get_id() or ""),
        "prefect_flow_run_url": page if page.startswith("http") else "",
    }
