"""Search for the parameters of the booster."""

from __future__ import annotations

import hashlib
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from perennial.contracts.refs import FeaturesRef, ModelRef, StudyRef
from perennial.reports.study import render_study
from perennial.spec import ModelSpec
from perennial.stores.matrices import read_training
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tasks._caching import Stage
from tasks._definition import read_definition
from tasks._running import RETRIES, cores, measured
from tasks._tracking import tracker_of

_CACHE = Stage(
    name="tune",
    sections=("objective", "training", "tuning"),
    libraries=("xgboost", "optuna", "numpy"),
)


@task(
    task_run_name="tune {model.name}",
    cache_policy=_CACHE,
    result_serializer="json",
    timeout_seconds=24 * 3600,
    **RETRIES,
)
def tune(model: ModelRef, features: FeaturesRef) -> StudyRef:
    """Run the study, or what is left of it, starting from the best of former versions.

    The study is named by what it searches on, so a run that was killed goes on where it was.
    """
    from perennial.learning.tuning import tune as run_study

    spec = read_definition(model)
    project = Project.current()
    name = _study_name(spec, features)
    registry = Registry(project.registry_url)
    with measured("tune") as counts:
        found = run_study(
            spec,
            read_training(Path(features.uri)),
            study_name=name,
            storage_url=project.studies_url,
            warm_start=registry.best_params(model.name, spec.tuning.warm_start),
            tracker=tracker_of(model),
            workers=cores(),
            progress=counts.progress,
        )
        counts.rows_in = features.rows["train"] + features.rows["validation"]
    create_markdown_artifact(
        render_study(model.name, found),
        key=f"{model.name}-study",
        description=f"{spec.metric} {found.best_value:.5f} after {len(found.records)} trials",
    )
    return StudyRef(
        study=name,
        best_params=found.best_params,
        best_rounds=found.best_rounds,
        best_value=found.best_value,
        metric=spec.metric,
        trials=found.trials,
        pruned=found.pruned,
        tracking_group=name,
    )


def _study_name(spec: ModelSpec, features: FeaturesRef) -> str:
    searched = spec.model_dump_json(include={"objective", "training", "tuning"})
    digest = hashlib.sha256(f"{features.digest} {searched}".encode()).hexdigest()[:12]
    forced = flow_run.get_parameters().get("force")
    again = f"-{str(flow_run.get_id())[:8]}" if forced else ""
    return f"{spec.name}-{digest}{again}"
