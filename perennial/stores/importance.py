"""How much a version makes of each raw column, from its bundle."""

from __future__ import annotations

from perennial.bundle.read import Bundle
from perennial.data.drift.importance import column_importance
from perennial.data.features import FeatureProgram


def bundle_importance(bundle: Bundle) -> dict[str, float]:
    """The booster's importance of its features, passed on to the columns they are made from."""
    from perennial.learning.training import importance, load_booster

    program = FeatureProgram.load(bundle.features_source, bundle.spec)
    return column_importance(
        program.graph(), importance(load_booster(bundle.booster), bundle.schema)
    )
