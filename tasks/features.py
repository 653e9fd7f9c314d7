"""Compute the model matrix with the model's own feature code."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from perennial.bundle.predictor import member_program
from perennial.contracts.refs import DatasetRef, FeaturesRef, MemberRef, ModelRef, SplitRef
from perennial.data.features import FeatureProgram
from perennial.data.programs import Program
from perennial.reports.features import render_features
from perennial.reports.markdown import code
from perennial.spec import ModelSpec
from perennial.stores.compute import HERE
from perennial.stores.ensembles import open_members
from perennial.stores.folders import keep_folder, new_folder
from perennial.stores.matrices import write_matrices
from perennial.stores.project import Project, feature_source
from perennial.stores.windows import reader
from tasks._caching import Stage
from tasks._compute import computing
from tasks._definition import read_definition
from tasks._running import RETRIES, cores, measured
from tasks.splitting import read_parts

_CACHE = Stage(
    name="features",
    sections=("objective", "source", "label", "columns", "features", "ensemble"),
    feature_code=True,
    libraries=("pandas", "numpy", "apache-hamilton"),
)


@task(
    task_run_name="features of {model.name}",
    cache_policy=_CACHE,
    result_serializer="json",
    timeout_seconds=7200,
    **RETRIES,
)
def compute_features(
    model: ModelRef,
    dataset: DatasetRef,
    parts: SplitRef,
    members: tuple[MemberRef, ...] = (),
) -> FeaturesRef:
    """Fit on the training part, compute all parts, and draw the graph of features. Those of an
    ensemble are what its members predict."""
    spec = read_definition(model)
    program, classes = _program(model, spec, members)
    with measured("features") as counts:
        with new_folder(Project.current().folder("features", model.name)) as folder:
            with computing(spec) if not members else nullcontext(HERE) as compute:
                scan = reader(dataset, spec, compute)
                split = read_parts(parts)
                schema = write_matrices(spec, program, scan, split, folder, classes, compute)
            place, digest = keep_folder(folder)
        counts.rows_in, counts.rows_out = dataset.rows, sum(parts.rows.values())
    picture = place / "graph.svg"
    text = render_features(model.name, schema, program.graph(), picture.read_text(encoding="utf-8"))
    create_markdown_artifact(
        f"{text}\nThe picture by itself: {code(str(picture))}\n",
        key=f"{model.name}-features",
        description=f"{len(schema.features)} features, and what they are made from",
    )
    return FeaturesRef(
        uri=str(place), digest=digest, rows=parts.rows, features=len(schema.features)
    )


def _program(
    model: ModelRef, spec: ModelSpec, members: tuple[MemberRef, ...]
) -> tuple[Program, tuple[str, ...] | None]:
    """What makes the features, and the classes that are known before any label is read."""
    if not members:
        return FeatureProgram.load(feature_source(Path(model.directory)), spec), None
    bundles = open_members(members)
    return member_program(bundles, spec, cores()), bundles[members[0].name].schema.classes
