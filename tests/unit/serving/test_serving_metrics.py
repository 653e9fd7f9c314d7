"""What the service counts."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import version

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from perennial.contracts.serving import SpoolLag
from perennial.serving.beside import Shadow
from perennial.serving.histograms import SECONDS, Histogram, quantile_ms
from perennial.serving.metrics import Metrics

NOTHING_WAITS = SpoolLag(0, 0, 0.0)


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def scraped(metrics: Metrics, lag: SpoolLag = NOTHING_WAITS) -> dict[str, float]:
    """Samples by name and labels, as Prometheus' own parser reads them."""
    text = metrics.render(lag).decode()
    return {
        _key(sample.name, sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _key(name: str, labels: Iterable[tuple[str, str]]) -> str:
    inner = ",".join(f"{k}={v}" for k, v in sorted(labels))
    return f"{name}{{{inner}}}" if inner else name


def test_an_answered_request_is_counted_by_model_version_and_arm() -> None:
    metrics = Metrics()
    metrics.answered("churn", 3, "champion", rows=2, seconds=0.003)
    metrics.answered("churn", 3, "champion", rows=5, seconds=0.020)
    metrics.answered("churn", 4, "challenger", rows=1, seconds=0.001)

    found = scraped(metrics)

    champion = "{arm=champion,model=churn,version=3}"
    assert found[f"perennial_requests_total{champion}"] == 2
    assert found[f"perennial_rows_total{champion}"] == 7
    assert found[f"perennial_request_duration_seconds_count{champion}"] == 2
    assert found[f"perennial_request_duration_seconds_sum{champion}"] == pytest.approx(0.023)
    assert found["perennial_requests_total{arm=challenger,model=churn,version=4}"] == 1


def test_a_bucket_holds_all_that_took_no_longer_than_its_bound() -> None:
    metrics = Metrics()
    for seconds in (0.00005, 0.0025, 0.00250001, 10.0, 99.0):
        metrics.answered("churn", 1, "champion", 1, seconds)

    found = scraped(metrics)

    def upto(bound: str) -> float:
        labels = f"{{arm=champion,le={bound},model=churn,version=1}}"
        return found[f"perennial_request_duration_seconds_bucket{labels}"]

    assert [upto(b) for b in ("0.0001", "0.0025", "0.005", "10.0", "+Inf")] == [1, 2, 3, 4, 5]


def test_batches_are_counted_by_rows_and_unseen_categories_by_feature() -> None:
    metrics = Metrics()
    metrics.batch("churn", 1, rows=16, seconds=0.002, unseen={"plan": 3})
    metrics.batch("churn", 1, rows=1, seconds=0.001, unseen={})
    metrics.batch("churn", 1, rows=2, seconds=0.001, unseen={"plan": 1, "region": 2})

    found = scraped(metrics)

    assert found["perennial_batch_rows_bucket{le=2.0,model=churn,version=1}"] == 2
    assert found["perennial_batch_rows_sum{model=churn,version=1}"] == 19
    assert found["perennial_batch_duration_seconds_count{model=churn,version=1}"] == 3
    unseen = "perennial_unseen_categories_total"
    assert found[f"{unseen}{{feature=plan,model=churn,version=1}}"] == 4
    assert found[f"{unseen}{{feature=region,model=churn,version=1}}"] == 2


def test_the_state_of_log_and_routes_is_that_of_the_moment() -> None:
    metrics = Metrics()
    metrics.route("churn", 7)
    metrics.route_problem("churn", True)
    first = scraped(metrics, SpoolLag(segments=2, bytes=4096, oldest_seconds=12.5))
    metrics.route("churn", 8)
    metrics.route_problem("churn", False)
    second = scraped(metrics)

    names = [
        "perennial_route_generation{model=churn}",
        "perennial_route_problem{model=churn}",
        "perennial_log_lag_seconds",
        "perennial_log_waiting_bytes",
        "perennial_log_waiting_segments",
    ]
    assert [first[name] for name in names] == [7, 1, 12.5, 4096, 2]
    assert [second[name] for name in names] == [8, 0, 0, 0, 0]


def test_paths_taken_for_endpoints_make_no_more_than_65_time_series() -> None:
    metrics = Metrics()
    metrics.refused("/models/{name}/predict", 404)
    for n in range(1000):
        metrics.refused(f"/models/{n}/predict", 404)
    metrics.refused("/models/{name}/predict", 404)

    series = {name: n for name, n in scraped(metrics).items() if "refused" in name}

    assert len(series) == 65
    assert sum(series.values()) == 1002
    labels = "{endpoint=/models/{name}/predict,model=,status=404,version=}"
    assert series[f"perennial_refused_total{labels}"] == 2


def test_names_that_hold_quotes_and_line_breaks_are_read_back_as_they_are() -> None:
    metrics = Metrics()
    feature = 'a "b"\\\nc'
    metrics.batch("churn", 1, 1, 0.001, {feature: 1})

    key = f"perennial_unseen_categories_total{{feature={feature},model=churn,version=1}}"

    assert scraped(metrics)[key] == 1


def test_what_shadows_counted_in_their_own_process_is_told() -> None:
    text = Metrics().render(NOTHING_WAITS, [Shadow("churn", 4, 120, 3, 0.5, "no column")]).decode()

    assert 'perennial_shadow_rows_total{model="churn",version="4"} 120.0' in text
    assert 'perennial_shadow_failed_rows_total{model="churn",version="4"} 3.0' in text


def test_what_is_running_is_told() -> None:
    [build] = [name for name in scraped(Metrics()) if name.startswith("perennial_build_info")]

    python = platform.python_version()
    versions = f"version={version('perennial-ml')},xgboost={version('xgboost')}"
    assert build == f"perennial_build_info{{python={python},{versions}}}"


def test_two_services_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.answered("churn", 1, "champion", 1, 0.001)

    assert other.traffic("churn", 1).requests == 0
    assert not [name for name in scraped(other) if name.startswith("perennial_requests")]


def test_traffic_joins_the_arms_of_a_version_and_tells_whose_mistakes_the_errors_were() -> None:
    metrics = Metrics(Clock())
    metrics.answered("churn", 3, "champion", 2, 0.001)
    metrics.answered("churn", 3, "pinned", 1, 0.001)
    metrics.answered("churn", 4, "challenger", 1, 0.001)
    metrics.refused("/models/{name}/predict", 422, "churn", 3)
    metrics.refused("/models/{name}/predict", 400)
    metrics.refused("/v2/models/{name}/infer", 503, "churn", 3)
    metrics.refused("/v2/models/{name}/infer", 500, "churn", 4)

    traffic = metrics.traffic("churn", 3)

    assert (traffic.requests, traffic.rows, traffic.refused, traffic.errors) == (2, 3, 1, 1)
    assert metrics.refusals() == {
        ("/models/{name}/predict", 400): 1,
        ("/models/{name}/predict", 422): 1,
        ("/v2/models/{name}/infer", 500): 1,
        ("/v2/models/{name}/infer", 503): 1,
    }


def test_traffic_of_a_version_that_answered_nothing_is_nothing() -> None:
    traffic = Metrics().traffic("churn", 1)

    assert (traffic.requests, traffic.rate_per_minute, traffic.p50_ms) == (0, 0.0, None)


def test_rate_and_percentiles_are_of_the_last_minute_only() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    for _ in range(300):
        clock.now += 1
        metrics.answered("churn", 1, "champion", 1, 1.0)
    for _ in range(60):
        clock.now += 1
        metrics.answered("churn", 1, "champion", 1, 0.001)
        metrics.answered("churn", 1, "pinned", 4, 0.001)

    traffic = metrics.traffic("churn", 1)

    assert traffic.requests == 420
    assert traffic.rate_per_minute == pytest.approx(120, rel=0.05)
    assert traffic.rows_per_minute == pytest.approx(300, rel=0.05)
    assert traffic.p99_ms is not None
    assert traffic.p99_ms <= 1.0


def test_a_minute_without_requests_empties_the_rate() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.answered("churn", 1, "champion", 1, 0.001)
    clock.now += 61

    assert metrics.traffic("churn", 1).rate_per_minute == 0
    assert metrics.traffic("churn", 1).p50_ms is None

    metrics.answered("churn", 1, "champion", 1, 0.001)

    assert metrics.traffic("churn", 1).rate_per_minute == pytest.approx(1, rel=0.1)


def test_the_rate_of_a_young_service_is_over_its_age() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    for _ in range(20):
        metrics.answered("churn", 1, "champion", 1, 0.001)
        clock.now += 0.5

    assert metrics.traffic("churn", 1).rate_per_minute == pytest.approx(120, rel=0.05)


@given(
    st.lists(st.floats(min_value=1.001e-4, max_value=9.9), min_size=1, max_size=200),
    st.sampled_from([0.5, 0.9, 0.99]),
)
@settings(deadline=None, max_examples=50)
def test_a_percentile_is_within_15_percent_of_the_exact_one(values: list[float], q: float) -> None:
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.observe(value)

    found = quantile_ms(histogram.counts, q)

    exact = 1e3 * float(np.quantile(values, q, method="inverted_cdf"))
    assert found is not None
    assert exact / 1.15 <= found <= exact * 1.15  # 1.6 to 1.4, the widest step, is 1.143


def test_a_percentile_beyond_the_last_bound_is_that_bound() -> None:
    histogram = Histogram(SECONDS)
    histogram.observe(60.0)

    assert quantile_ms(histogram.counts, 0.5) == 10_000.0
