"""What runs a stage's work: this process, or the Dask cluster that model.yaml names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from perennial.spec import ModelSpec
from perennial.stores.compute import Compute, connect
from perennial.stores.project import Project
from perennial.stores.storage.places import is_remote


@contextmanager
def computing(spec: ModelSpec) -> Iterator[Compute]:
    """What runs the work of a model. Workers of a cluster must see the project's folder, unless its
    storage is elsewhere. Raises as ``perennial.stores.compute.connect``."""
    project = Project.current()
    with connect(spec.compute, None if is_remote(project.storage) else project.home) as compute:
        yield compute
