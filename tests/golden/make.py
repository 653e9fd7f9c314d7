"""Write a bundle and a registry of the present formats, to be read by all later versions.

Run once when a format has changed, and commit what it wrote: ``python -m tests.golden.make``. What
is there already is never written again: it shows how it was.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from tests.unit.bundle.conftest import make, make_ensemble

from perennial.bundle.manifest import FORMAT
from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.bundle.write import write_bundle
from perennial.contracts.refs import BundleRef
from perennial.contracts.retraining import Finding, Trigger
from perennial.contracts.rollouts import (
    Check,
    Guard,
    Measurement,
    Plan,
    Rollout,
    Step,
    Transition,
)
from perennial.contracts.verdicts import Evidence, Outcome, Verdict
from perennial.decisions.rollout import step
from perennial.spec.production import Retrain
from perennial.stores.registry import Registry
from perennial.stores.registry.schema import REVISIONS

HERE = Path(__file__).parent
BUNDLES = HERE / "bundles"
REGISTRIES = HERE / "registries"


def make_bundle(folder: Path) -> None:
    """A multiclass ensemble, and requests with what it predicted for them. (Of format 1 it was a
    booster by itself, as the members of this one are.)"""
    with TemporaryDirectory() as members:
        content = make_ensemble(Path(members), "multiclass")
    ref = write_bundle(folder, content)
    rows = make("multiclass").rows.head(30).copy()
    rows.loc[29, "depot"] = "never seen"
    plain = rows.astype(object).where(rows.notna(), None)
    requests = json.loads(json.dumps(plain.to_dict("records"), default=str))
    predictor = Predictor(open_bundle(folder / ref.digest, ref.digest))
    predictions = predictor.predict(pd.DataFrame(requests))
    answers = {
        "digest": ref.digest,
        "requests": requests,
        "values": predictions.values.tolist(),
        "unseen": predictions.unseen,
        "lineage": dict(content.lineage),
    }
    (folder / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
    (folder / ".lock").unlink()


def make_registry(path: Path) -> None:
    """Two models: one with a promoted and a newer refused version, one never accepted; and the
    retrainings that were asked for, and rollouts."""
    registry = Registry(f"sqlite:///{path}")
    now = datetime(2026, 3, 1, 6, tzinfo=UTC)
    who = {"actor": "flow run golden-1"}
    judgement = {"outcome": "passed", "reason": "passed all 3 checks", "verdicts": []}
    for number, digest in enumerate(("a" * 64, "b" * 64)):
        then = now + timedelta(days=30 * number)
        ref = registry.register(
            "parcels",
            BundleRef(uri=f"/project/.perennial/bundles/parcels/{digest}", digest=digest),
            params={"max_depth": 6 + number, "learning_rate": 0.1},
            metrics={"logloss": 0.5 - number / 10, "unmeasured": None},
            judgement=judgement,
            links={"study": f"parcels-{number}", "prefect_flow_run": "8f0c"},
            reason="passed all 3 checks",
            now=then,
            **who,
        )
        registry.promote(
            "parcels",
            ref.version,
            expected_generation=number,
            reason="better by 0.1",
            evidence=judgement,
            cause=f"judged {digest}",
            now=then,
            **who,
        )
    for model, action in (("parcels", "kept champion"), ("letters", "refused")):
        registry.record(
            model,
            action,  # type: ignore[arg-type]
            version=None,
            digest="c" * 64,
            reason="logloss 0.6 is above 0.5",
            evidence={"outcome": "failed"},
            cause="judged c",
            now=now + timedelta(days=90),
            **who,
        )
    record_retrainings(registry, now + timedelta(days=90))
    record_rollouts(registry, now + timedelta(days=100))
    registry.close()
    path.with_suffix(".json").write_text(json.dumps(told(f"sqlite:///{path}"), indent=1) + "\n")


def record_retrainings(registry: Registry, now: datetime) -> None:
    """One that drift started and the gates refused, one that waited for it, and a benign drift."""
    settings = Retrain(on=("drift", "data"))
    window = (now - timedelta(days=7), now)
    table = registry.retrainings
    for hours, kind, finding, data in (
        (0, "drift", Finding.HARMFUL, "a1"),
        (1, "data", None, "2026-05-30"),
        (2, "drift", Finding.BENIGN, "a2"),
        (12, "data", None, "2026-05-30"),
    ):
        at = now + timedelta(hours=hours)
        asked = Trigger(
            kind=kind, finding=finding, data=data, at=at, reason="as it was found",
            window=window if kind == "drift" else None, evidence={"share": 0.4, "columns": ["ü"]},
        )  # fmt: skip
        decided, _ = table.decide("parcels", asked, settings, actor="flow run golden-2", now=at)
        if hours == 0:
            table.start(decided.id, "8f0d", at)
            table.finish(decided.id, "8f0d", "kept", at + timedelta(minutes=5))


def record_rollouts(registry: Registry, now: datetime) -> None:
    """Of version 3 one that a guard ended, of 4 one that was promoted and rolled back by hand, and
    of 5 one whose shadow step runs."""
    who = {"actor": "flow run golden-3", "reason": "passed all 3 checks", "now": now}
    guard = Guard(name="error_rate", kind="error_rate", limit=0.01)
    timing = {"bake_seconds": 600.0, "timeout_seconds": 86_400.0, "min_requests": 100}
    shadow = Step(strategy="shadow", weight=0, guards=(guard,), **timing)
    canary = Step(strategy="canary", weight=5, guards=(guard,), **timing)
    for version, digest in ((3, "d"), (4, "e"), (5, "f")):
        registry.register(
            "parcels", BundleRef(uri=f"/bundles/{digest}", digest=digest * 64), params={},
            metrics={}, judgement={}, links={}, **who,
        )  # fmt: skip
        plan = Plan(steps=(shadow, canary) if version == 5 else (canary,))
        rollout = registry.rollouts.begin("parcels", version, plan, cause=f"judged {digest}", **who)
        if version == 3:
            registry.rollouts.advance(
                rollout, failing(rollout, now), actor="rollout", evidence={"ü": 0.4}, now=now
            )
        if version == 4:
            registry.rollouts.command("parcels", "promote", actor="anna", reason="", now=now)
            registry.rollback("parcels", None, actor="anna", reason="too slow", now=now)


def failing(rollout: Rollout, at: datetime) -> Transition:
    measured = Measurement(
        guard="error_rate", n_champion=950, n_challenger=50, value=0.4, low=0.2, high=0.6
    )
    evidence = Evidence(rule="error_rate", limit=0.01, value=0.4, low=0.2, high=0.6, n=50)
    verdict = Verdict(outcome=Outcome.FAILED, reason="20 of 50 requests failed", evidence=evidence)
    check = Check(
        at=at, step=0, outcome="failed", requests=50, measurements=(measured,), verdicts=(verdict,)
    )
    transition = step(rollout, check, at)
    assert transition is not None
    return transition


def told(url: str) -> dict[str, Any]:
    """All that a registry says, as JSON."""
    registry = Registry(url)
    says = {
        model: {
            "champion": _json(registry.champion(model)),
            "route": _json(registry.route(model)),
            "versions": [_json(version) for version in registry.versions(model)],
            "decisions": [_json(entry) for entry in registry.decisions(model)],
            "seals": [sealed.seal for sealed in registry.audit(model, limit=100).last],
        }
        for model in registry.models()
    }
    for model, value in says.items():
        if retrainings := registry.retrainings.last(model):  # revision 0001 had none
            value["retrainings"] = [_json(r) for r in retrainings]
        if rollouts := registry.rollouts.last(model):  # nor had 0002 these
            value["rollouts"] = [_json(r) for r in rollouts]
            value["quarantined"] = {str(v): why for v, why in registry.quarantined(model).items()}
    registry.close()
    return says


def _json(value: Any) -> Any:
    return None if value is None else value.model_dump(mode="json")


if __name__ == "__main__":
    for target, write in (
        (BUNDLES / str(FORMAT), make_bundle),
        (REGISTRIES / f"{REVISIONS[-1]}.db", make_registry),
    ):
        if target.exists():
            print(f"{target} is there already")
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(target)
