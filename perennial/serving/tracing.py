"""OpenTelemetry traces, where OpenTelemetry's own environment variables ask for them.

A request is a server span, the child of the caller's when it sent a ``traceparent``. A batch is one
span, for it is computed once: a child of the first of its requests, with links to the others and
from them. Without the settings nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed
from logging import getLogger
from threading import Thread
from time import perf_counter, time_ns
from typing import TYPE_CHECKING

from perennial.contracts.distribution import DISTRIBUTION, pip_install
from perennial.contracts.errors import InputError, Problem

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

Headers = Mapping[bytes, bytes]

CLOSE_SECONDS = 5.0
"""How long a collector may take to accept the last spans when the service stops."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_EXPORTER = "OTEL_TRACES_EXPORTER"


def from_environment() -> Tracing | None:
    """Traces as the environment asks for them; None when it doesn't.

    It does by an OTLP endpoint, or by OTEL_TRACES_EXPORTER=otlp. Everything else (service name,
    sampler, propagators, headers, limits) is read from OTEL_… by OpenTelemetry itself. Raises
    InputError for an exporter or a protocol that is not there, and for settings that OpenTelemetry
    would refuse.
    """
    addressed = any(os.environ.get(name) for name in _ENDPOINTS)
    exporter = os.environ.get(_EXPORTER) or ("otlp" if addressed else "none")
    if exporter == "none" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if exporter != "otlp":
        what = f"{exporter!r} is not an exporter of the service"
        raise InputError(Problem(_EXPORTER, what, "use otlp or none"))
    for name in _PROTOCOLS:
        protocol = os.environ.get(name) or "http/protobuf"
        if protocol != "http/protobuf":
            what = f"{protocol!r} is not a protocol of the service"
            raise InputError(Problem(name, what, "use http/protobuf"))
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        _check_headers()
        return Tracing(OTLPSpanExporter())
    except ModuleNotFoundError as error:
        what = f"asked for by the environment, but there is no module {error.name}"
        raise InputError(Problem("tracing", what, pip_install("otel"))) from None
    except ValueError as error:
        what = f"OpenTelemetry can't use its settings: {str(error).rstrip('.')}"
        raise InputError(Problem("tracing", what, "look over the variables OTEL_…")) from None


def _check_headers() -> None:
    """OpenTelemetry goes on without a header that it can't read, and writes it to the log, which
    may be a collector's key."""
    from opentelemetry.util.re import parse_env_headers

    getLogger("opentelemetry.util.re").addFilter(lambda _: False)
    for name in _HEADERS:
        entries = [entry for entry in os.environ.get(name, "").split(",") if entry.strip()]
        for place, entry in enumerate(entries):
            if not parse_env_headers(entry, liberal=True):
                what = f"header {place + 1} of {len(entries)} is not name=value"
                fix = "separate headers by commas; write other signs as %20"
                raise InputError(Problem(name, what, fix))


class Tracing:
    """The spans of one service. Moments are ``perf_counter`` seconds."""

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry import propagate, trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._exporter = exporter
        self._provider = TracerProvider(resource=_resource())
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("perennial.serving", installed(DISTRIBUTION))
        self._trace = trace
        self._propagator = propagate.get_global_textmap()
        self._fields = [(name, name.lower().encode()) for name in self._propagator.fields]

    def request(self, method: str, route: str, headers: Headers, received: float) -> Span:
        """Begin the span of a request. ``route`` is the path's template."""
        carrier = {
            name: headers[raw].decode("latin-1") for name, raw in self._fields if raw in headers
        }
        return self._tracer.start_span(
            f"{method} {route}",
            context=self._propagator.extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
            start_time=_epoch_ns(received),
        )

    def batch(
        self,
        model: str,
        version: int,
        rows: int,
        started: float,
        ended: float,
        requests: Sequence[Span],
    ) -> None:
        """The span of a batch that was computed for some requests; none when none is sampled."""
        recording = [span for span in requests if span.is_recording()]
        if not recording:
            return
        first, *others = recording
        span = self._tracer.start_span(
            "batch",
            context=self._trace.set_span_in_context(first),
            attributes={
                "perennial.model": model,
                "perennial.version": version,
                "perennial.rows": rows,
                "perennial.requests": len(requests),
            },
            links=[self._trace.Link(other.get_span_context()) for other in others],
            start_time=_epoch_ns(started),
        )
        for other in others:
            other.add_link(span.get_span_context())
        span.end(_epoch_ns(ended))

    def end(
        self,
        span: Span,
        status: int,
        request_id: str,
        model: str = "",
        answered: Sequence[tuple[int, str]] = (),
    ) -> None:
        """End the span of a request. ``answered`` are version and arm, one or more."""
        if span.is_recording():
            span.set_attribute("http.response.status_code", status)
            span.set_attribute("perennial.request_id", request_id)
            if model:
                span.set_attribute("perennial.model", model)
            if len(answered) == 1:
                [(version, arm)] = answered
                span.set_attribute("perennial.version", version)
                span.set_attribute("perennial.arm", arm)
            elif answered:
                span.set_attribute("perennial.version", [version for version, _ in answered])
                span.set_attribute("perennial.arm", [arm for _, arm in answered])
            if status >= 500:
                span.set_attribute("error.type", str(status))
                span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Send what is left, for CLOSE_SECONDS at most: a collector that is away would hold up the
        end of the service for half a minute."""
        sending = Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        sending.start()
        sending.join(CLOSE_SECONDS)
        if sending.is_alive():
            self._exporter.shutdown()  # which ends its waiting for another try
            sending.join(1.0)


def _resource() -> Resource:
    from opentelemetry.sdk.resources import Resource

    about = {"service.version": installed(DISTRIBUTION)}
    named = "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not named and not os.environ.get("OTEL_SERVICE_NAME"):
        about["service.name"] = "perennial"
    return Resource.create(about)


def _epoch_ns(moment: float) -> int:
    return time_ns() - int(1e9 * (perf_counter() - moment))
