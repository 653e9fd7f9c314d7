"""Which registered versions were trained on which version of their model's data, and on what."""

from __future__ import annotations

import json
from datetime import datetime

from perennial.bundle.read import Bundle
from perennial.contracts.data_versions import TrainedVersion
from perennial.contracts.refs import DatasetRef
from perennial.stores.project import Project
from perennial.stores.registry import Registry, Version
from perennial.stores.storage.objects import read
from perennial.stores.storage.places import is_remote


def dataset_of(project: Project, bundle: Bundle) -> DatasetRef:
    """The rows that a version was trained on, by its lineage; they may be gone."""
    dataset = bundle.lineage["dataset"]
    return DatasetRef.model_validate({**dataset, "uri": _place(project, str(dataset["uri"]))})


def trained_on(
    project: Project, registry: Registry, model: str, table_uri: str, since: datetime
) -> dict[int, list[TrainedVersion]]:
    """Versions of the table → the model's versions trained on them, the oldest first; of those
    registered at ``since`` or later. A version whose bundle can't be read is left out."""
    found: dict[int, list[TrainedVersion]] = {}
    for version in reversed(registry.versions(model)):
        if version.created_at < since:
            continue
        data = _data_version(project, version, table_uri)
        if data is not None:
            trained = TrainedVersion(
                version=version.ref.version,
                run=version.links.get("prefect_flow_run", ""),
                run_url=version.links.get("prefect_flow_run_url", ""),
            )
            found.setdefault(data, []).append(trained)
    return found


def _data_version(project: Project, version: Version, table_uri: str) -> int | None:
    """The version of the table in the bundle's lineage; None when it was another table."""
    try:
        text = read(f"{version.ref.uri}/lineage.json")
        dataset = json.loads(text or b"")["dataset"]
        uri, data = str(dataset["uri"]), int(dataset["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return data if _place(project, uri) == table_uri else None


def _place(project: Project, uri: str) -> str:
    return uri if is_remote(uri) else str(project.root / uri)  # a local one is told from the root
