"""A rollout that went well in shadow and was rolled back as a canary, with all a page shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from perennial.contracts.comparing import Apart, ArmFacts, Bin, SideBySide, StepComparison
from perennial.contracts.rollouts import (
    Check,
    Guard,
    Measurement,
    Plan,
    Rollout,
    RolloutState,
    Step,
)
from perennial.decisions.guards import judge
from perennial.reports.rollout import Happened, render_html

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ERRORS = Guard(name="error_rate", kind="error_rate", limit=0.01)
SHIFT = Guard(name="prediction_shift", kind="prediction", limit=0.1)


def step(strategy: str, weight: int) -> Step:
    return Step.model_validate(
        {
            "strategy": strategy, "weight": weight, "bake_seconds": 600, "timeout_seconds": 3600,
            "min_requests": 100, "guards": (ERRORS, SHIFT),
        }
    )  # fmt: skip


def look(number: int, minute: int, errors: Measurement, shift: Measurement) -> Check:
    own = ROLLOUT.plan.steps[number]
    return judge(number, own, (errors, shift), errors.n_challenger, NOON + minute * MINUTE)


ROLLOUT = Rollout(
    id=7, model="parcels", version=4, champion=3,
    plan=Plan(steps=(step("shadow", 0), step("canary", 25), step("canary", 100))),
    state=RolloutState(
        phase="rolled back", step=1, entered_at=NOON + 10 * MINUTE,
        reason="error_rate: 5 % of requests failed <b>",
    ),
    revision=9, actor="flow", reason="registered", started_at=NOON, updated_at=NOON,
    ended_at=NOON + 12 * MINUTE,
)  # fmt: skip
UNKNOWN = Measurement(guard="prediction_shift", n_challenger=3)
LOOKS = (
    look(
        0, 1, Measurement(guard="error_rate", n_challenger=50, value=0.0, low=0, high=0.2), UNKNOWN
    ),
    look(
        0, 9,
        Measurement(guard="error_rate", n_challenger=500, value=0.0, low=0, high=0.02),
        Measurement(guard="prediction_shift", n_challenger=500, value=0.03, low=0, high=0.11),
    ),
    look(
        1, 12,
        Measurement(guard="error_rate", n_challenger=800, value=0.05, low=0.02, high=0.09),
        Measurement(guard="prediction_shift", error="the log can't be read"),
    ),
)  # fmt: skip
HOSTILE = "<script>alert(1)</script>"
COMPARED = StepComparison(
    step=0,
    start=NOON,
    end=NOON + 10 * MINUTE,
    champion=ArmFacts(arm="champion", version=3, rows=500, requests=500, latency_p99_ms=8.25),
    challenger=ArmFacts(
        arm="challenger", version=4, rows=500, requests=500, failed=5, latency_p99_ms=2.5
    ),
    same_rows=SideBySide(
        rows=495, agree=0.9, mean=-0.01, p01=-0.2, p50=0.0, p99=0.1,
        bins=(Bin(low=-0.5, high=0.0, rows=400), Bin(low=0.0, high=0.5, rows=95)),
        apart=(
            Apart(
                id="row-9", champion="0.75", challenger="0.25", difference=-0.5,
                inputs={"remark": HOSTILE},
            ),
        ),
    ),
)  # fmt: skip
HISTORY = (Happened(NOON, "rollout begun", "flow", HOSTILE),)


def page() -> str:
    return render_html(ROLLOUT, HISTORY, LOOKS, (COMPARED,))
