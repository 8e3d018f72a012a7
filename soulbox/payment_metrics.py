"""What a monitor reads of payments: counts, ages in seconds and sums by currency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from payments import queries

PERIODS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "30d": timedelta(days=30)}


class Payments(Collector):
    """Whether money is collected, and what waits for a worker or a person. Zeros are told too."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges, as of now."""
        now = datetime.now(UTC)
        yield _by(
            "soulbox_payment_attempts_ended",
            "Payment attempts that ended in the last 24 h, by how.",
            "status",
            queries.attempts_ended(now),
        )
        yield _by(
            "soulbox_payment_attempts_failed",
            "Payment attempts that failed in the last 24 h, by the bank's or the provider's code.",
            "code",
            queries.attempts_failed(now),
        )
        rates = GaugeMetricFamily(
            "soulbox_payment_success_rate",
            "Share of the payment attempts that ended within the period that succeeded.",
            labels=["period"],
        )
        for period, rate in queries.success_rates(now, PERIODS).items():
            # There is no share of nothing.
            if rate is not None:
                rates.add_metric([period], float(rate))
        yield rates
        yield _by(
            "soulbox_collections",
            "Collections under way, and those that wait for a person.",
            "status",
            queries.collections_by_status(),
        )
        yield GaugeMetricFamily(
            "soulbox_payment_attempts_unknown",
            "Payment attempts that have no answer.",
            value=queries.unknown_attempts(),
        )
        yield GaugeMetricFamily(
            "soulbox_collection_step_due_seconds",
            "For how long the next step of a collection has been due.",
            value=queries.longest_due_s(now),
        )
        yield _by(
            "soulbox_webhook_events",
            "Webhook events that wait to be applied, and that were given up.",
            "status",
            queries.events_by_status(),
        )
        yield GaugeMetricFamily(
            "soulbox_webhook_event_waiting_seconds",
            "For how long a webhook event has waited to be applied.",
            value=queries.oldest_event_s(now),
        )
        yield from self._arrears()

    def _arrears(self) -> Iterator[GaugeMetricFamily]:
        yield _by(
            "soulbox_accounts_in_arrears",
            "Accounts that are past due or suspended.",
            "standing",
            queries.accounts_by_standing(),
        )
        yield GaugeMetricFamily(
            "soulbox_dunning_cases",
            "Invoices whose payment failed and that are dunned.",
            value=queries.open_dunning_cases(),
        )
        yield _by(
            "soulbox_payment_differences",
            "Differences between the payment provider and us that are open.",
            "kind",
            queries.open_differences(),
        )
        yield _by(
            "soulbox_refunds_waiting",
            "Refunds that wait: for a second person, to be sent, at the provider.",
            "status",
            queries.waiting_refunds(),
        )
        yield GaugeMetricFamily(
            "soulbox_platform_requests_waiting",
            "Requests to stop or resume sandboxes that the platform has not accepted.",
            value=queries.waiting_platform_requests(),
        )


def _by(
    name: str, text: str, label: str, values: Mapping[str, int] | Mapping[str, Decimal]
) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, text, labels=[label])
    for value, amount in values.items():
        gauge.add_metric([value], float(amount))
    return gauge
