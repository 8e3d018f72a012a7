"""What a monitor reads at /metrics: counts of our own, nothing about any one account."""

from __future__ import annotations

from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from billing.adjustments import Unbilled
from billing.conservation_queries import mismatch_count
from billing.queries import unbilled_late_counts, unpriced_counts
from billing.rating import BY_DESIGN, Unpriced
from metering.meters import Meter
from soulbox.payment_metrics import Payments


class UnpricedUsage(Collector):
    """How many accounts have usage in an open period that no price was found for.

    Zeros are told too: a series that goes away is no sign that all is well again.
    """

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauge, as of the last look at each account."""
        gauge = GaugeMetricFamily(
            "soulbox_unpriced_usage_accounts",
            "Accounts with usage in an open period that has no price, by meter and reason.",
            labels=["meter", "reason"],
        )
        counts = {(meter, reason): count for meter, reason, count in unpriced_counts()}
        for meter in Meter:
            for reason in Unpriced:
                gauge.add_metric([meter.value, reason.value], counts.get((meter, reason), 0))
        yield gauge


class UnbilledLateUsage(Collector):
    """How many accounts have late usage that no invoice can ask for. Zeros are told too."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauge, as of the last look at each account."""
        gauge = GaugeMetricFamily(
            "soulbox_unbilled_late_usage_accounts",
            "Accounts with late usage that no invoice can ask for, by meter and reason.",
            labels=["meter", "reason"],
        )
        counts = {(meter, reason): count for meter, reason, count in unbilled_late_counts()}
        for meter in Meter:
            for reason in (*Unbilled, *(why for why in Unpriced if why not in BY_DESIGN)):
                gauge.add_metric([meter.value, reason.value], counts.get((meter, reason), 0))
        yield gauge


class InvoiceMismatches(Collector):
    """How many final invoices do not add up, as of the last look at each."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauge. Anything above zero is an alert."""
        yield GaugeMetricFamily(
            "soulbox_invoice_mismatches",
            "Final invoices that do not add up, from counters to the amount due.",
            value=mismatch_count(),
        )


# Not the library's own registry, which also tells about the process that happens to answer.
_REGISTRY = CollectorRegistry()
_REGISTRY.register(UnpricedUsage())
_REGISTRY.register(InvoiceMismatches())
_REGISTRY.register(UnbilledLateUsage())
_REGISTRY.register(Payments())


@require_safe
def metrics(_request: HttpRequest) -> HttpResponse:
    """Return the metrics in the text format of Prometheus."""
    return HttpResponse(generate_latest(_REGISTRY), content_type=CONTENT_TYPE_LATEST)
