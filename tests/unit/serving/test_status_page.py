"""The status page's words and markup. Its layout: tests/integration/test_status_page_layout.py."""

from __future__ import annotations

import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

import perennial.serving
from perennial.contracts.rollouts import Guard, Plan, Rollout, Step
from perennial.contracts.serving import SpoolLag
from perennial.decisions.rollout import command, start
from perennial.serving.beside import Beside
from perennial.serving.metrics import Metrics
from perennial.serving.status import duration, latency, rate, render_status, size
from tests.status_examples import (
    HOSTILE,
    NOW,
    decision,
    hostile,
    model,
    ordinary,
    service,
    version,
)

VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Reads strictly: each element is closed where it was opened, each attribute is there once."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self._open: list[str] = []
        self._texts: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.tags.add(tag)
        self.attributes.update(names)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "title"):
            self._texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._texts).split())


@pytest.mark.parametrize("example", [ordinary, hostile])
def test_the_page_is_well_formed_and_made_of_plain_elements_only(example: object) -> None:
    assert callable(example)
    page = Page(render_status(*example(), NOW))

    assert page.tags == {
        *("html", "head", "meta", "link", "title", "style", "body", "main", "h1", "p", "div", "b"),
        *("dl", "dt", "dd", "section", "h2", "br", "table", "thead", "tbody", "tr", "th", "td"),
        *("span", "small", "code", "time", "ol", "li", "footer", "a"),
        *({"ul"} if example is hostile else ()),
    }
    assert not [name for name in page.attributes if name.startswith("on")]


def test_hostile_texts_are_shown_as_they_are() -> None:
    page = Page(render_status(*hostile(), NOW))

    assert page.text.count(HOSTILE) > 100


def test_a_service_that_is_well_says_so_with_its_models_versions_and_traffic() -> None:
    text = Page(render_status(*ordinary(), NOW)).text

    assert "✓ Ready All routes are followed, the registry answers, and the log keeps up." in text
    assert "up 3 h 12 min" in text
    assert "Predictions 3,840 a minute" in text
    assert "412 kB in 1 segment" in text
    assert (
        "flight-delay Will it arrive more than 15 minutes late? binary, route generation 12" in text
    )
    assert (
        "4 champion 4f87b0a1e6bd 75 % 1,440 / min 1,200 in all 2,400 rows 0 1.4 ms 2.2 ms" in text
    )
    assert "5 challenger 5f87b0a1e6bd 25 % 480 / min 400 in all 2 1.5 ms 2.5 ms" in text
    assert "3 by number only 3f87b0a1e6bd 0 % – 0 – – logloss 0.544 , roc_auc 0.7636" in text
    assert (
        "Version 6 in the shadow: 1,598 rows scored from the log, 0.25 ms a row; "
        "2 could not be : out of memory"
    ) in text
    assert "/models/{name}/predict 422 Unprocessable" in text
    assert (
        "2026-11-21 18:02:13 flight-delay version 5 route changed by rollout/shy-owl "
        "canary of version 5: 25 % of requests"
    ) in text


def canary_of_churn() -> Rollout:
    guard = Guard(name="errors", kind="error_rate", limit=0.01)
    canary = Step(
        strategy="canary", weight=25, bake_seconds=60, timeout_seconds=600, min_requests=10,
        guards=(guard,),
    )  # fmt: skip
    plan = Plan(steps=(canary,))
    return Rollout(
        id=1, model="churn", version=5, champion=4, plan=plan, state=start(plan, 4, 5, NOW).state,
        revision=0, actor="a test", reason="better", started_at=NOW, updated_at=NOW, ended_at=None,
    )  # fmt: skip


def test_a_rollout_under_way_is_told_with_its_model() -> None:
    rollout = canary_of_churn()
    paused = command(rollout, "pause", NOW, f"{HOSTILE} first")
    state = service(
        model("churn", version(4, "champion", 75)), model("quiet", version(1, "champion", 100)),
        rollouts=(rollout.model_copy(update={"state": paused.state}),),
    )  # fmt: skip
    text = Page(render_status(state, Metrics(), NOW)).text
    told = f"Rollout under way: churn@5: paused at canary 25 %, step 1 of 1, since {NOW:%Y-%m-%d}"
    assert text.count("Rollout under way") == text.count(told) == 1
    assert f"; {HOSTILE} first" in text
    assert text.index(told) < text.index("quiet")


@pytest.mark.parametrize(
    ("check_every", "read", "told"),
    [(3, 60, False), (3, 180, True), (120, 180, False), (3, None, True)],
)
def test_a_rollout_that_nobody_looks_at_says_so_as_far_as_the_registry_was_read(
    check_every: int, read: int | None, told: bool
) -> None:
    churn = model("churn", version(4), check_every=timedelta(seconds=check_every))
    state = service(
        churn, rollouts=(canary_of_churn(),),
        read_at=None if read is None else NOW + timedelta(seconds=read),
    )  # fmt: skip
    text = Page(render_status(state, Metrics(), NOW + timedelta(hours=1))).text
    silent = f"; nobody has looked since {NOW:%Y-%m-%d %H:%M}, perennial rollout churn watches it"
    assert (silent in text) == told


def test_the_champion_comes_first_then_the_others_by_weight_and_the_unrouted_last() -> None:
    versions = [
        version(2, "pinned", 0),
        version(3, "champion", 5),
        version(4, "challenger", 35),
        version(5, "challenger", 60),
        version(6, "shadow", 0),
    ]
    text = Page(render_status(service(model("churn", *versions)), Metrics(), NOW)).text

    order = re.findall(r"(\d) (?:champion|challenger|by number only|shadow)", text)
    assert order == ["3", "5", "4", "6", "2"]


