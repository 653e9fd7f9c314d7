"""Services to look at: an ordinary one, and one whose every text is hostile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from perennial.contracts.serving import SpoolLag
from perennial.serving.beside import Beside, Shadow
from perennial.serving.metrics import Metrics
from perennial.serving.state import ModelState, ServiceState, VersionState
from perennial.stores.registry import AuditEntry

NOW = datetime(2026, 11, 21, 19, 2, 13, tzinfo=UTC)

HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>{{ 7 * 7 }}</style>&amp;"""


def version(number: int, arm: str = "champion", weight: int = 100, **changed: Any) -> VersionState:
    values: dict[str, Any] = {
        "digest": f"{number}f87b0a1e6bd" + "0" * 52,
        "created_at": NOW - timedelta(days=10 - number, hours=3),
        "loaded_at": NOW - timedelta(hours=3, minutes=11),
        "metrics": {"logloss": 0.55 - number / 500, "roc_auc": 0.7636, "pr_auc": None},
        "warm_ms": 0.61,
    }
    return VersionState(version=number, arm=arm, weight=weight, **values | changed)


def model(name: str, *versions: VersionState, **changed: Any) -> ModelState:
    values: dict[str, Any] = {
        "description": "Will it arrive more than 15 minutes late?",
        "objective": "binary",
        "generation": 12,
        "check_every": timedelta(seconds=3),
        "problem": "",
    }
    return ModelState(name=name, versions=versions, **values | changed)


def decision(number: int, action: str, reason: str, **changed: Any) -> AuditEntry:
    values: dict[str, Any] = {
        "model": "flight-delay",
        "actor": "continuous-training/olive-hare",
        "version": number,
        "digest": None,
        "generation": number,
        "evidence": {},
        "cause": f"run-{number}",
    }
    at = NOW - timedelta(hours=41 - 8 * number)
    return AuditEntry(id=number, at=at, action=action, reason=reason, **values | changed)


def service(*models: ModelState, **changed: Any) -> ServiceState:
    values: dict[str, Any] = {
        "started_at": NOW - timedelta(hours=3, minutes=12),
        "ready": True,
        "registry_problem": "",
        "decisions": (),
        "lag": SpoolLag(segments=1, bytes=412_380, oldest_seconds=2.14),
    }
    return ServiceState(models=models, **values | changed)


def ordinary() -> tuple[ServiceState, Metrics]:
    """Two models; one has a canary, a version that is no longer routed and a shadow."""
    state = service(
        model(
            "flight-delay",
            version(3, "pinned", 0),
            version(4, weight=75),
            version(5, "challenger", 25),
        ),
        model(
            "diamond-price",
            version(1, metrics={"rmse": 541.2, "mae": 270.9, "r2": 0.981}),
            description="",
            objective="regression",
            generation=1,
        ),
        beside=Beside(shadows=(Shadow("flight-delay", 6, 1598, 2, 0.4, "out of memory"),)),
        decisions=(
            decision(
                5, "route changed", "canary of version 5: 25 % of requests", actor="rollout/shy-owl"
            ),
            decision(
                5,
                "registered",
                "passed all 6 checks: beats champion on logloss: gain 0.1046 (95 % at least "
                "0.09702) exceeds 0 on 12,363 rows",
            ),
            decision(4, "promoted", "passed all 6 checks", actor="anna@example.org"),
            decision(
                3,
                "kept champion",
                "failed: roc_auc 0.5711 is below 0.6 on 12,363 rows; slices of origin, carrier on "
                "logloss: carrier=HA loses 0.0313 on 310 rows",
            ),
        ),
    )
    now = [1000.0]
    metrics = Metrics(lambda: now[0])
    for place in range(1200):
        seconds = 0.0006 + 0.000004 * (place % 400)
        metrics.answered("flight-delay", 4, "champion", 1 + place % 3, seconds)
        if place % 3 == 0:
            metrics.answered("flight-delay", 5, "challenger", 1, 1.1 * seconds)
            metrics.answered("diamond-price", 1, "champion", 1, 0.5 * seconds)
    for status, times in ((422, 31), (404, 4), (503, 2)):
        for _ in range(times):
            at = ("flight-delay", 5) if status == 503 else ("", 0)
            metrics.refused("/models/{name}/predict", status, *at)
    metrics.refused("/v2/models/{name}/infer", 400)
    now[0] += 50.0
    return state, metrics


def hostile() -> tuple[ServiceState, Metrics]:
    """Every text that is not ours holds markup, and some have no place to break a line."""
    long = "w" * 3000
    state = service(
        model(
            HOSTILE,
            *(version(n, f"{HOSTILE}{n}", 1 if n < 100 else 0) for n in range(1, 101)),
            version(101, metrics={HOSTILE: 0.5, "b": None}),
            description=HOSTILE + long,
            objective=HOSTILE,
            problem=HOSTILE + long,
        ),
        model("n" * 60, description=HOSTILE),
        ready=False,
        registry_problem=HOSTILE + long,
        decisions=tuple(
            decision(
                n, HOSTILE, HOSTILE + long, model=HOSTILE + "m" * 90, actor=HOSTILE + "a" * 200
            )
            for n in range(20)
        ),
        lag=SpoolLag(segments=12_345, bytes=4 * 10**12, oldest_seconds=1e6),
        beside=Beside(
            problems=(HOSTILE + long,),
            shadows=(Shadow(HOSTILE, 8, 10**15, 10**15, 1e9, HOSTILE + long),),
        ),
    )
    metrics = Metrics(lambda: 1000.0)
    metrics.refused(HOSTILE + long, 599)
    for _ in range(3):
        metrics.answered(HOSTILE, 7, "champion", 10**12, 1e5)
    return state, metrics
