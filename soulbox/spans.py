"""What is traced, and what a span may say: names, routes and statements, never a value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status
from opentelemetry.util.types import AttributeValue

from soulbox import environment
from soulbox.logs import add_context, without_secrets

SERVICE = "soulbox"
NOT_TRACED = "/health$,/ready$,/metrics$"
"""Asked every few seconds, and about nothing."""
MAY_SAY = frozenset(
    {
        "celery.action",
        "celery.state",
        "celery.task_name",
        "db.name",
        "db.namespace",
        "db.operation.name",
        "db.query.text",
        "db.statement",
        "db.system",
        "db.system.name",
        "error.type",
        "exception.type",
        "http.method",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "http.status_code",
        "messaging.destination",
        "messaging.destination.name",
        "messaging.message.id",
        "messaging.message_id",
        "net.peer.name",
        "net.peer.port",
        "server.address",
        "server.port",
    }
)
"""All else is left out: addresses with tokens and queries, arguments, headers, who asked."""
LONGEST = 2_000
"""Characters of one attribute."""


class WithoutSecrets(SpanExporter):
    """Hands on of each span what it may say, and nothing else."""

    def __init__(self, to: SpanExporter) -> None:
        self._to = to

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans. They are of no use twice, so a failure is left to the caller."""
        return self._to.export([without_values(span) for span in spans])

    def shutdown(self) -> None:
        """Let go of the connection."""
        self._to.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return whether everything was sent."""
        return self._to.force_flush(timeout_millis)


def start(process: str) -> None:
    """Trace requests, tasks, statements, Redis and calls of others from now on. Safe to repeat."""
    global _started_in
    if _started_in == os.getpid():
        return
    is_fork, _started_in = _started_in is not None, os.getpid()
    if is_fork:
        # The provider makes its thread anew in a fork by itself, and what is wrapped stays so.
        return
    name = environment.text("OTEL_SERVICE_NAME") or f"{SERVICE}-{process}"
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(WithoutSecrets(OTLPSpanExporter())))
    trace.set_tracer_provider(provider)
    add_context(ids)
    DjangoInstrumentor().instrument(excluded_urls=NOT_TRACED)
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]  # has no annotations
    PsycopgInstrumentor().instrument()
    RedisInstrumentor().instrument()
    RequestsInstrumentor().instrument()


_started_in: int | None = None


def flush() -> None:
    """Send what waits."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.force_flush()


def ids() -> Mapping[str, str]:
    """Return the ids of the trace and span at work, for what is logged; nothing outside of one."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def without_values(span: ReadableSpan) -> ReadableSpan:
    """Return a copy of the span that says only what it may."""
    return ReadableSpan(
        name=without_secrets(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_may_say(span.attributes),
        events=[
            Event(event.name, _may_say(event.attributes), event.timestamp) for event in span.events
        ],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _may_say(attributes: Mapping[str, AttributeValue] | None) -> dict[str, AttributeValue]:
    return {
        name: without_secrets(value)[:LONGEST] if isinstance(value, str) else value
        for name, value in (attributes or {}).items()
        if name in MAY_SAY
    }
