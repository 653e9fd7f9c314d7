"""A backtest as pictures: what each policy would have served, when it trained, what that cost.

SVG text, the same for the same result. ``STYLE`` colours it, in a page once for all of them; a
picture that stands by itself carries it within.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from itertools import accumulate

from perennial.contracts.backtest import Attempt, BacktestResult, PolicyResult
from perennial.reports.figures import number
from perennial.reports.plots import Span, ticks

STYLE = """\
.bt { --never: #6d7785; --schedule: #2457c5; --drift: #b4560b; --perennial: #14743a;
  --soft: #5b6575; --line: #e3e7ed; --page: #fff; }
@media (prefers-color-scheme: dark) {
  .bt { --never: #98a3b3; --schedule: #82a9ff; --drift: #f0a35e; --perennial: #5cc98a;
    --soft: #9aa6b8; --line: #2b3340; --page: #1a2029; }
}
.bt text { font: 13px system-ui, "Helvetica Neue", Arial, sans-serif; fill: var(--soft); }
.bt .grid { stroke: var(--line); }
.bt .never { --c: var(--never); } .bt .schedule { --c: var(--schedule); }
.bt .drift { --c: var(--drift); } .bt .perennial { --c: var(--perennial); }
.bt polyline { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.bt polyline.never { stroke-dasharray: 2 3; } .bt polyline.drift { stroke-dasharray: 7 3; }
.bt polyline.perennial { stroke-width: 2.6; }
.bt polyline.front { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
.bt .dot { fill: var(--c); }
.bt .promoted { fill: var(--c); stroke: var(--c); stroke-width: 1.6; }
.bt .kept, .bt .unchanged { fill: var(--page); stroke: var(--c); stroke-width: 1.6; }
.bt .failed { fill: none; stroke: var(--c); stroke-width: 2; }
.bt text.name { fill: var(--c); font-weight: 600; }"""

TITLES = {"never": "never", "schedule": "schedule", "drift": "each drift", "perennial": "perennial"}
"""What readers know the policies by."""

_WIDTH, _LEFT, _RIGHT = 960.0, 84.0, 24.0
_LANE = 24.0


@dataclass(frozen=True)
class _Frame:
    """Where time and values lie in a drawing: a box of the height given, ``top`` down."""

    times: tuple[datetime, datetime]
    values: Span
    top: float
    height: float
    left: float = _LEFT
    right: float = _WIDTH - _RIGHT

    def x(self, at: datetime) -> float:
        first, last = self.times
        return self.left + (self.right - self.left) * ((at - first) / (last - first))

    def y(self, value: float) -> float:
        low, high = self.values
        return self.top + self.height * (1 - (value - low) / (high - low))

    def drawn(self, label: str) -> Iterator[str]:
        """The grid with its numbers, and what is up."""
        bottom = self.top + self.height
        for at, text in _dates(self.times):
            yield _rule(self.x(at), self.top, self.x(at), bottom)
            yield _text(self.x(at), bottom + 18, text, "middle")
        for tick in ticks(self.values):
            yield _rule(self.left, self.y(tick), self.right, self.y(tick))
            yield _text(self.left - 8, self.y(tick) + 4, number(tick), "end")
        middle = self.top + self.height / 2
        yield (
            f'<text x="16" y="{middle:.1f}" text-anchor="middle" '
            f'transform="rotate(-90 16 {middle:.1f})">{escape(label)}</text>'
        )


def metric_picture(result: BacktestResult, *, alone: bool = False) -> str:
    """The metric of each step by policy, and below it a lane a policy with its retrainings: filled
    where the new version took over, hollow where it did not."""
    values = [v for p in result.policies for v in p.values if v is not None]
    frame = _Frame(_times(result), _padded(values), 12, 250)
    parts = list(frame.drawn(result.plan.metric))
    ends = [*result.plan.moments[1:], result.plan.end]
    for policy in result.policies:
        points = [
            (frame.x(start + (end - start) / 2), frame.y(value), start, value)
            for start, end, value in zip(result.plan.moments, ends, policy.values, strict=True)
            if value is not None
        ]
        parts.append(_line(policy.policy, ((x, y) for x, y, _, _ in points)))
        for x, y, start, value in points:
            said = f"{TITLES[policy.policy]}, from {start:%Y-%m-%d}: {number(value)}"
            parts.append(_circle(x, y, 2.2, f"dot {policy.policy}", said))
    top = frame.top + frame.height + 46
    for lane, policy in enumerate(result.policies):
        y = top + lane * _LANE
        parts.append(_rule(frame.left, y, frame.right, y))
        parts.append(_text(frame.left - 8, y + 4, TITLES[policy.policy], "end", policy.policy))
        parts += [_mark(frame.x(attempt.at), y, policy, attempt) for attempt in policy.attempts]
    what = f"{result.plan.metric} over time and retrainings, by policy"
    return _svg(what, top + len(result.policies) * _LANE, parts, alone)


def cost_picture(result: BacktestResult, *, alone: bool = False) -> str:
    """Rows read for trainings, added up over time."""
    most = max(1, *(p.rows for p in result.policies))
    unit, name = (1e6, "million rows read") if most >= 2e6 else (1e3, "thousand rows read")
    frame = _Frame(_times(result), (0.0, most / unit * 1.06), 12, 170)
    parts = list(frame.drawn(name))
    for policy in result.policies:
        totals = list(accumulate(a.rows / unit for a in policy.attempts))
        corners = [(frame.x(result.plan.moments[0]), frame.y(0.0))]
        for attempt, total in zip(policy.attempts, totals, strict=True):
            x = frame.x(attempt.at)
            corners += [(x, corners[-1][1]), (x, frame.y(total))]
        corners.append((frame.x(result.plan.end), corners[-1][1]))
        parts.append(_line(policy.policy, corners))
    return _svg("Rows read for trainings, added up", frame.top + frame.height + 30, parts, alone)


def front_picture(result: BacktestResult) -> str:
    """The metric against the cost, and the line of the policies that none beats."""
    measured = [(p, p.metric) for p in result.policies if p.metric is not None]
    most = max(1, *(p.rows for p, _ in measured))
    low, high = _padded([value for _, value in measured])
    room = (high - low) * 0.12
    frame = _Frame(_times(result), (low - room, high + room), 12, 210, right=_WIDTH - 150)
    parts: list[str] = []
    for tick in ticks(frame.values):
        parts.append(_rule(frame.left, frame.y(tick), frame.right, frame.y(tick)))
        parts.append(_text(frame.left - 8, frame.y(tick) + 4, number(tick), "end"))
    for tick in ticks((0.0, most * 1.02)):
        x = frame.left + 14 + (frame.right - frame.left - 14) * tick / (most * 1.02)
        parts.append(_rule(x, frame.top, x, frame.top + frame.height))
        parts.append(_text(x, frame.top + frame.height + 18, f"{tick:,.0f}", "middle"))

    def place(rows: int, value: float) -> tuple[float, float]:
        across = frame.left + 14 + (frame.right - frame.left - 14) * rows / (most * 1.02)
        return across, frame.y(value)

    by_policy = {p.policy: place(p.rows, value) for p, value in measured}
    parts.append(_line("front", [by_policy[policy] for policy in result.choice.front]))
    taken: list[tuple[float, float]] = []
    for policy, value in measured:
        x, y = by_policy[policy.policy]
        said = f"{TITLES[policy.policy]}: {number(value)}, {policy.rows:,} rows read"
        parts.append(_circle(x, y, 6, f"dot {policy.policy}", said))
        beside = y + 4
        while any(abs(beside - other) < 15 and abs(x - at) < 90 for at, other in taken):
            beside += 15
        taken.append((x, beside))
        parts.append(_text(x + 11, beside, TITLES[policy.policy], "start", policy.policy))
    parts.append(
        _text((frame.left + frame.right) / 2, frame.top + frame.height + 38, "rows read", "middle")
    )
    return _svg("Metric against cost", frame.top + frame.height + 46, parts, alone=False)


def _times(result: BacktestResult) -> tuple[datetime, datetime]:
    return result.plan.moments[0], result.plan.end


def _mark(x: float, y: float, policy: PolicyResult, attempt: Attempt) -> str:
    said = f"{attempt.at:%Y-%m-%d}, {attempt.outcome}: {attempt.verdict}"
    css = f"{attempt.outcome} {policy.policy}"
    if attempt.outcome == "failed":
        cross = f"M{x - 4:.1f},{y - 4:.1f}l8,8m0,-8l-8,8"
        return f'<path class="{css}" d="{cross}"><title>{escape(said)}</title></path>'
    return _circle(x, y, 4.4, css, said)


def _dates(times: tuple[datetime, datetime]) -> list[tuple[datetime, str]]:
    """Round dates inside a span, at most a dozen."""
    first, last = (at.astimezone(UTC) for at in times)
    for months in (1, 2, 3, 6, 12, 24, 60, 120):
        starts = [
            datetime(year, month, 1, tzinfo=UTC)
            for year in range(first.year, last.year + 1)
            for month in range(1, 13)
            if ((year * 12) + month - 1) % months == 0
        ]
        inside = [at for at in starts if first <= at <= last]
        if len(inside) <= 12:
            break
    if len(inside) >= 4:
        return [(at, f"{at:%Y}" if at.month == 1 else f"{at:%b}") for at in inside]
    for step in (timedelta(hours=1), timedelta(hours=6), timedelta(days=1), timedelta(days=7)):
        if (last - first) / step <= 12:
            break
    else:
        step = (last - first) / 10
    form = "%d %b" if step >= timedelta(days=1) else "%d %b %H:%M"
    count = int((last - first) / step)
    return [(at := first + i * step, f"{at:{form}}") for i in range(count + 1)]


def _padded(values: Sequence[float]) -> Span:
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.04 or 1.0
    return low - room, high + room


def _line(css: str, points: Iterable[tuple[float, float]]) -> str:
    return f'<polyline class="{css}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _circle(x: float, y: float, radius: float, css: str, said: str) -> str:
    title = f"<title>{escape(said)}</title>"
    return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">{title}</circle>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="grid" d="M{x1:.1f},{y1:.1f}L{x2:.1f},{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, policy: str = "") -> str:
    css = f' class="name {policy}"' if policy else ""
    return f'<text{css} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(what: str, height: float, parts: Iterable[str], alone: bool) -> str:
    style = f"<style>{STYLE}</style>" if alone else ""
    return (
        f'<svg class="bt" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {_WIDTH:g} {height:g}" aria-label="{escape(what)}">'
        f"{style}{''.join(parts)}</svg>"
    )
