"""An ensemble from its members' training to an answer over HTTP: a model like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from deltalake import DeltaTable

from perennial.bundle.predictor import Predictor
from perennial.bundle.pyfunc import _load_pyfunc
from perennial.bundle.read import Bundle, open_bundle
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.fuzz.served import serving
from tests.workplace import MODEL_YAML, Workplace, demand_rows

PLAIN = MODEL_YAML.replace("name: demand", "name: plain").replace(
    "  promotion: {type: boolean}\n", ""
)
"""Without features.py and without the column that matters most."""

BLEND = (
    MODEL_YAML.replace("name: demand", "name: blend")
    .replace("validation: 10d, test: 15d", "validation: 5d, test: 6d")
    .replace("gates:", "ensemble: {of: [demand, plain@1]}\ngates:")
)


def add_model(project: Workplace, name: str, text: str) -> Path:
    folder = project.root / "models" / name
    folder.mkdir()
    (folder / "model.yaml").write_text(text)
    return folder


def run(project: Workplace, model: str) -> dict[str, Any]:
    process = project.start("continuous_training", model=model)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    summary: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return summary


def bundle_of(project: Workplace, model: str, version: int) -> Bundle:
    registry = Registry(Project(project.root).registry_url)
    ref = registry.version(model, version).ref
    registry.close()
    return open_bundle(Path(ref.uri), ref.digest)


def test_two_models_are_trained_blended_gated_served_scored_and_reproduced(
    flow_project: Workplace,
) -> None:
    project = flow_project
    add_model(project, "plain", PLAIN)
    blend = add_model(project, "blend", BLEND)

    early = project.command("train", "blend")
    assert early.returncode == 2
    assert early.stderr.splitlines() == [
        "model.yaml, ensemble.of, demand: no version of it serves yet (perennial train demand)",
        "registry: 'plain' has no version 1 (it has no version yet)",
    ]

    members = {name: run(project, name)["champion"] for name in ("demand", "plain")}
    summary = run(project, "blend")

    assert summary["decision"]["action"] == "promoted"
    mean = bundle_of(project, "blend", 1)
    assert [(m.name, m.version, m.digest) for m in mean.manifest.members] == [
        ("demand", 1, members["demand"]["digest"]),
        ("plain@1", 1, members["plain"]["digest"]),
    ]
    assert mean.weights is not None
    assert sum(mean.weights) == 1
    assert mean.weights[0] > mean.weights[1] >= 0
    shown = json.loads(project.command("show", "blend@1", "--json").stdout)
    assert [m["model"] for m in shown["lineage"]["members"]] == ["demand", "plain"]
    # The last row is of 2024-03-30 21:00; members tested on 15 days, a label is late by one.
    assert shown["lineage"]["unseen_since"].startswith("2024-03-14T21:00:00.0000")
    assert shown["params"] == dict(zip(("demand", "plain@1"), mean.weights, strict=True))
    verdicts = shown["judgement"]["verdicts"]
    assert "240 rows predict alike bit for bit when served" in [v["reason"] for v in verdicts]
    assert {verdict["outcome"] for verdict in verdicts} == {"passed"}, verdicts

    rows = demand_rows("2024-04-01", 3, seed=5).drop(columns="busy")
    rows.loc[3, "shop"] = "never seen"
    answers = Predictor(mean).predict(rows)
    parts = [Predictor(member).predict(rows).values for member in mean.members.values()]
    by_hand = sum(w * p.astype(float) for w, p in zip(mean.weights, parts, strict=True))
    np.testing.assert_allclose(answers.values, by_hand, rtol=1e-6)
    assert answers.unseen == {"demand: shop": 1, "plain@1: shop": 1}

    for lost in ("demand", "plain"):  # the ensemble holds its members
        shutil.rmtree(project.root / ".perennial" / "bundles" / lost)
    requests = json.loads(rows.to_json(orient="records"))
    with serving(project.root, "blend", wait_for=["blend"]) as server:
        together = server.ask("POST", "/models/blend/predict", json={"rows": requests})
        assert together.status_code == 200, together.text
        served = [row["probability"] for row in together.json()["predictions"]]
        alone = [
            server.ask("POST", "/models/blend/predict", json=request).json()["probability"]
            for request in requests[:20]
        ]
    assert np.array(served, np.float32).tobytes() == answers.values.tobytes()
    assert np.array(alone, np.float32).tobytes() == answers.values[:20].tobytes()

    exported = project.command("export", "blend@1", "--to", "mlflow", "--output", "folder")
    assert exported.returncode == 0, exported.stderr
    loaded = _load_pyfunc(str(project.root / "folder" / "bundle" / mean.digest))
    assert loaded.predict(rows).tobytes() == answers.values.tobytes()
    trees = project.command("export", "blend@1", "--to", "triton", "--output", "trees")
    assert trees.returncode == 2
    assert "a weighted mean of other models has no booster" in trees.stderr

    project.write_rows("next.csv", rows)
    score = project.cli("score", "blend", "--input", "data/next.csv", "--output", "out")
    assert score.returncode == 0, score.stderr
    scored = DeltaTable(project.root / "out").to_pandas()["_prediction"]
    assert sorted(scored) == sorted(answers.values.astype(float))
    (project.root / "data" / "next.csv").unlink()

    again = project.cli("reproduce", "blend@1")
    assert (again.returncode, again.stderr) == (0, "")
    assert "was reproduced: the digest is" in again.stdout

    # Members that are trained again are the same to the byte; the next version earns its way.
    for name in ("demand", "plain"):
        assert run(project, name)["bundle_digest"] == members[name]["digest"]
    blend.joinpath("model.yaml").write_text(
        BLEND.replace("plain@1]", "plain@1], combine: stacking").replace(
            "  - {beats: champion, metric: logloss, first_version: passed}\n",
            "rollout: {strategy: canary, steps: [50, 100], guards: {error_rate: 0.5}}\n",
        )
    )
    assert run(project, "blend")["decision"]["action"] == "rolling out"
    stack = Predictor(bundle_of(project, "blend", 2)).predict(rows).values
    with serving(project.root, "blend", wait_for=["blend"]) as server:
        canary = server.ask("POST", "/models/blend/predict", json={"rows": requests})
    arms = {1: answers.values, 2: stack}
    given = [(row["version"], row["probability"]) for row in canary.json()["predictions"]]
    assert {version for version, _ in given} == {1, 2}
    for place, (version, probability) in enumerate(given):
        assert np.float32(probability) == arms[version][place]


def test_a_booster_is_stacked_on_rows_that_no_member_was_fitted_on(
    flow_project: Workplace,
) -> None:
    project = flow_project
    add_model(project, "plain", PLAIN)
    for name in ("demand", "plain"):
        run(project, name)
    text = BLEND.replace("plain@1]", "plain@1], combine: stacking")
    folder = add_model(project, "blend", text.replace("validation: 5d, test: 6d", "test: 20d"))

    refused = project.cli("train", "blend")
    assert refused.returncode == 2, refused.stdout
    assert "members may have been fitted on them" in refused.stderr

    (folder / "model.yaml").write_text(text.replace("min: 0.6", "min: 0.5"))
    summary = run(project, "blend")

    stack = bundle_of(project, "blend", 1)
    assert summary["decision"]["action"] == "promoted"
    assert stack.weights is None
    assert [feature.name for feature in stack.schema.features] == [
        "predicted by demand",
        "predicted by plain@1",
    ]
    fitted = stack.lineage["rows"]
    day = 8 * 5
    # Labels are known a day later, so gaps of a day lie before the members' test part of 15 days,
    # and before this one's validation and test parts: 16 - (6 + 1 + 5 + 1) days are left.
    assert fitted == {"train": 3 * day, "validation": 5 * day, "test": 6 * day}
    rows = demand_rows("2024-04-01", 2, seed=5).drop(columns="busy")
    together = Predictor(stack).predict(rows).values
    one = pd.DataFrame(rows.iloc[[7]])
    assert Predictor(stack).predict(one).values.tobytes() == together[7:8].tobytes()

    later = add_model(project, "circle", BLEND.replace("name: blend", "name: circle"))
    yaml = (later / "model.yaml").read_text()
    (later / "model.yaml").write_text(yaml.replace("of: [demand,", "of: [blend,"))
    (project.model / "features.py").unlink()
    project.edit("gates:", "ensemble: {of: [blend, plain]}\ngates:")
    circle = project.command("train", "demand")
    assert circle.returncode == 2
    assert circle.stderr == (
        "model.yaml, ensemble.of, blend: blend@1 is itself made of 'demand': a circle "
        "(pin a version of before, or leave it out)\n"
    )
    checked = project.command("check", "circle")
    assert "circle: members: blend, plain@1, which make 2 features" in checked.stdout
