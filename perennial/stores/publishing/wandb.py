"""Versions in Weights & Biases: a model artifact each, linked to a collection of the Registry,
whose aliases follow the route.

The collection is ``wandb-registry-model/<model>``. A version is found again by the digest in its
artifact's metadata; W&B itself keeps what is logged twice, or linked twice, once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perennial.bundle.read import Bundle
from perennial.contracts.errors import PerennialError, UnavailableError
from perennial.contracts.publishing import Destination
from perennial.decisions.publishing import ALIASES
from perennial.learning import wandb_runs
from perennial.stores.project import Project
from perennial.stores.registry import Version

REGISTRY = "wandb-registry-model"
_ADDRESS = "https://api.wandb.ai"
UPLOAD_SECONDS = 300


class WandbRegistry:
    """The W&B that runs are tracked in, while that is online (``WANDB_API_KEY``)."""

    name: Destination = "wandb"

    def __init__(self, project: Project) -> None:
        self.project = project
        self.place = os.environ.get("WANDB_BASE_URL", _ADDRESS)

    @classmethod
    def named(cls, project: Project) -> WandbRegistry | None:
        return cls(project) if wandb_runs.mode() == "online" else None

    @contextmanager
    def open(self, model: str) -> Iterator[WandbModel]:
        """A model there. Whatever W&B raises within is an UnavailableError."""
        with wandb_runs.process():
            try:
                import wandb

                wandb.setup(wandb.Settings(silent=True))
                yield WandbModel(wandb, model, self.project.home)
            except PerennialError:
                raise
            except Exception as error:
                cause = wandb_runs.cause_of(error)
                raise UnavailableError(f"W&B at {self.place} failed: {cause}") from None


class WandbModel:
    """A model's collection in the Registry."""

    def __init__(self, wandb: Any, model: str, home: Path) -> None:
        self._wandb = wandb
        self._home = home
        self._model = model
        self._api = wandb.Api(timeout=wandb_runs.ANSWER_SECONDS)

    def digests(self) -> set[str]:
        return {*self._linked()}

    def add(self, version: Version, bundle: Bundle) -> None:
        """Log the bundle by a run of its own, then link it: only what is linked counts as there."""
        ref = version.ref
        artifact = self._wandb.Artifact(
            self._model,
            type="model",
            description=str(version.judgement.get("reason", "")) or None,
            metadata={
                "model": ref.model,
                "version": ref.version,
                "digest": ref.digest,
                "objective": bundle.objective,
                "metrics": version.metrics,
                "links": version.links,
            },
        )
        run = wandb_runs.begin(
            f"perennial-{ref.model}",
            version.links.get("wandb_group", ref.model),
            "publish",
            f"{ref.model}@{ref.version}",
            directory=self._home,
            config={"model": ref.model, "version": ref.version, "digest": ref.digest},
        )
        failed = True
        try:
            artifact.add_dir(str(bundle.path), skip_cache=True)
            run.log_artifact(artifact)
            artifact.wait(timeout=UPLOAD_SECONDS)
            failed = False
        finally:
            run.finish(exit_code=int(failed))
        artifact.link(f"{REGISTRY}/{self._model}")

    def point(self, aliases: Mapping[str, str]) -> list[str]:
        linked, moved = self._linked(), []
        for alias in ALIASES:
            wanted = aliases.get(alias)
            last = sorted(
                linked.items(), key=lambda one: one[0] == wanted
            )  # an alias is one's only
            for digest, artifact in last:
                if (alias in artifact.aliases) == (digest == wanted):
                    continue
                if digest == wanted:
                    artifact.aliases = [*artifact.aliases, alias]
                else:
                    artifact.aliases = [one for one in artifact.aliases if one != alias]
                artifact.save()
                moved.append(alias)
        return list(dict.fromkeys(moved))

    def _linked(self) -> dict[str, Any]:
        """digest → the artifact as it is linked, the newest of each; {} without a collection."""
        name = f"{REGISTRY}/{self._model}"
        if not self._api.artifact_collection_exists(name, "model"):
            return {}
        found = self._api.artifacts("model", name)
        return {one.metadata["digest"]: one for one in found if one.metadata.get("digest")}
