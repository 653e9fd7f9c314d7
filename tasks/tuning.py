"""Search for the parameters of the booster, or for the weights of a mean."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from perennial.contracts.refs import FeaturesRef, ModelRef, StudyRef
from perennial.data.mean import weighted_mean
from perennial.reports.study import render_study, render_weights
from perennial.spec import ModelSpec
from perennial.stores.compute import Cluster
from perennial.stores.matrices import read_matrix, read_schema, read_training
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.sharing import share
from tasks._caching import Stage
from tasks._compute import computing
from tasks._definition import read_definition
from tasks._running import RETRIES, cores, measured
from tasks._tracking import tracker_of

_CACHE = Stage(
    name="tune",
    sections=("objective", "training", "tuning", "ensemble"),
    libraries=("xgboost", "optuna", "numpy", "scipy"),
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

    The study is named by what it searches on and with, so a run that was killed goes on where it
    was, and one after an upgrade of XGBoost or Optuna begins anew. A
    weighted mean has no study: its parameters are the members' weights.
    """
    from perennial.learning.tuning import tune as run_study

    spec = read_definition(model)
    project = Project.current()
    if spec.ensemble is not None and spec.ensemble.combine == "mean":
        return _weigh(spec, features)
    name = _study_name(spec, features)
    registry = Registry(project.registry_url)
    folder = Path(features.uri)
    with measured("tune") as counts, ExitStack() as stack:
        compute = stack.enter_context(computing(spec))
        elsewhere = None
        if isinstance(compute, Cluster):
            from tasks._trials import trials_on

            elsewhere = stack.enter_context(trials_on(compute, share(project, folder), spec))
        found = run_study(
            spec,
            read_training(folder, spec.compute.memory),
            study_name=name,
            storage_url=project.studies_url,
            warm_start=registry.best_params(model.name, spec.tuning.warm_start),
            tracker=tracker_of(model),
            workers=cores() if elsewhere is None else compute.threads,
            progress=counts.progress,
            elsewhere=elsewhere,
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


def _weigh(spec: ModelSpec, features: FeaturesRef) -> StudyRef:
    """The weights of a mean: those of model.yaml, or the best on the validation part."""
    from perennial.learning.metrics import scores
    from perennial.learning.weighing import fit_weights

    assert spec.ensemble is not None
    folder, names = Path(features.uri), spec.ensemble.of
    with measured("tune") as counts:
        x, y = read_matrix(folder, "validation")
        classes = read_schema(folder).classes
        width = len(classes) if spec.objective == "multiclass" and classes else None
        shape = (len(x), len(names)) if width is None else (len(x), len(names), width)
        if spec.ensemble.weights is None:
            weights = fit_weights(spec.objective, y, np.asarray(x).reshape(shape))
        else:
            weights = [spec.ensemble.weights[name] for name in names]
        value = scores(spec.objective, y, weighted_mean(x, weights, width))[spec.metric]
        counts.rows_in = len(x)
    found: dict[str, float | int | str] = dict(zip(names, weights, strict=True))
    name = _study_name(spec, features)
    create_markdown_artifact(
        render_weights(spec.name, found, spec.metric, value, fitted=spec.ensemble.weights is None),
        key=f"{spec.name}-study",
        description=f"{spec.metric} {value:.5f} of the weighted mean",
    )
    return StudyRef(
        study=name, best_params=found, best_rounds=0, best_value=value, metric=spec.metric,
        trials=0, pruned=0, tracking_group=name,
    )  # fmt: skip


def _study_name(spec: ModelSpec, features: FeaturesRef) -> str:
    searched = spec.model_dump_json(include=set(_CACHE.sections))
    versions = json.dumps(_CACHE.versions(), sort_keys=True)
    text = f"{features.digest} {searched} {versions}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    forced = flow_run.get_parameters().get("force")
    again = f"-{str(flow_run.get_id())[:8]}" if forced else ""
    return f"{spec.name}-{digest}{again}"
