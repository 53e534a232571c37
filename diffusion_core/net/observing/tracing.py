"""OpenTelemetry traces, if they are wanted: a request, and in it queue, prefill and denoise of what the engine did.

Spans are made when a request has ended, from the times it was noted with: tracing costs nothing while it runs. They
hold figures, routes and ids, never a text. The name of the user is left out where metrics leave it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from diffusion_core.config import ServerConfig
from diffusion_core.errors import ConfigError
from diffusion_core.net.observing.access_log import QUIET_ROUTES, access_fields
from diffusion_core.net.observing.observation import Answer, Observation, Outcome
from diffusion_core.version import package_version

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter

# With retries; a receiver that is not there must not hold up the end of the server.
_EXPORT_TIMEOUT_S = 2.0


class Traces(Protocol):
    """What is told of every request that ended."""

    def record(self, observation: Observation) -> None:
        """Make its spans; must not block."""
        ...

    def close(self) -> None:
        """Send what is left; waits at most a few seconds."""
        ...


class NoTraces:
    """Traces that nobody wants."""

    def record(self, observation: Observation) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def make_traces(config: ServerConfig) -> Traces:
    """Traces to ``config.otlp_endpoint``, or none.

    Raises:
        ConfigError: an endpoint is given, but the package for it is not installed.
    """
    if not config.otlp_endpoint:
        return NoTraces()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(
            f"server.otlp_endpoint is set, but {error.name} is not installed: pip install 'unmask[otel]'"
        ) from None
    endpoint = config.otlp_endpoint.rstrip("/")
    # The address of a collector is enough; what an exporter posts to is below it.
    endpoint = endpoint if endpoint.endswith("/v1/traces") else f"{endpoint}/v1/traces"
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S)
    return OtlpTraces(exporter, with_users=config.metrics_users > 0)


class OtlpTraces:
    """Traces through an exporter, in batches, from a thread of their own."""

    def __init__(self, exporter: SpanExporter, *, with_users: bool = True) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # OTEL_RESOURCE_ATTRIBUTES and OTEL_TRACES_SAMPLER of the environment hold here as everywhere.
        resource = Resource.create({"service.name": "unmask", "service.version": package_version()})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("unmask", package_version())
        self._propagator = TraceContextTextMapPropagator()
        self._with_users = with_users

    def record(self, observation: Observation) -> None:
        """Make the spans of a request that ended."""
        if observation.route in QUIET_ROUTES:
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        carrier = {"traceparent": observation.traceparent} if observation.traceparent else {}
        span = self._tracer.start_span(
            f"{observation.method} {observation.route or '(no such path)'}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=self._attributes(observation),
            start_time=observation.began_ns,
        )
        if observation.outcome is Outcome.ERROR:
            span.set_status(Status(StatusCode.ERROR, observation.code))
        inside = set_span_in_context(span)
        for answer in observation.answers:
            self._record_phases(answer, inside)
        span.end(observation.ended_ns)

    def close(self) -> None:
        """Send what is left; waits at most a few seconds."""
        self._provider.shutdown()

    def _record_phases(self, answer: Answer, inside: Context) -> None:
        for name, begin_ns, end_ns in phases(answer):
            self._tracer.start_span(name, context=inside, start_time=begin_ns).end(end_ns)

    def _attributes(self, observation: Observation) -> dict[str, Any]:
        renamed = {
            "method": "http.request.method", "route": "http.route", "status": "http.response.status_code",
            "user": "user.name", "code": "error.type",
        }  # fmt: skip
        fields = access_fields(observation) | {"request_id": observation.request_id}
        if not self._with_users:
            fields.pop("user", None)
        return {renamed.get(name, f"unmask.{name}"): value for name, value in fields.items() if name != "ms"}


def phases(answer: Answer) -> Iterator[tuple[str, int, int]]:
    """Name, begin and end (nanoseconds since the epoch) of what the engine did for an answer, in order."""
    if answer.result is None:
        return
    timings, at = answer.result.timings, answer.began_ns
    for name, ms in (("queue", timings.queue_ms), ("prefill", timings.prefill_ms), ("denoise", timings.denoise_ms)):
        end = at + int(ms * 1e6)
        yield name, at, end
        at = end
