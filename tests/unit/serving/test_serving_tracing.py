"""Traces, as a collector that speaks OTLP over HTTP receives them."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import perf_counter, time_ns
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from perennial.contracts.errors import InputError
from perennial.serving import tracing

ROUTE = "/models/{name}/predict"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Receives what is exported."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str | None, ExportTraceServiceRequest]] = []

    @property
    def spans(self) -> dict[str, Any]:
        """All spans by name; names are told apart by the tests."""
        return {
            span.name: span
            for _, _, request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }

    @property
    def resource(self) -> dict[str, Any]:
        return attributes(self.requests[0][2].resource_spans[0].resource)


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        message = ExportTraceServiceRequest.FromString(body)
        self.server.requests.append((self.path, self.headers["x-team"], message))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def attributes(owner: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in owner.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, and an environment that sends traces there."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def traces() -> Iterator[tracing.Tracing]:
    """Traces by the environment; all are sent at the end."""
    found = tracing.from_environment()
    assert found is not None
    yield found
    found.close()


def test_a_request_is_a_server_span_that_says_what_answered_it(collector: Collector) -> None:
    before, received = time_ns(), perf_counter()
    with traces() as tracer:
        span = tracer.request("POST", ROUTE, {b"host": b"localhost"}, received)
        tracer.end(span, 200, "r-1", "churn", [(3, "champion")])

    found = collector.spans[f"POST {ROUTE}"]

    assert found.kind == found.SPAN_KIND_SERVER
    assert found.parent_span_id == b""
    assert attributes(found) == {
        "http.request.method": "POST",
        "http.route": ROUTE,
        "http.response.status_code": 200,
        "perennial.request_id": "r-1",
        "perennial.model": "churn",
        "perennial.version": 3,
        "perennial.arm": "champion",
    }
    assert abs(found.start_time_unix_nano - before) < 1e9
    assert found.start_time_unix_nano <= found.end_time_unix_nano
    assert collector.resource["service.name"] == "perennial"


def test_a_traceparent_makes_the_request_a_child_of_its_callers_span(collector: Collector) -> None:
    headers = {b"traceparent": f"00-{TRACE}-{PARENT}-01".encode(), b"tracestate": b"vendor=1"}
    with traces() as tracer:
        tracer.end(tracer.request("POST", ROUTE, headers, perf_counter()), 200, "r-1")

    found = collector.spans[f"POST {ROUTE}"]

    assert found.trace_id.hex() == TRACE
    assert found.parent_span_id.hex() == PARENT
    assert found.trace_state == "vendor=1"


@pytest.mark.parametrize("parent", [b"", b"00-xyz", b"\xff\xfe", b"00-" + b"0" * 32 + b"-1-01"])
def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(
    collector: Collector, parent: bytes
) -> None:
    with traces() as tracer:
        span = tracer.request("POST", ROUTE, {b"traceparent": parent}, perf_counter())
        tracer.end(span, 200, "r-1")

    assert collector.spans[f"POST {ROUTE}"].parent_span_id == b""


def test_a_batch_is_one_span_linked_with_every_request_it_was_computed_for(
    collector: Collector,
) -> None:
    started = perf_counter()
    with traces() as tracer:
        requests = [tracer.request("POST", f"/{n}", {}, started) for n in range(3)]
        tracer.batch("churn", 3, 5, started, started + 0.25, requests)
        for n, span in enumerate(requests):
            tracer.end(span, 200, f"r-{n}", "churn", [(3, "champion"), (4, "challenger")])

    batch = collector.spans["batch"]
    first, second, third = (collector.spans[f"POST /{n}"] for n in range(3))

    assert (batch.trace_id, batch.parent_span_id) == (first.trace_id, first.span_id)
    assert [link.span_id for link in batch.links] == [second.span_id, third.span_id]
    assert [[link.span_id for link in span.links] for span in (first, second, third)] == [
        [],
        [batch.span_id],
        [batch.span_id],
    ]
    assert batch.end_time_unix_nano - batch.start_time_unix_nano == pytest.approx(25e7, rel=0.1)
    assert attributes(batch) == {
        "perennial.model": "churn",
        "perennial.version": 3,
        "perennial.rows": 5,
        "perennial.requests": 3,
    }
    assert attributes(first)["perennial.version"] == [3, 4]
    assert attributes(first)["perennial.arm"] == ["champion", "challenger"]


def test_what_its_caller_did_not_sample_is_not_sent(collector: Collector) -> None:
    unsampled = {b"traceparent": f"00-{TRACE}-{PARENT}-00".encode()}
    with traces() as tracer:
        quiet = tracer.request("POST", "/quiet", unsampled, perf_counter())
        loud = tracer.request("POST", "/loud", {}, perf_counter())
        tracer.batch("churn", 3, 1, perf_counter(), perf_counter(), [quiet])
        for span in (quiet, loud):
            tracer.end(span, 200, "r-1")

    assert list(collector.spans) == ["POST /loud"]


def test_only_the_services_own_failures_are_errors(collector: Collector) -> None:
    with traces() as tracer:
        for status in (422, 503):
            span = tracer.request("POST", f"/{status}", {}, perf_counter())
            tracer.end(span, status, "r-1")

    mistake, failure = (collector.spans[f"POST /{status}"] for status in (422, 503))

    assert (mistake.status.code, failure.status.code) == (0, failure.status.STATUS_CODE_ERROR)
    assert attributes(failure)["error.type"] == "503"
    assert "error.type" not in attributes(mistake)


def test_opentelemetrys_own_settings_hold(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "scores")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=risk")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    with traces() as tracer:
        tracer.end(tracer.request("POST", ROUTE, {}, perf_counter()), 200, "r-1")

    [(path, team, _)] = collector.requests
    assert (path, team) == ("/v1/traces", "risk")
    assert collector.resource["service.name"] == "scores"

    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with traces() as tracer:
        tracer.end(tracer.request("POST", ROUTE, {}, perf_counter()), 200, "r-2")

    assert len(collector.requests) == 1


def test_a_collector_that_is_away_holds_up_neither_requests_nor_the_end(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", nobody)
    monkeypatch.setattr(tracing, "CLOSE_SECONDS", 0.1)
    tracer = tracing.from_environment()
    assert tracer is not None
    for n in range(3000):
        tracer.end(tracer.request("POST", ROUTE, {}, perf_counter()), 200, f"r-{n}")

    closing = threading.Thread(target=tracer.close, daemon=True)
    closing.start()
    closing.join(15)  # by itself OpenTelemetry takes 30 s

    assert not closing.is_alive()


@pytest.mark.parametrize(
    "settings",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
@pytest.mark.usefixtures("collector")
def test_without_the_setting_there_are_no_traces(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    assert tracing.from_environment() is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "OTEL_TRACES_EXPORTER",
            "zipkin",
            "OTEL_TRACES_EXPORTER: 'zipkin' is not an exporter of the service (use otlp or none)",
        ),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' is not a protocol of the service "
            "(use http/protobuf)",
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "x-team=risk, x-api-key hiddensecret123",
            "OTEL_EXPORTER_OTLP_HEADERS: header 2 of 2 is not name=value "
            "(separate headers by commas; write other signs as %20)",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "hiddensecret123",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS: header 1 of 1 is not name=value "
            "(separate headers by commas; write other signs as %20)",
        ),
        (
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "0",
            "tracing: OpenTelemetry can't use its settings: max_queue_size must be a positive "
            "integer (look over the variables OTEL_…)",
        ),
        (
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
            "-3",
            "tracing: OpenTelemetry can't use its settings: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must "
            "be a non-negative integer but got -3 (look over the variables OTEL_…)",
        ),
    ],
)
@pytest.mark.usefixtures("collector")
def test_what_the_service_can_not_do_is_said_before_it_starts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv(name, value)

    with pytest.raises(InputError) as caught:
        tracing.from_environment()

    assert str(caught.value) == message
    assert "hidden" not in caplog.text


def test_opentelemetry_is_imported_only_where_it_is_asked_for() -> None:
    """And where it is asked for but not installed, the message says what to install."""
    code = """
import sys
from perennial.contracts.errors import InputError
from perennial.serving import tracing

assert tracing.from_environment() is None
assert not [name for name in sys.modules if name.startswith("opentelemetry")]

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import os
os.environ["OTEL_TRACES_EXPORTER"] = "otlp"
try:
    tracing.from_environment()
except InputError as error:
    print(error)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert run.stdout.strip() == (
        "tracing: asked for by the environment, but there is no module opentelemetry "
        "(pip install 'perennial-ml[otel]')"
    )
