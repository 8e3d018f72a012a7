"""A request and the task it sends are one trace, which holds names and no values."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
import redis
import requests
from django.conf import settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from payments.models import WebhookEvent
from soulbox.spans import MAY_SAY, WithoutSecrets
from tests.local_stripe import API_KEY
from tests.payments.signed_events import PATH, SECRET, body_of, event
from tests.payments.test_webhooks_over_http import signed
from tests.processes import running, wait_until

HOST = "127.0.0.1"
QUERY_SECRET = "token-in-the-query"  # noqa: S105 - nobody's


class Collector(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP and keeps the spans, by service."""

    spans: ClassVar[list[tuple[str, Any]]] = []
    raw: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.raw.append(body)
        told = ExportTraceServiceRequest.FromString(body)
        for of_resource in told.resource_spans:
            named = {one.key: one.value.string_value for one in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                self.spans.extend((named["service.name"], span) for span in of_scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[str]:
    Collector.spans.clear()
    Collector.raw.clear()
    server = ThreadingHTTPServer((HOST, 0), Collector)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{HOST}:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def web(
    service_environment: Mapping[str, str], tmp_path: Path, collector: str
) -> Iterator[tuple[str, Path]]:
    """A web process and a worker that trace; return the first's address, and where both log."""
    # A hint of an earlier test would bring its worker to our event, in a trace of its own.
    with redis.Redis.from_url(settings.REDIS_URL) as broker:
        broker.flushdb()
    with socket.create_server((HOST, 0)) as probe:
        address = f"{HOST}:{probe.getsockname()[1]}"
    env = {
        **service_environment,
        "STRIPE_API_KEY": API_KEY,
        "STRIPE_API_BASE": f"http://{HOST}:9",
        "STRIPE_WEBHOOK_SECRET": SECRET,
        "LOG_FORMAT": "json",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_TRACES_SAMPLER": "",
    }
    gunicorn = ("-m", "gunicorn", "soulbox.wsgi", "--workers=1", "--no-control-socket")
    celery = ("-m", "celery", "--quiet", "-A", "soulbox", "worker", "-Q", "payments", "-c", "1")
    with ExitStack() as stack:
        for name, arguments in (("web", (*gunicorn, f"--bind={address}")), ("worker", celery)):
            stack.enter_context(running(*arguments, env=env, log=tmp_path / f"{name}.log"))
        wait_until(lambda: is_up(address), seconds=90, what="gunicorn")
        yield address, tmp_path


def is_up(address: str) -> bool:
    try:
        return requests.get(f"http://{address}/health", timeout=5).ok
    except requests.RequestException:
        return False


@pytest.mark.django_db(transaction=True)
def test_a_request_and_its_task_are_one_trace_without_a_value(web: tuple[str, Path]) -> None:
    address, logs = web
    body = body_of(event("evt_traced"))
    answer = requests.post(
        f"http://{address}{PATH}?secret={QUERY_SECRET}",
        data=body,
        headers={"Stripe-Signature": signed(body), "X-Request-ID": "traced-request"},
        timeout=30,
    )
    assert answer.status_code == 200
    assert WebhookEvent.objects.get().event_id == "evt_traced"

    def joined() -> bool:
        return any(span.name.startswith("run/") for span in of_trace(Collector.spans))

    wait_until(joined, seconds=90, what="the task's span")
    spans = of_trace(Collector.spans)
    by_id = {span.span_id: span for span in spans}
    [run] = [span for span in spans if span.name.startswith("run/")]
    sent = by_id[run.parent_span_id]
    asked = by_id[sent.parent_span_id]
    assert sent.name.startswith("apply_async/")
    assert "webhook" in asked.name
    assert {name for name, span in Collector.spans if span.trace_id == run.trace_id} == {
        "soulbox-web",
        "soulbox-worker",
    }
    assert any(span.name.startswith(("INSERT", "SELECT")) for span in spans)
    # No value, no address, no argument.
    said = {one.key for span in spans for one in span.attributes}
    assert said <= MAY_SAY
    assert not [raw for raw in Collector.raw if QUERY_SECRET.encode() in raw]
    assert not [raw for raw in Collector.raw if b"evt_traced" in raw]
    assert not [span for _, span in Collector.spans if span.name.endswith("health")]
    # What is logged meanwhile says in which trace; the task's end is after its span's.
    wait_until(
        lambda: run.trace_id.hex() in traces_told(logs / "worker.log"),
        seconds=30,
        what="a line of the task in the worker's log",
    )


def traces_told(log: Path) -> set[str]:
    """Return the traces that a log speaks of."""
    # Its last line may still be on its way.
    lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("}\n")]
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return {line["trace_id"] for line in told if "trace_id" in line}


def of_trace(spans: list[tuple[str, Any]]) -> list[Any]:
    """Return the spans of the trace in which the webhook came."""
    traces = {span.trace_id for _, span in spans if span.name.startswith("POST")}
    return [span for _, span in spans if span.trace_id in traces]


def test_a_span_keeps_names_and_no_values() -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(WithoutSecrets(kept)))
    tracer = provider.get_tracer("tests")
    with suppress(ValueError), tracer.start_as_current_span("SELECT whsec_abcdef") as span:
        span.set_attribute("db.statement", "SELECT 1 FROM key WHERE key = 'sk_live_abc123'")
        span.set_attribute("http.url", "https://billing.example/password/MQ/token")
        span.set_attribute("celery.args", "('ada@example.com',)")
        span.add_event("asked", {"exception.message": "4242424242424242"})
        raise ValueError("card 4242424242424242")
    [told] = kept.get_finished_spans()
    text = told.to_json()
    for secret in ("4242", "sk_live", "whsec_", "token", "ada@", "password"):
        assert secret not in text, secret
    assert told.attributes == {"db.statement": "SELECT 1 FROM key WHERE key = '[hidden]'"}


def test_without_an_endpoint_nothing_of_it_is_imported(
    service_environment: Mapping[str, str],
) -> None:
    code = (
        "import sys, soulbox.wsgi, soulbox.celery as c; from celery import signals\n"
        "signals.worker_process_init.send(None)\n"
        "print([name for name in sys.modules if name.startswith(tuple(sys.argv[1:]))])"
    )
    # Redis' client looks for OpenTelemetry's metrics by itself, and imports them.
    ours = ("opentelemetry.instr", "opentelemetry.exp", "opentelemetry.sdk.trace", "soulbox.spans")
    done = subprocess.run(
        [sys.executable, "-c", code, *ours],
        env={**service_environment, "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
