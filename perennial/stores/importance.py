"""How much a version makes of each feature and each raw column, from its bundle."""

from __future__ import annotations

from perennial.bundle.predictor import member_program
from perennial.bundle.read import Bundle
from perennial.data.drift.importance import column_importance
from perennial.data.features import FeatureProgram


def feature_importance(bundle: Bundle) -> dict[str, float]:
    """Each feature's share of the gain of the booster's splits, the largest first. Of a weighted
    mean a member's share is its weight, in equal parts for each class that it predicts."""
    from perennial.learning.training import importance, load_booster

    if bundle.weights is None:
        return importance(load_booster(bundle.booster), bundle.schema)
    width = bundle.class_count or 1
    whole = sum(bundle.weights) * width
    shares = {
        feature.name: bundle.weights[place // width] / whole
        for place, feature in enumerate(bundle.schema.features)
    }
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def bundle_importance(bundle: Bundle) -> dict[str, float]:
    """The importance of features, passed on to the columns they are made from; in an ensemble by
    way of each member's own features."""
    shares = feature_importance(bundle)
    if not bundle.members:
        code = FeatureProgram.load(bundle.features_source, bundle.spec)
        return column_importance(code.graph(), shares)
    program = member_program(bundle.members, bundle.spec)
    own = {name: bundle_importance(member) for name, member in bundle.members.items()}
    columns = dict.fromkeys(program.inputs, 0.0)
    for feature, share in shares.items():
        for column, part in own[program.member(feature)].items():
            columns[column] += share * part
    return columns
