"""What columns held before and after, as one SVG that also stands alone, as an image.

Same input, same text. It brings its own colours, light and dark, and a ground of its own: the page
around it may be either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup, escape

from perennial.contracts.drift import Change
from perennial.reports.figures import percent

_PANEL, _GAP, _ACROSS = 400, 20, 2
_ROW, _HEAD, _FOOT = 20, 34, 12
_LABEL, _FIGURES = 136, 126
_LONGEST = 17
_STYLE = """
.drift { font: 12px system-ui, sans-serif; }
.drift .ground { fill: #f7f8fa; } .drift text { fill: #4a5463; }
.drift .name { fill: #1c2330; font-weight: 600; font-size: 13px; }
.drift .before { fill: #9aa6b8; } .drift .after { fill: #2457c5; }
.drift .drifted .after, .drift .fault .after { fill: #b3261e; }
@media (prefers-color-scheme: dark) {
.drift .ground { fill: #1a2029; } .drift text { fill: #aab4c4; } .drift .name { fill: #e6eaf1; }
.drift .before { fill: #5b6575; } .drift .after { fill: #82a9ff; }
.drift .drifted .after, .drift .fault .after { fill: #ff8a80; } }
"""


def draw(pictures: Mapping[str, Sequence[Change]], outcomes: Mapping[str, str]) -> Markup:
    """Panels, two side by side: for each column the share of rows by value, in the reference (upper
    bars, grey) and in the window. ``outcomes`` say of a column what was found. Empty for none."""
    if not pictures:
        return Markup("")
    names = list(pictures)
    lines = [names[at : at + _ACROSS] for at in range(0, len(names), _ACROSS)]
    parts, down = [], 0
    for line in lines:
        for across, name in enumerate(line):
            place = f"translate({across * (_PANEL + _GAP)},{down})"
            outcome = outcomes.get(name, "stable")
            css = outcome if outcome in ("drifted", "fault") else "stable"
            drawn = Markup("").join(_panel(name, outcome, pictures[name]))
            parts.append(Markup('<g transform="{}" class="{}">').format(place, css) + drawn)
            parts.append(Markup("</g>"))
        down += max(_height(pictures[name]) for name in line) + _GAP
    width, height = _ACROSS * _PANEL + (_ACROSS - 1) * _GAP, down - _GAP
    if len(names) == 1:
        width = _PANEL
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="drift" viewBox="0 0 {} {}" width="{}" '
        'height="{}" role="img" aria-label="{}"><style>{}</style>'
    ).format(width, height, width, height, "Values before and after", Markup(_STYLE))
    return head + Markup("").join(parts) + Markup("</svg>")


def _height(bars: Sequence[Change]) -> int:
    return _HEAD + _ROW * len(bars) + _FOOT


def _panel(name: str, outcome: str, bars: Sequence[Change]) -> Iterator[Markup]:
    yield Markup('<rect class="ground" width="{}" height="{}" rx="8"/>').format(
        _PANEL, _height(bars)
    )
    yield _text(12, 21, f"{_shortened(name, 34)}: {outcome}", "name")
    longest = max((share for bar in bars for share in (bar.before, bar.after)), default=0.0) or 1.0
    room = _PANEL - _LABEL - _FIGURES - 12
    for number, bar in enumerate(bars):
        top = _HEAD + number * _ROW
        yield _text(_LABEL - 6, top + 12, _shortened(bar.values, _LONGEST), anchor="end")
        for css, share, above in (("before", bar.before, 2), ("after", bar.after, 9)):
            yield Markup('<rect class="{}" x="{}" y="{}" width="{}" height="6" rx="1"/>').format(
                css, _LABEL, top + above, f"{room * share / longest:.1f}"
            )
        figures = f"{percent(bar.before)} → {percent(bar.after)}"
        yield _text(_PANEL - 10, top + 12, figures, anchor="end")


def _text(x: int, y: int, text: str, css: str = "", anchor: str = "start") -> Markup:
    return (
        Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">').format(x, y, css, anchor)
        + escape(text)
        + Markup("</text>")
    )


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
