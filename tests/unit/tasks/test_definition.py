"""What of a model.yaml goes into the bundle that is trained by it."""

from __future__ import annotations

from perennial.spec import parse_spec
from tasks.training import _CACHE, _definition

TEXT = """
name: parcels
description: Will it arrive late?
objective: binary
source: {kind: csv, uri: parcels.csv, event_time: at}
label: {column: late}
columns: {km: {type: float}}
gates: [{metric: roc_auc, min: 0.6}]
retrain: {schedule: "0 6 * * 1"}
"""


def test_a_bundle_keeps_what_makes_the_model_and_its_description_which_trains_nothing() -> None:
    kept = _definition(parse_spec(TEXT))
    assert kept.description == "Will it arrive late?"
    assert kept.columns == parse_spec(TEXT).columns
    assert kept.model_fields_set.isdisjoint({"gates", "retrain"})
    assert "description" not in _CACHE.sections
