"""Small plots as inline SVG, drawn by hand: a few kilobytes each, and coloured by the page's CSS,
so that they follow its light and dark themes. Same input, same text.

Classes: ``candidate`` and ``champion`` (lines, dots, bars), ``ideal`` (a reference line), ``grid``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup, escape

from perennial.contracts.verdicts import CalibrationBin, Comparison, Curve
from perennial.reports.figures import MINUS, number

_WIDTH, _HEIGHT = 360, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 10, 48
Span = tuple[float, float]


@dataclass(frozen=True)
class Axes:
    """Where data lie in the drawing. Spans are from the left, and from below."""

    x: Span
    y: Span
    x_label: str
    y_label: str

    def at(self, x: float, y: float) -> str:
        across = _LEFT + (_WIDTH - _LEFT - _RIGHT) * _share(x, self.x)
        down = _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * _share(y, self.y)
        return f"{across:.1f},{down:.1f}"

    def place(self, x: float, y: float) -> tuple[float, float]:
        across, down = self.at(x, y).split(",")
        return float(across), float(down)

    def drawn(self) -> Markup:
        """Grid lines with their numbers, and what the axes are."""
        parts = []
        for tick in ticks(self.x):
            across, _ = self.place(tick, self.y[0])
            parts.append(_line(across, _TOP, across, _HEIGHT - _BOTTOM, "grid"))
            parts.append(_text(across, _HEIGHT - _BOTTOM + 17, _tick(tick), "middle"))
        for tick in ticks(self.y):
            _, down = self.place(self.x[0], tick)
            parts.append(_line(_LEFT, down, _WIDTH - _RIGHT, down, "grid"))
            parts.append(_text(_LEFT - 6, down + 4, _tick(tick), "end"))
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(_text(middle, _HEIGHT - 6, self.x_label, "middle"))
        height = (_TOP + _HEIGHT - _BOTTOM) / 2
        turned = Markup('<text x="13" y="{0}" text-anchor="middle" transform="rotate(-90 13 {0})">')
        parts.append(turned.format(f"{height:.0f}") + escape(self.y_label) + Markup("</text>"))
        return Markup("").join(parts)


def ticks(span: Span, about: int = 5) -> list[float]:
    """Round numbers inside a span, at steps of 1, 2 or 5 times a power of ten."""
    low, high = span
    rough = (high - low) / about
    power = 10 ** floor(log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    return [step * i for i in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def lines(
    title: str, candidate: Curve, champion: Curve | None, ideal: Sequence[tuple[float, float]]
) -> Markup:
    """Curves in the unit square, over a reference line."""
    axes = Axes((0, 1), (0, 1), candidate.x_label, candidate.y_label)
    parts = [axes.drawn(), _path(axes, ideal, "ideal")]
    if champion is not None:
        parts.append(_path(axes, zip(champion.x, champion.y, strict=True), "champion"))
    parts.append(_path(axes, zip(candidate.x, candidate.y, strict=True), "candidate"))
    return _svg(title, parts)


def calibration(
    title: str, bins: Sequence[CalibrationBin], labels: tuple[str, str], shares: bool
) -> Markup:
    """Bins as dots over the line where prediction and observation agree. ``shares``: from 0."""
    values = [v for b in bins for v in (b.predicted, b.observed)]
    span = (0.0, min(1.0, max(values) * 1.08) or 1.0) if shares else _padded(values)
    axes = Axes(span, span, *labels)
    points = [(b.predicted, b.observed) for b in bins]
    parts = [axes.drawn(), _path(axes, [(span[0],) * 2, (span[1],) * 2], "ideal")]
    parts.append(_path(axes, points, "candidate thin"))
    for b in bins:
        said = f"predicted {number(b.predicted)}, observed {number(b.observed)}, {b.n:,} rows"
        parts.append(_dot(axes, b.predicted, b.observed, 4, said))
    return _svg(title, parts)


def scatter(title: str, rows: Curve) -> Markup:
    """Rows as dots over the line where prediction and observation agree."""
    span = _padded([*rows.x, *rows.y])
    axes = Axes(span, span, rows.x_label, rows.y_label)
    parts = [axes.drawn(), _path(axes, [(span[0],) * 2, (span[1],) * 2], "ideal")]
    parts += [_dot(axes, x, y, 2.5) for x, y in zip(rows.x, rows.y, strict=True)]
    return _svg(title, parts)


def histogram(title: str, candidate: Curve, champion: Curve | None) -> Markup:
    """Bars around ``x`` of heights ``y``; the champion as an outline. 0 is marked."""
    step = candidate.x[1] - candidate.x[0]
    span = (candidate.x[0] - step / 2, candidate.x[-1] + step / 2)
    highest = max([*candidate.y, *(champion.y if champion else ())])
    axes = Axes(span, (0, highest * 1.05), candidate.x_label, candidate.y_label)
    parts = [axes.drawn()]
    for x, y in zip(candidate.x, candidate.y, strict=True):
        left, top = axes.place(x - step * 0.46, y)
        right, bottom = axes.place(x + step * 0.46, 0)
        box = f'x="{left}" y="{top}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
        parts.append(Markup(f'<rect class="candidate" {box}/>'))
    if span[0] < 0 < span[1]:
        parts.append(_path(axes, [(0, 0), (0, axes.y[1])], "ideal"))
    if champion is not None:
        steps = [
            (x + side * step / 2, y)
            for x, y in zip(champion.x, champion.y, strict=True)
            for side in (-1, 1)
        ]
        parts.append(_path(axes, steps, "champion"))
    return _svg(title, parts)


def interval(comparison: Comparison, scale: float) -> Markup:
    """A gain between its bounds on a line from -scale to scale, 0 marked.

    What lies outside is drawn at the edge.
    """
    width, middle = 140, 9

    def across(gain: float) -> str:
        share = max(-1.0, min(1.0, gain / scale)) if scale else 0.0
        return f"{width / 2 + share * (width / 2 - 6):.1f}"

    low, high = comparison.low, comparison.high
    side = "better" if low > 0 else "worse" if high < 0 else "unclear"
    return Markup(
        f'<svg class="interval" viewBox="0 0 {width} 18" aria-hidden="true">'
        f'<path class="zero" d="M{across(0)},0V18"/>'
        f'<path class="reach {side}" d="M{across(low)},{middle}H{across(high)}"/>'
        f'<circle class="{side}" cx="{across(comparison.gain)}" cy="{middle}" r="4"/></svg>'
    )


def _svg(title: str, parts: Iterable[Markup]) -> Markup:
    head = Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">')
    return head.format(_WIDTH, _HEIGHT, title) + Markup("").join(parts) + Markup("</svg>")


def _path(axes: Axes, points: Iterable[tuple[float, float]], css: str) -> Markup:
    return Markup('<polyline class="{}" points="{}"/>').format(
        css, " ".join(axes.at(x, y) for x, y in points)
    )


def _dot(axes: Axes, x: float, y: float, radius: float, said: str = "") -> Markup:
    across, down = axes.place(x, y)
    title = Markup("<title>{}</title>").format(said) if said else Markup("")
    return Markup('<circle class="candidate" cx="{}" cy="{}" r="{}">{}</circle>').format(
        across, down, radius, title
    )


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return Markup(f'<path class="{css}" d="M{x1:.1f},{y1:.1f}L{x2:.1f},{y2:.1f}"/>')


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
        f"{x:.1f}", f"{y:.1f}", anchor, text
    )


def _tick(value: float) -> str:
    return f"{value:,.6g}".replace("-", MINUS) if abs(value) > 1e-12 else "0"


def _share(value: float, span: Span) -> float:
    return (min(max(value, span[0]), span[1]) - span[0]) / (span[1] - span[0])


def _padded(values: Sequence[float]) -> Span:
    low, high = min(values), max(values)
    room = (high - low) * 0.04 or abs(high) * 0.04 or 1.0
    return low - room, high + room
