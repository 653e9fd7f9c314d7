"""What columns held before and after, each as an SVG that also stands alone, as an image.

Same input, same text. They bring their own colours, light and dark, and a ground of their own: the
page around them may be either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup, escape

from perennial.contracts.drift import Change
from perennial.reports.figures import percent

_WIDTH = 400
_ROW, _HEAD, _FOOT = 20, 34, 12
_LABEL, _FIGURES = 136, 126
_LONGEST = 17
_STYLE = """
.drift { font: 12px system-ui, sans-serif; }
.drift .ground { fill: #f7f8fa; } .drift text { fill: #4a5463; }
.drift .name { fill: #1c2330; font-weight: 600; font-size: 13px; }
.drift .before { fill: #9aa6b8; } .drift .after { fill: #2457c5; }
.drift.drifted .after, .drift.fault .after { fill: #b3261e; }
@media (prefers-color-scheme: dark) {
.drift .ground { fill: #1a2029; } .drift text { fill: #aab4c4; } .drift .name { fill: #e6eaf1; }
.drift .before { fill: #5b6575; } .drift .after { fill: #82a9ff; }
.drift.drifted .after, .drift.fault .after { fill: #ff8a80; } }
"""


def draw(
    pictures: Mapping[str, Sequence[Change]], outcomes: Mapping[str, str]
) -> dict[str, Markup]:
    """For each column a panel: the share of rows by value, in the reference (upper bars, grey) and
    in the window. ``outcomes`` say of a column what was found."""
    return {
        name: _panel(name, outcomes.get(name, "stable"), bars) for name, bars in pictures.items()
    }


def _panel(name: str, outcome: str, bars: Sequence[Change]) -> Markup:
    height = _HEAD + _ROW * len(bars) + _FOOT
    css = outcome if outcome in ("drifted", "fault") else "stable"
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="drift {}" viewBox="0 0 {} {}" width="{}" '
        'height="{}" role="img" aria-label="{}"><style>{}</style>'
    ).format(css, _WIDTH, height, _WIDTH, height, f"{name} before and after", Markup(_STYLE))
    ground = Markup('<rect class="ground" width="{}" height="{}" rx="8"/>').format(_WIDTH, height)
    return head + ground + Markup("").join(_drawn(name, outcome, bars)) + Markup("</svg>")


def _drawn(name: str, outcome: str, bars: Sequence[Change]) -> Iterator[Markup]:
    yield _text(12, 21, f"{_shortened(name, 34)}: {outcome}", "name")
    longest = max((share for bar in bars for share in (bar.before, bar.after)), default=0.0) or 1.0
    room = _WIDTH - _LABEL - _FIGURES - 12
    for number, bar in enumerate(bars):
        top = _HEAD + number * _ROW
        yield _text(_LABEL - 6, top + 12, _shortened(bar.values, _LONGEST), anchor="end")
        for css, share, above in (("before", bar.before, 2), ("after", bar.after, 9)):
            yield Markup('<rect class="{}" x="{}" y="{}" width="{}" height="6" rx="1"/>').format(
                css, _LABEL, top + above, f"{room * share / longest:.1f}"
            )
        figures = f"{percent(bar.before)} → {percent(bar.after)}"
        yield _text(_WIDTH - 10, top + 12, figures, anchor="end")


def _text(x: int, y: int, text: str, css: str = "", anchor: str = "start") -> Markup:
    return (
        Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">').format(x, y, css, anchor)
        + escape(text)
        + Markup("</text>")
    )


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