def test_the_metrics_that_were_measured_are_in_the_order_of_the_reports() -> None:
    measured = {"accuracy": 0.81, "brier": 0.14, "logloss": 0.45, "pr_auc": None, "roc_auc": 0.7}
    state = service(model("churn", version(1, metrics=measured)))

    text = Page(render_status(state, Metrics(), NOW)).text

    assert "logloss 0.45 , roc_auc 0.7 , brier 0.14 2026" in text


def test_the_bar_has_a_part_for_each_version_with_a_share() -> None:
    html = render_status(
        service(model("churn", version(1, weight=95), version(2, "challenger", 5))), Metrics(), NOW
    )

    assert re.findall(r'class="(arm-[^"]*)" style="flex:(\d+) 0 0"', html) == [
        ("arm-0", "95"),
        ("arm-1 thin", "5"),
    ]
    assert 'aria-label="Shares of requests: version 1 95 %, version 2 5 %"' in html


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (
            service(model("churn", version(1)), registry_problem="database is locked."),
            "! Ready, with problems The registry can't be read, so no change of routes is "
            "followed; what was served is served on. database is locked. Predictions",
        ),
        (
            service(model("churn", version(1), problem="Version 2: the bundle's digest differs.")),
            "! Ready, with problems churn: the route in the registry is not followed. Version 2: "
            "the bundle's digest differs. Predictions",
        ),
        (
            service(model("churn", version(1)), model("fares"), ready=False),
            "✗ Not ready Not ready for requests: no version answers for fares. Predictions",
        ),
        (
            service(ready=False),
            "✗ Not ready Not ready for requests: the registry has no model with a promoted "
            "version. Predictions",
        ),
        (
            service(model("churn", version(1)), ready=False),
            "✗ Not ready Not ready for requests: the service is starting or stopping. Predictions",
        ),
        (
            service(
                model("churn", version(1)),
                ready=False,
                log_problem="the prediction log does not work (MemoryError)",
            ),
            "✗ Not ready Not ready for requests: the prediction log does not work (MemoryError); "
            "the server's log says why. Predictions",
        ),
        (
            service(model("churn", version(1)), lag=SpoolLag(3, 12_400_000, 250.0)),
            "! Ready, with problems The prediction log is behind: its oldest record has waited "
            "4 min for its table (12.4 MB in 3 segments). Nothing is lost while the disk has room; "
            "look whether the table's storage can be reached. Predictions",
        ),
        (
            service(model("churn", version(1)), beside=Beside(("The bucket does not answer.",))),
            "! Ready, with problems The bucket does not answer. Predictions",
        ),
    ],
)
def test_problems_are_told_in_words_at_the_top(state: object, told: str) -> None:
    text = Page(render_status(state, Metrics(), NOW)).text  # type: ignore[arg-type]

    assert f"up 3 h 12 min {told}" in text


def test_a_service_without_models_errors_or_decisions_shows_no_empty_lists() -> None:
    text = Page(render_status(service(), Metrics(), NOW)).text

    assert "No model is served." in text
    assert "Last decisions" not in text
    assert "Requests that got an error" not in text


def test_a_long_reason_is_cut() -> None:
    state = service(decisions=(decision(1, "refused", "because " * 1000),))

    assert len(render_status(state, Metrics(), NOW)) < 12_000


def test_the_same_state_gives_the_same_page() -> None:
    assert render_status(*ordinary(), NOW) == render_status(*ordinary(), NOW)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (11_460, "3 h 11 min"),
        (90_000, "1 d 1 h"),
        (86_460, "1 d"),
    ],
)
def test_durations_have_their_two_largest_units(seconds: float, told: str) -> None:
    assert duration(seconds).replace("\u00a0", " ") == told


def test_figures_have_no_more_digits_than_they_carry() -> None:
    sizes = [size(n).replace("\u00a0", " ") for n in (0, 999, 1000, 412_380, 999_999, 5 * 10**15)]
    latencies = [latency(ms).replace("\u00a0", " ") for ms in (None, 0.0512, 1.44, 12.3, 1234.5)]

    assert sizes == ["0 B", "999 B", "1 kB", "412 kB", "1 MB", "5,000 TB"]
    assert latencies == ["–", "0.051 ms", "1.4 ms", "12 ms", "1,234 ms"]
    assert [rate(n) for n in (0.0, 0.98, 9.4, 10.4, 72_000)] == [
        "0.0",
        "1.0",
        "9.4",
        "10",
        "72,000",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_that_reading_needs(scheme: str) -> None:
    """4.5 to 1, as WCAG 2.2 AA has it (criterion 1.4.3)."""
    folder = Path(perennial.serving.__file__).parent
    template = (folder / "templates" / "status.html.j2").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", template, re.DOTALL)
    colour = dict(re.findall(r"--([\w-]+): (#\w+);", light if scheme == "light" else dark))

    texts = ["ink", "soft", "link", "passed", "failed", "inconclusive"]
    pairs = [(text, ground) for text in texts for ground in ("page", "card")]
    pairs += [("on-arm", name) for name in colour if re.fullmatch(r"arm-\d", name)]

    assert len(pairs) == 16
    low = {pair: _contrast(colour[pair[0]], colour[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted([_luminance(one), _luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
