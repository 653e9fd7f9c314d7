"""What a bundle is made of, and the manifest that names each file's content.

::

    bundles/<model>/<digest>/
      booster.ubj        the trees, in XGBoost's own binary JSON; prediction uses all of them
      weights.json       instead of it in a weighted mean: a weight for each member
      features.py        the model's feature code (empty when it has none)
      state.json         what its fitted functions learned from the training rows
      schema.json        FeatureSchema: raw inputs, matrix columns with their levels, classes
      spec.yaml          the model.yaml it was trained by
      reference.parquet  raw sample of the training rows, for drift
      profile.json       statistics of the training rows
      metrics.json       what was measured in training
      lineage.json       data, split, parameters, seed, code and library versions
      members/<digest>/  of an ensemble: each member's bundle, whole
      manifest.json      written last: a folder without it is no bundle
      signature.json     where bundles are signed: by whom, over the digest

The digest covers all content, without the signature, and nothing else: the same inputs give the
same digest on any machine at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from perennial.contracts.metrics import Objective
from perennial.contracts.refs import Member, Value

FORMAT = 2
"""Counts changes that an older Perennial can't read; ``read.py`` opens all older ones. A bundle has
the lowest that says what it is: 1 a booster, 2 an ensemble."""
MANIFEST = "manifest.json"
MEMBERS = "members"
BOOSTER = "booster.ubj"
WEIGHTS = "weights.json"
FILES = (
    BOOSTER, "features.py", "state.json", "schema.json", "spec.yaml", "reference.parquet",
    "profile.json", "metrics.json", "lineage.json",
)  # fmt: skip
"""Of a bundle that is no weighted mean; below ``members`` each member has its own."""


class File(Value):
    sha256: str
    bytes: int


class Manifest(Value):
    """``xgboost`` is the version that wrote the booster; an older one can't read it. ``members``
    are those of an ensemble, in the order of its features; no key where there are none."""

    format: int
    model: str
    objective: Objective
    xgboost: str
    files: dict[str, File]
    digest: str
    members: tuple[Member, ...] = ()


def make_manifest(
    model: str,
    objective: Objective,
    xgboost: str,
    contents: Mapping[str, bytes],
    members: Sequence[Member] = (),
) -> Manifest:
    """The manifest of a bundle's files, given by name."""
    document: dict[str, Any] = {
        "format": 2 if members else 1,
        "model": model,
        "objective": objective,
        "xgboost": xgboost,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in contents.items()
        },
    }
    if members:
        document["members"] = [member.model_dump() for member in members]
    return Manifest(**document, digest=document_digest(document))


def manifest_bytes(manifest: Manifest) -> bytes:
    """The content of manifest.json."""
    return canonical_json(manifest.model_dump(mode="json", exclude_defaults=True))


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
