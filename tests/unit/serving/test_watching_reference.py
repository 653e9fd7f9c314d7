"""docs/reference/watching-a-service.md tells what is there."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from perennial.contracts.serving import SpoolLag
from perennial.serving.beside import Shadow
from perennial.serving.metrics import Metrics

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "watching-a-service.md"


def test_every_metric_is_described_with_its_type_and_labels() -> None:
    metrics = Metrics()
    metrics.answered("churn", 1, "champion", 1, 0.001)
    metrics.refused("/models/{name}/predict", 422)
    metrics.batch("churn", 1, 1, 0.001, {"plan": 1})
    metrics.route("churn", 1)
    metrics.route_problem("churn", False)
    metrics.certificate(datetime(2027, 1, 1, tzinfo=UTC))
    text = metrics.render(SpoolLag(0, 0, 0.0), [Shadow("churn", 2, 5, 1, 0.01, "slow")]).decode()
    told = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("perennial_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            told[name] = (family.type, labels)

    rows = re.findall(r"^\| `(perennial_\w+)` \| (\w+) \| ([\w, ]*)\|", PAGE.read_text(), re.M)

    described = {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in rows}
    assert described == told
