"""A guard over the looks at a step, and a histogram of differences, as SVG. Same input, same text.

The page around them gives the colours (``templates/rollout.html.j2``).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import isfinite

from markupsafe import Markup

from perennial.contracts.comparing import Bin
from perennial.contracts.rollouts import Guard, Measurement
from perennial.reports.figures import number
from perennial.reports.rollout_progress import amount

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 170, 64, 24, 10
_MOST_POINTS = 200


def draw_guard(guard: Guard, looks: Sequence[tuple[datetime, Measurement]]) -> Markup:
    """What was measured at each look (line), where it surely is (band), and the limit (dashes).
    Empty for looks at which nothing was measured. Of very many looks some are drawn."""
    known = [(at, one) for at, one in looks if one.value is not None and isfinite(one.value)]
    if not known:
        return Markup("")
    step = -(-len(known) // _MOST_POINTS)
    known = [*known[:-1][::step], known[-1]]
    values = [one.value or 0.0 for _, one in known]
    # A band that is still very wide must not press the rest flat.
    spread = max(abs(guard.limit), *map(abs, values), 1e-12) * 3
    floor = 0.0 if min(values) >= 0 else -spread
    lows = [max(one.low if one.low is not None else -spread, -spread) for _, one in known]
    highs = [min(one.high if one.high is not None else spread, spread) for _, one in known]
    bottom = min(floor, *lows, *values)
    top = max(guard.limit, *highs, *values, bottom + spread / 1e3)
    begin, end = known[0][0].timestamp(), known[-1][0].timestamp()

    def x(at: datetime) -> str:
        share = (at.timestamp() - begin) / (end - begin) if end > begin else 0.5
        return f"{_LEFT + share * (_WIDTH - _LEFT - 8):.1f}"

    def y(value: float) -> str:
        share = (value - bottom) / (top - bottom)
        return f"{_HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP):.1f}"

    across = [x(at) for at, _ in known]
    line = " ".join(f"{a},{y(value)}" for a, value in zip(across, values, strict=True))
    upper = [f"{a},{y(high)}" for a, high in zip(across, highs, strict=True)]
    lower = [f"{a},{y(low)}" for a, low in zip(across, lows, strict=True)]
    band = " ".join([*upper, *reversed(lower)])
    limit, last = y(guard.limit), across[-1]
    parts = [
        Markup('<polygon class="band" points="{}"/>').format(band),
        Markup('<polyline class="value" points="{}"/>').format(line),
        Markup('<circle class="dot" cx="{}" cy="{}" r="3"/>').format(last, y(values[-1])),
        Markup('<line class="limit" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _LEFT, _WIDTH - 8, limit, limit
        ),
        *(_label(_LEFT - 6, y(v), amount(guard, v, 2), "end") for v in (bottom, guard.limit, top)),
        _time(known[0][0], "start", _LEFT),
    ]
    if end > begin:
        parts.append(_time(known[-1][0], "end", _WIDTH - 8))
    return _svg(f"{guard.name} over the looks", parts)


def draw_differences(bins: Sequence[Bin]) -> Markup:
    """A histogram of the differences of predictions, counts on a square-root scale, so that a few
    rows far out are still seen."""
    most = max((one.rows for one in bins), default=0)
    if not most:
        return Markup("")
    wide = (_WIDTH - _LEFT - 8) / len(bins)
    parts = []
    for i, one in enumerate(bins):
        high = (one.rows / most) ** 0.5 * (_HEIGHT - _BOTTOM - _TOP)
        title = f"{number(one.low)} to {number(one.high)}: {one.rows:,} rows"
        parts.append(
            Markup(
                '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                "<title>{}</title></rect>"
            ).format(_LEFT + i * wide, _HEIGHT - _BOTTOM - high, max(wide - 1, 1), high, title)
        )
    for at, anchor, value in ((_LEFT, "start", bins[0].low), (_WIDTH - 8, "end", bins[-1].high)):
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
                at, _HEIGHT - 6, anchor, number(value)
            )
        )
    return _svg("differences of predictions", parts)


def _label(at: int, y: str, text: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" dy="4" text-anchor="{}">{}</text>').format(
        at, y, anchor, text
    )


def _time(at: datetime, anchor: str, x: int) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
        x, _HEIGHT - 6, anchor, f"{at:%H:%M:%S}"
    )


def _svg(name: str, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg class="rollout" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        _WIDTH, _HEIGHT, name
    )
    return head + Markup("").join(parts) + Markup("</svg>")
