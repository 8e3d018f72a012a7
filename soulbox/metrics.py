"""What a monitor reads at /metrics: counts of our own, nothing about any one account."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import ip_address
from math import inf
from threading import Lock

from django.conf import settings
from django.db import Error, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from billing.conservation_queries import mismatch_count
from soulbox.billing_metrics import Billing
from soulbox.canaries import ages
from soulbox.kept_metrics import Figures
from soulbox.metering_metrics import Metering
from soulbox.payment_metrics import Payments
from soulbox.process_metrics import OfProcesses
from soulbox.queue_metrics import BrokerQueues
from soulbox.usage_metrics import Usage

STATEMENT_TIME_MS = 3_000
"""So long one question to the database may take; a monitor gives up at ten seconds."""
WAITING_S = 5.0
"""So long a scrape waits for another one of this process."""

logger = logging.getLogger(__name__)


class InvoiceMismatches(Collector):
    """How many final invoices do not add up, as of the last look at each."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauge. Anything above zero is an alert."""
        yield GaugeMetricFamily(
            "soulbox_invoice_mismatches",
            "Final invoices that do not add up, from counters to the amount due.",
            value=mismatch_count(),
        )


class CanaryAges(Collector):
    """For how long no worker took the small task of each queue."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauge; of a queue whose canary never sang it is infinite."""
        gauge = GaugeMetricFamily(
            "soulbox_canary_age_seconds",
            "Time since a worker last took a queue's small task; beat sends one each 30 s.",
            labels=["queue"],
        )
        for queue, age in ages(now=datetime.now(UTC)).items():
            gauge.add_metric([queue], inf if age is None else age.total_seconds())
        yield gauge


_COLLECTORS: Mapping[str, Collector] = {
    "invoices that do not add up": InvoiceMismatches(),
    "payments": Payments(),
    "canaries": CanaryAges(),
    "metering": Metering(),
    "billing": Billing(),
    "queues": BrokerQueues(),
    "usage": Usage(),
    "figures": Figures(),
}


class FromTables(Collector):
    """All that is read from tables, so that every process tells the same.

    Of one moment, and ended by the database where it takes too long. What cannot be read is left
    out and told of; the rest is there.
    """

    def collect(self) -> Iterator[Metric]:
        """Yield what each collector does. Raises django.db.Error where there is no database."""
        up = GaugeMetricFamily(
            "soulbox_collector_up",
            "Whether a part of this could be read; its series are not there where it could not.",
            labels=["collector"],
        )
        families: list[Metric] = []
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = %s", [STATEMENT_TIME_MS])
            for name, collector in _COLLECTORS.items():
                try:
                    with transaction.atomic():
                        families += list(collector.collect())
                except Error:
                    logger.exception("metrics not read", extra={"collector": name})
                    up.add_metric([name], 0)
                else:
                    up.add_metric([name], 1)
        yield from families
        yield up


# Not the library's own registry, which also tells about the process that happens to answer.
_REGISTRY = CollectorRegistry()
_REGISTRY.register(FromTables())
_REGISTRY.register(OfProcesses())
_one_at_a_time = Lock()


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics in the text format of Prometheus, to who may read them."""
    if refusal := _refusal(request):
        return refusal
    # A second monitor waits for the first; a third scrape of one that hangs does not pile up.
    if not _one_at_a_time.acquire(timeout=WAITING_S):
        return _told(HTTPStatus.SERVICE_UNAVAILABLE, "Another scrape takes too long.")
    try:
        return HttpResponse(generate_latest(_REGISTRY), content_type=CONTENT_TYPE_LATEST)
    except Error:
        logger.exception("metrics not read")
        return _told(HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer.")
    finally:
        _one_at_a_time.release()


def _refusal(request: HttpRequest) -> HttpResponse | None:
    """Return why the request may not read figures of the whole business; None: it may."""
    if token := settings.METRICS_TOKEN:
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and constant_time_compare(shown.strip(), token):
            return None
        refusal = _told(
            HTTPStatus.UNAUTHORIZED, "Show what METRICS_TOKEN is: Authorization: Bearer TOKEN"
        )
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal
    if settings.EMBEDDED or _is_from_here(request):
        return None
    return _told(
        HTTPStatus.FORBIDDEN,
        "METRICS_TOKEN is not set, so only this machine may read this. Set it for the web "
        "processes, and show it: Authorization: Bearer TOKEN",
    )


def _is_from_here(request: HttpRequest) -> bool:
    # A proxy on this machine asks for somebody else.
    if "X-Forwarded-For" in request.headers or "Forwarded" in request.headers:
        return False
    try:
        return ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


def _told(status: HTTPStatus, text: str) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=status, content_type="text/plain; charset=utf-8")
