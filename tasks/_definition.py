"""From a model's reference back to its spec, refused when the files changed under a run."""

from __future__ import annotations

from pathlib import Path

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import ModelRef
from perennial.spec import ModelSpec
from perennial.stores.project import load_model


def read_definition(model: ModelRef) -> ModelSpec:
    """The spec that ``model`` refers to.

    Raises InputError when model.yaml or features.py is no longer what the run started with: half of
    a run on one definition and half on another would be a model nobody defined.
    """
    now, spec = load_model(Path(model.directory))
    if now != model:
        what = "model.yaml" if now.spec_digest != model.spec_digest else "features.py"
        problem = Problem(
            f"{model.directory}/{what}", "changed while a run was going on", "start the run again"
        )
        raise InputError(problem)
    return spec
