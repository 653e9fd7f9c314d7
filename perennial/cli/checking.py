"""``perennial check``: everything that can be wrong before any training."""

from __future__ import annotations

from collections.abc import Iterator

from perennial.stores.project import Project, feature_source


def check_model(project: Project, name: str) -> Iterator[str]:
    """A line for each thing that is in order. Raises InputError at the first that is not."""
    from perennial.data.features import FeatureProgram
    from perennial.stores import sources

    ref, spec = project.load_model(name)
    yield f"model.yaml: {spec.objective}, {len(spec.columns)} columns, {len(spec.gates)} gates"
    program = FeatureProgram.load(feature_source(project.model_folder(ref.name)), spec)
    yield f"features.py: {len(program.features)} features, {len(program.fitted)} fitted values"
    source = sources.inspect(spec, project.root, watermark=None, as_of=None)
    first = next(iter(sources.read(spec, project.root, source)), None)
    rows = 0 if first is None else first.num_rows
    yield f"source: readable, {rows:,} rows in the first batch"
