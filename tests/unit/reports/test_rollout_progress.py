"""The page of a rollout."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perennial.contracts.rollouts import (
    Check,
    Guard,
    Measurement,
    Plan,
    Rollout,
    RolloutState,
    Step,
)
from perennial.contracts.verdicts import Evidence, Outcome, Verdict
from perennial.reports.rollout_progress import headline, render_markdown, standing, step_state

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
ERRORS = Guard(name="error_rate", kind="error_rate", limit=0.01)
SLOW = Guard(name="p99_ms", kind="latency", limit=0.01, threshold=50)
CHECK = Check(
    at=NOON + timedelta(minutes=3),
    step=1,
    outcome="error",
    requests=1234,
    measurements=(
        Measurement(
            guard="error_rate", n_champion=5000, n_challenger=1234, value=0.002, low=0, high=0.01
        ),
        Measurement(guard="p99_ms", error="log | away"),
    ),
    verdicts=(
        Verdict(
            outcome=Outcome.ERROR,
            reason="p99_ms: *not* measured",
            evidence=Evidence(rule="p99_ms"),
        ),
    ),
)


def step(strategy: str, weight: int, bake: float = 600) -> Step:
    return Step.model_validate(
        {
            "strategy": strategy,
            "weight": weight,
            "bake_seconds": bake,
            "timeout_seconds": 86_400,
            "min_requests": 1000,
            "approval": weight == 100,
            "guards": (ERRORS, SLOW),
        }
    )


PLAN = Plan(steps=(step("shadow", 0, 90), step("canary", 25), step("canary", 100, 7200)))


def rollout(phase: str, at: int = 1, last: Check | None = CHECK, plan: Plan = PLAN) -> Rollout:
    state = {"phase": phase, "step": at, "entered_at": NOON, "last": last, "reason": "so | it is"}
    over = phase not in ("running", "waiting", "paused")
    return Rollout(
        id=7, model="demand", version=4, champion=3, plan=plan,
        state=RolloutState.model_validate(state), revision=9, actor="tests", reason="better",
        started_at=NOON, updated_at=NOON, ended_at=NOON + timedelta(hours=1) if over else None,
    )  # fmt: skip


def test_the_page_says_where_it_stands_and_what_was_measured() -> None:
    assert render_markdown(rollout("running")).replace("\u202f", " ") == (
        "# ▶ demand@4: canary 25 %, step 2 of 3\n"
        "\n"
        "so \\| it is\n"
        "\n"
        "Rollout 7, version 4 beside the champion, version 3. Begun 2026-03-14 12:00:00 UTC: "
        "better\n"
        "\n"
        "|  | step | at least | at most | guards |\n"
        "|---|---|---|---|---|\n"
        "| ✓ | shadow | 90 s, 1,000 rows | 1 d | error\\_rate, p99\\_ms |\n"
        "| ▶ | canary 25 % | 10 min, 1,000 rows | 1 d | error\\_rate, p99\\_ms |\n"
        "|  | canary 100 % (a person approves) | 2 h, 1,000 rows | 1 d | "
        "error\\_rate, p99\\_ms |\n"
        "\n"
        "Last look, 2026-03-14 12:03:00 UTC: **error**, 1,234 rows in step 2 so far.\n"
        "\n"
        "| guard | measured | surely between | n champion | n challenger |\n"
        "|---|--:|--:|--:|--:|\n"
        "| error\\_rate | 0.2 % | 0 % and 1 % | 5,000 | 1,234 |\n"
        "| p99\\_ms | log \\| away |  | 0 | 0 |\n"
        "\n"
        "- error: p99\\_ms: \\*not\\* measured\n"
        "\n"
        "By hand: `perennial rollout demand@4 --promote`, `perennial rollout demand@4 --pause` or "
        "`perennial rollout demand@4 --abort`.\n"
    )


@pytest.mark.parametrize(
    ("phase", "line"),
    [
        ("running", "demand@4: canary 25 %, step 2 of 3"),
        ("waiting", "demand@4: waiting at canary 25 %, step 2 of 3"),
        ("promoted", "demand@4: promoted"),
        ("rolled back", "demand@4: rolled back"),
        ("no difference", "demand@4: no difference"),
    ],
)
def test_a_line_tells_the_phase_or_the_end(phase: str, line: str) -> None:
    assert headline(rollout(phase)) == line


SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
NOBODY = "; nobody has looked since 2026-03-14 12:00, perennial rollout demand watches it"


@pytest.mark.parametrize(
    ("check_every", "silent", "told"),
    [
        (3 * SECOND, 2 * MINUTE, ""),  # a run takes a while to start
        (3 * SECOND, 2 * MINUTE + SECOND, NOBODY),
        (MINUTE, 3 * MINUTE, ""),
        (MINUTE, 3 * MINUTE + SECOND, NOBODY),
    ],
)
def test_a_running_one_says_when_it_was_looked_at_last_and_when_nobody_looks(
    check_every: timedelta, silent: timedelta, told: str
) -> None:
    assert standing(rollout("running"), check_every, NOON + silent) == (
        "demand@4: canary 25 %, step 2 of 3, since 2026-03-14 12:00; last look 2026-03-14 "
        f"12:03:00: error, 1,234 rows so far{told}"
    )
    begun = standing(rollout("running", last=None), check_every, NOON + silent)
    assert begun == f"demand@4: canary 25 %, step 2 of 3, since 2026-03-14 12:00{told}"


@pytest.mark.parametrize("phase", ["waiting", "paused"])
def test_one_that_stands_still_says_why_and_not_that_nobody_looks(phase: str) -> None:
    told = standing(rollout(phase, last=None), 3 * SECOND, NOON + timedelta(days=3))
    place = f"demand@4: {phase} at canary 25 %, step 2 of 3"
    assert told == f"{place}, since 2026-03-14 12:00; so | it is"


def test_what_has_ended_asks_nothing_of_anybody() -> None:
    page = render_markdown(rollout("rolled back"))
    assert page.startswith("# ✗ demand@4: rolled back\n")
    assert "Ended 2026-03-14 13:00:00 UTC." in page
    assert "perennial rollout" not in page
    assert "| ✗ | canary 25 % |" in page


@pytest.mark.parametrize(
    ("phase", "at", "minutes", "states", "signs"),
    [
        ("running", 1, 60, ("done", "running", ""), "✓▶ "),
        ("waiting", 1, 60, ("done", "waiting", ""), "✓? "),
        ("waiting", 0, 60, ("waiting", "", ""), "?  "),
        ("promoted", 2, 3, ("done", "done", "done"), "✓✓✓"),
        ("promoted", 2, 60, ("done", "done", "promoted by hand"), "✓✓–"),
        ("promoted", 1, 60, ("done", "promoted by hand", "not reached"), "✓– "),
        ("promoted", 0, 60, ("not reached", "not reached", "not reached"), "   "),
        ("aborted", 0, 60, ("not reached", "not reached", "not reached"), "   "),
        ("aborted", 1, 60, ("done", "aborted", "not reached"), "✓✗ "),
    ],
)
def test_only_steps_that_ran_to_their_end_are_done(
    phase: str, at: int, minutes: float, states: tuple[str, ...], signs: str
) -> None:
    first = PLAN.steps[0].model_copy(update={"approval": True})  # by nobody so far
    found = rollout(phase, at, plan=Plan(steps=(first, *PLAN.steps[1:])))
    if found.ended:
        found = found.model_copy(update={"ended_at": NOON + minutes * MINUTE})
    assert tuple(step_state(found, number) for number in range(3)) == states
    rows = [line for line in render_markdown(found).splitlines() if ", 1,000 rows |" in line]
    assert [line.split(" | ")[0].strip("| ") for line in rows] == [sign.strip() for sign in signs]


def test_a_switch_at_once_has_no_steps_to_show() -> None:
    page = render_markdown(rollout("promoted", 0, None, Plan(steps=())))
    assert page.startswith("# ✓ demand@4: promoted\n")
    assert "|" not in page.replace("\\|", "")
