"""Whatever the holdout, it can be measured, judged and drawn; and no accident of it passes."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.contracts.verdicts import EvaluationReport, Outcome, ServingCheck
from perennial.decisions.gates import judge
from perennial.learning.evaluation import measure
from perennial.reports.evaluation import render_html, render_markdown
from perennial.spec.schema import ModelSpec

SERVING = ServingCheck(
    loaded=True, identical=True, rows=10, max_abs_difference=0.0, p50_ms=0.1, p99_ms=0.2
)
MIN_ROWS = 20


def spec(objective: str) -> ModelSpec:
    metric = "rmse" if objective == "regression" else "logloss"
    return ModelSpec.model_validate(
        {
            "name": "m",
            "objective": objective,
            "source": {"kind": "csv", "uri": "x.csv"},
            "label": {"column": "y"},
            "columns": {"shop": {"type": "category"}, "hour": {"type": "integer"}},
            "split": {"kind": "random", "validation": 0.2, "test": 0.2},
            "gates": [
                {"metric": metric, "max": 1e30, "confidence": 0.9, "min_rows": MIN_ROWS},
                {"beats": "champion", "metric": metric, "min_rows": MIN_ROWS},
                {"slices": ["shop", "hour"], "metric": metric, "max_regression": 1e30},
            ],
        }
    )


@st.composite
def holdouts(draw: st.DrawFn) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, pd.DataFrame]:
    """Labels and two models' predictions: constant, saturated, right, or anything."""
    objective = draw(st.sampled_from(["binary", "multiclass", "regression"]))
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    constant = draw(st.booleans())
    if objective == "regression":
        scale, shift = (10.0 ** draw(st.integers(-15, 15)) for _ in range(2))
        y = np.zeros(n) if constant else rng.normal(size=n) * scale
        models = [y, y + shift, y + rng.normal(size=n) * scale, np.zeros(n)]
    elif objective == "binary":
        y = np.zeros(n) if constant else (rng.random(n) < 0.5).astype(float)
        models = [y, 1 - y, rng.random(n), np.full(n, 0.5)]
    else:
        y = np.zeros(n, int) if constant else rng.integers(0, 3, n)
        models = [np.eye(3)[y], rng.dirichlet(np.ones(3), n), np.full((n, 3), 1 / 3)]
    rows = pd.DataFrame(
        {
            "shop": pd.Series(rng.choice(["a", "b", None], n), dtype="str"),
            "hour": np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 30, n)),
        }
    )
    chosen = st.sampled_from(models)
    return objective, y, draw(chosen), draw(chosen), rows


@settings(deadline=None, max_examples=40)
@given(holdouts(), st.booleans())
def test_any_holdout_is_measured_judged_and_drawn_and_a_small_one_never_passes(holdout, has):
    objective, y, p, champion, rows = holdout
    model = spec(objective)
    m = measure(model, y, p, champion if has else None, rows, seed=1)
    judgement = judge(model.gates, m, serving=SERVING, has_champion=True)
    assert judgement.outcome is not Outcome.PASSED  # no slice has the 200 rows asked for
    if len(y) < MIN_ROWS or not has:
        assert judgement.verdicts[1].outcome is Outcome.INCONCLUSIVE
    assert (judgement.verdicts[0].outcome is Outcome.PASSED) == (len(y) >= MIN_ROWS)

    report = EvaluationReport(
        model="m",
        objective=objective,
        bundle_digest="c" * 64,
        champion=1 if has else None,
        champion_digest=None,
        holdout_rows=len(y),
        holdout_start=None,
        holdout_end=None,
        estimates=m.estimates,
        comparisons=m.comparisons,
        slices=m.slices,
        calibration=m.calibration,
        curves=m.curves,
        champion_curves=m.champion_curves,
        importance={},
        unseen_categories={},
        serving=SERVING,
        judgement=judgement,
    )
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report
    html = render_html(report)
    assert "nan" not in html
    for part in html.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + part.split("</svg>")[0] + "</svg>")
    assert render_markdown(report)
