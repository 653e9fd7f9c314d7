"""What the service counts, for Prometheus and for the status page alike.

Counting is part of every request, so it is a few additions on plain lists; only a scrape or a look
at the status page pays for making sense of them. (Labelled children of the client library cost
four times as much a request, and can't tell the last minute from the time since the start.)
"""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as installed
from itertools import accumulate
from time import monotonic

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from perennial.contracts.distribution import DISTRIBUTION
from perennial.contracts.serving import SpoolLag
from perennial.serving.beside import Shadow
from perennial.serving.histograms import SECONDS, Answers, Histogram, quantile_ms

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_MOST_ENDPOINTS = 64

# What Prometheus gets of the bounds: 1, 2.5 and 5 of each decade, and powers of two up to 65,536.
_TOLD_SECONDS = (*(float(f"{m}e{e}") for e in range(-6, -1) for m in (100, 250, 500)), 10.0)
_ROWS = tuple(float(2**power) for power in range(17))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one version did.

    ``requests`` and ``rows`` were answered, ``refused`` were the sender's mistakes (4xx) and
    ``errors`` the service's (5xx), all since the start. Rates and percentiles are of the last
    minute; percentiles are right to 15 %, and None when nothing was answered in it. A request whose
    rows went to several versions is one of each.
    """

    requests: int
    rows: int
    refused: int
    errors: int
    rate_per_minute: float
    rows_per_minute: float
    p50_ms: float | None
    p99_ms: float | None


class Metrics:
    """Counters of one service. All methods belong to the event loop's thread."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._answers: dict[tuple[str, int, str], Answers] = {}
        self._batches: dict[tuple[str, int], tuple[Histogram, Histogram]] = {}
        self._unseen: defaultdict[tuple[str, int, str], int] = defaultdict(int)
        self._refused: defaultdict[tuple[str, int, str, int], int] = defaultdict(int)
        self._endpoints: set[str] = set()
        self._generations: dict[str, int] = {}
        self._problems: dict[str, bool] = {}
        self._not_after: datetime | None = None
        self._lag = SpoolLag(0, 0, 0.0)
        self._shadows: Sequence[Shadow] = ()
        self._build = {
            "version": installed(DISTRIBUTION),
            "python": platform.python_version(),
            "xgboost": installed("xgboost"),
        }
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Exposition(self._families))
        ProcessCollector(registry=self._registry)

    def answered(self, model: str, version: int, arm: str, rows: int, seconds: float) -> None:
        """A request got its predictions; ``seconds`` since its first byte was read."""
        try:
            answers = self._answers[model, version, arm]
        except KeyError:
            answers = self._answers[model, version, arm] = Answers(self._clock)
        answers.add(rows, seconds)

    def refused(self, endpoint: str, status: int, model: str = "", version: int = 0) -> None:
        """A request got an error.

        ``endpoint`` is a route's template, never a path as it was asked for; were it one all the
        same, all beyond 64 would be "other". ``model`` and ``version`` (of what is served) are told
        when they were known by then: a version's own failures count against it.
        """
        if len(self._endpoints) < _MOST_ENDPOINTS:
            self._endpoints.add(endpoint)
        told = endpoint if endpoint in self._endpoints else "other"
        self._refused[told, status, model, version] += 1

    def batch(
        self, model: str, version: int, rows: int, seconds: float, unseen: Mapping[str, int]
    ) -> None:
        """A batch was computed. ``unseen`` are the rows, by feature, whose category training had
        not seen."""
        try:
            sizes, durations = self._batches[model, version]
        except KeyError:
            sizes, durations = Histogram(_ROWS), Histogram(SECONDS)
            self._batches[model, version] = sizes, durations
        sizes.observe(rows)
        durations.observe(seconds)
        for feature, count in unseen.items():
            self._unseen[model, version, feature] += count

    def route(self, model: str, generation: int) -> None:
        """The route that a model is served by."""
        self._generations[model] = generation

    def route_problem(self, model: str, problem: bool) -> None:
        """Whether a model's route in the registry could not be followed."""
        self._problems[model] = problem

    def certificate(self, not_after: datetime | None) -> None:
        """When the certificate that is served ends; None when that is not known."""
        self._not_after = not_after

    def traffic(self, model: str, version: int) -> Traffic:
        """What a version did, whichever arm it was."""
        answers = [a for (m, v, _), a in self._answers.items() if (m, v) == (model, version)]
        minutes = [one.last_minute() for one in answers]
        counts = [sum(place) for place in zip(*(m.counts for m, _ in minutes), strict=True)]
        per_minute = 60 / max([1.0, *(seconds for _, seconds in minutes)])
        statuses = [
            (status, n)
            for (_, status, m, v), n in self._refused.items()
            if (m, v) == (model, version)
        ]
        return Traffic(
            requests=sum(sum(one.histogram.counts) for one in answers),
            rows=sum(one.rows for one in answers),
            refused=sum(n for status, n in statuses if status < 500),
            errors=sum(n for status, n in statuses if status >= 500),
            rate_per_minute=per_minute * sum(counts),
            rows_per_minute=per_minute * sum(minute.rows for minute, _ in minutes),
            p50_ms=quantile_ms(counts, 0.5),
            p99_ms=quantile_ms(counts, 0.99),
        )

    def refusals(self) -> dict[tuple[str, int], int]:
        """All errors that were answered since the start, by endpoint and status."""
        totals: defaultdict[tuple[str, int], int] = defaultdict(int)
        for (endpoint, status, _, _), n in self._refused.items():
            totals[endpoint, status] += n
        return dict(sorted(totals.items()))

    def render(self, lag: SpoolLag, shadows: Sequence[Shadow] = ()) -> bytes:
        """Everything in Prometheus' text format, of type CONTENT_TYPE. ``shadows`` are what their
        own process has counted."""
        self._lag, self._shadows = lag, shadows
        return generate_latest(self._registry)

    def _families(self) -> Iterator[Metric]:
        yield from self._traffic_families()
        yield from self._batch_families()
        yield from self._shadow_families()
        yield from self._state_families()

    def _traffic_families(self) -> Iterator[Metric]:
        labels = ["model", "version", "arm"]
        requests = CounterMetricFamily(
            "perennial_requests", "Requests that got predictions.", labels=labels
        )
        rows = CounterMetricFamily("perennial_rows", "Rows that got predictions.", labels=labels)
        seconds = HistogramMetricFamily(
            "perennial_request_duration_seconds",
            "From a request's first byte to its answer, for requests that got predictions.",
            labels=labels,
        )
        for (model, version, arm), answers in self._answers.items():
            values = [model, str(version), arm]
            requests.add_metric(values, sum(answers.histogram.counts))
            rows.add_metric(values, answers.rows)
            _add(seconds, values, answers.histogram, _TOLD_SECONDS)
        refused = CounterMetricFamily(
            "perennial_refused",
            "Requests that got an error. Model and version are empty when it came before them.",
            labels=["endpoint", "status", "model", "version"],
        )
        for (endpoint, status, model, version), n in self._refused.items():
            told = str(version) if version else ""
            refused.add_metric([endpoint, str(status), model, told], n)
        yield from (requests, rows, seconds, refused)

    def _batch_families(self) -> Iterator[Metric]:
        labels = ["model", "version"]
        rows = HistogramMetricFamily(
            "perennial_batch_rows", "Rows that were computed together.", labels=labels
        )
        seconds = HistogramMetricFamily(
            "perennial_batch_duration_seconds", "What a batch took to compute.", labels=labels
        )
        for (model, version), (sizes, durations) in self._batches.items():
            _add(rows, [model, str(version)], sizes, _ROWS)
            _add(seconds, [model, str(version)], durations, _TOLD_SECONDS)
        unseen = CounterMetricFamily(
            "perennial_unseen_categories",
            "Rows whose category training had not seen, and which was taken as missing.",
            labels=[*labels, "feature"],
        )
        for (model, version, feature), n in self._unseen.items():
            unseen.add_metric([model, str(version), feature], n)
        yield from (rows, seconds, unseen)

    def _shadow_families(self) -> Iterator[Metric]:
        labels = ["model", "version"]
        rows = CounterMetricFamily(
            "perennial_shadow_rows", "Rows that a shadow version scored.", labels=labels
        )
        failed = CounterMetricFamily(
            "perennial_shadow_failed_rows",
            "Rows that a shadow version could not score.",
            labels=labels,
        )
        for shadow in self._shadows:
            values = [shadow.model, str(shadow.version)]
            rows.add_metric(values, shadow.rows)
            failed.add_metric(values, shadow.failed_rows)
        yield from (rows, failed)

    def _state_families(self) -> Iterator[Metric]:
        generation = GaugeMetricFamily(
            "perennial_route_generation", "The route that a model is served by.", labels=["model"]
        )
        for model, value in self._generations.items():
            generation.add_metric([model], value)
        problem = GaugeMetricFamily(
            "perennial_route_problem",
            "1 while a model's route in the registry can't be followed.",
            labels=["model"],
        )
        for model, broken in self._problems.items():
            problem.add_metric([model], float(broken))
        yield from (generation, problem)
        yield GaugeMetricFamily(
            "perennial_log_lag_seconds",
            "Age of the oldest logged record that is not in its table yet.",
            self._lag.oldest_seconds,
        )
        yield GaugeMetricFamily(
            "perennial_log_waiting_bytes", "Log that is not in its table yet.", self._lag.bytes
        )
        yield GaugeMetricFamily(
            "perennial_log_waiting_segments",
            "Files of the log that are not in their table yet.",
            self._lag.segments,
        )
        if self._not_after is not None:
            yield GaugeMetricFamily(
                "perennial_certificate_not_after_timestamp_seconds",
                "When the TLS certificate ends, in seconds since 1970.",
                self._not_after.timestamp(),
            )
        yield InfoMetricFamily("perennial_build", "What is running.", self._build)


class _Exposition(Collector):
    """What the client library asks for the metrics of the moment."""

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


def _add(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    histogram: Histogram,
    told: Sequence[float],
) -> None:
    """Add a histogram, by some of its bounds: counts up to each, as Prometheus wants them."""
    upto = dict(zip(histogram.bounds, accumulate(histogram.counts), strict=False))
    buckets = [(str(bound), upto[bound]) for bound in told]
    family.add_metric(labels, [*buckets, ("+Inf", sum(histogram.counts))], histogram.total)
