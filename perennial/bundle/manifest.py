"""What a bundle is made of, and the manifest that names each file's content.

::

    bundles/<model>/<digest>/
      booster.ubj        the trees, in XGBoost's own binary JSON; prediction uses all of them
      features.py        the model's feature code (empty when it has none)
      state.json         what its fitted functions learned from the training rows
      schema.json        FeatureSchema: raw inputs, matrix columns with their levels, classes
      spec.yaml          the model.yaml it was trained by
      reference.parquet  raw sample of the training rows, for drift
      profile.json       statistics of the training rows
      metrics.json       what was measured in training
      lineage.json       data, split, parameters, seed, code and library versions
      manifest.json      written last: a folder without it is no bundle

The digest covers all content and nothing else: the same inputs give the same digest on any machine
at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from perennial.contracts.metrics import Objective
from perennial.contracts.refs import Value

FORMAT = 1
"""Counts changes that an older Perennial can't read; ``read.py`` opens all older ones."""
MANIFEST = "manifest.json"
FILES = (
    "booster.ubj", "features.py", "state.json", "schema.json", "spec.yaml", "reference.parquet",
    "profile.json", "metrics.json", "lineage.json",
)  # fmt: skip


class File(Value):
    sha256: str
    bytes: int


class Manifest(Value):
    """``xgboost`` is the version that wrote the booster; an older one can't read it."""

    format: int
    model: str
    objective: Objective
    xgboost: str
    files: dict[str, File]
    digest: str


def make_manifest(
    model: str, objective: Objective, xgboost: str, contents: Mapping[str, bytes]
) -> Manifest:
    """The manifest of a bundle's files, given by name."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "model": model,
        "objective": objective,
        "xgboost": xgboost,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in contents.items()
        },
    }
    return Manifest(**document, digest=document_digest(document))


def document_digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without its own ``digest``, as canonical JSON."""
    rest = {key: value for key, value in document.items() if key != "digest"}
    return hashlib.sha256(canonical_json(rest)).hexdigest()


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and no spaces. Raises ValueError or TypeError for what isn't JSON, NaN
    and infinity included."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()
