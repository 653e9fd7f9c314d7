"""The status page: what is served and how it fares, problems first.

One page without scripts that doesn't reload itself: whoever reads it keeps their place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.metadata import version as installed

from perennial.contracts.distribution import DISTRIBUTION
from perennial.contracts.metrics import METRICS
from perennial.reports.figures import number
from perennial.reports.pages import template
from perennial.reports.rollout_progress import standing
from perennial.serving.metrics import Metrics, Traffic
from perennial.serving.state import ModelState, ServiceState, VersionState

LATE_SECONDS = 60.0
"""A record of the log that waits longer than this for its table is a problem: a segment is sealed
after 5 seconds, and committed within a few more."""

_SHOWN = 3  # metrics of a version
_ORDER = {name: place for place, name in enumerate(METRICS)}
_COLOURS = 4  # of arms, in the template
_ARMS = {"pinned": "by number only", "shadow": "shadow, answers nobody"}


@dataclass(frozen=True, slots=True)
class _Row:
    """A version as the page shows it. ``colour`` is None for one that has no share."""

    version: VersionState
    traffic: Traffic
    colour: int | None

    @property
    def arm(self) -> str:
        return _ARMS.get(self.version.arm, self.version.arm)

    @property
    def metrics(self) -> list[tuple[str, float]]:
        """What the evaluation measured: the first few, in the order of the reports."""
        measured = [(n, value) for n, value in self.version.metrics.items() if value is not None]
        return sorted(measured, key=lambda one: (_ORDER.get(one[0], len(_ORDER)), one[0]))[:_SHOWN]


def render_status(state: ServiceState, metrics: Metrics, now: datetime | None = None) -> str:
    """The page, as HTML. ``now`` is the moment to which its durations reach: this one, unless
    given."""
    now = now or datetime.now(UTC)
    problems = list(problems_of(state))
    outcome = "failed" if not state.ready else "inconclusive" if problems else "passed"
    models = [(model, _rows(model, metrics)) for model in state.models]
    return template("perennial.serving", "status.html.j2").render(
        state=state,
        now=now,
        outcome=outcome,
        problems=problems,
        models=models,
        shadows=state.beside.shadows,
        predictions=sum(row.traffic.rows_per_minute for _, rows in models for row in rows),
        refusals=[
            (endpoint, _status(status), n) for (endpoint, status), n in metrics.refusals().items()
        ],
        release=installed(DISTRIBUTION),
        number=number,
        duration=duration,
        day=day,
        latency=latency,
        rate=rate,
        standing=standing,
        read_at=state.read_at or now,
        size=size,
        moment=moment,
    )


def problems_of(state: ServiceState) -> Iterator[str]:
    """What is wrong, each in a sentence, the worst first."""
    silent = [model.name for model in state.models if not any(v.weight for v in model.versions)]
    if not state.ready:
        if silent:
            what = f"no version answers for {', '.join(silent)}"
        elif state.log_problem:
            what = f"{state.log_problem}; the server's log says why"
        elif state.models:
            what = "the service is starting or stopping"
        else:
            what = "the registry has no model with a promoted version"
        yield f"Not ready for requests: {what}."
    elif silent:
        yield f"No version answers for {', '.join(silent)}."
    if state.registry_problem:
        yield (
            "The registry can't be read, so no change of routes is followed; what was served is "
            f"served on. {state.registry_problem}"
        )
    for model in state.models:
        if model.problem:
            yield f"{model.name}: the route in the registry is not followed. {model.problem}"
    yield from state.beside.problems
    lag = state.lag
    if lag.oldest_seconds > LATE_SECONDS:
        yield (
            f"The prediction log is behind: its oldest record has waited "
            f"{duration(lag.oldest_seconds)} for its table ({size(lag.bytes)} in "
            f"{lag.segments:,} segment{'' if lag.segments == 1 else 's'}). Nothing is lost while "
            "the disk has room; look whether the table's storage can be reached."
        )


def _rows(model: ModelState, metrics: Metrics) -> list[_Row]:
    """A model's versions: the champion, then by weight; what has no weight comes last."""
    ordered = sorted(
        model.versions, key=lambda v: (not v.weight, v.arm != "champion", -v.weight, -v.version)
    )
    return [
        _Row(version, metrics.traffic(model.name, version.version), _colour(place, version))
        for place, version in enumerate(ordered)
    ]


def _colour(place: int, version: VersionState) -> int | None:
    return place % _COLOURS if version.weight else None


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def duration(seconds: float) -> str:
    """A duration in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f}\u00a0s" if seconds < 10 else f"{seconds:.0f}\u00a0s"
    minutes = int(seconds // 60)
    return _two((minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min"))


def _two(*units: tuple[int, str]) -> str:
    first = next(place for place, (n, _) in enumerate(units) if n)
    shown = units[first : first + 2]
    return " ".join(f"{n}\u00a0{unit}" for n, unit in shown if n)


def rate(per_minute: float) -> str:
    """So many a minute: a decimal where they are few."""
    return f"{per_minute:,.0f}" if per_minute >= 10 else f"{per_minute:.1f}"


def latency(milliseconds: float | None) -> str:
    """Two digits, which is what the histogram knows; a dash where nothing was answered."""
    if milliseconds is None:
        return "–"
    told = f"{milliseconds:,.0f}" if milliseconds >= 10 else f"{milliseconds:.2g}"
    return f"{told}\u00a0ms"


def size(count: int) -> str:
    """Bytes in decimal units."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g}\u00a0{unit}"
        value /= 1000
    return f"{value:,.0f}\u00a0TB"


def moment(when: datetime) -> str:
    """A time to the second, UTC."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def day(when: datetime) -> str:
    """A date, UTC."""
    return f"{when.astimezone(UTC):%Y-%m-%d}"
