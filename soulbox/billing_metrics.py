"""What a monitor reads of billing: whether what is due is billed, and who waits for a person."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from billing.counted import failures, invoiced_amounts, oldest_open_period
from billing.due import billing_due, parked_count
from billing.models import FailureCount


class Billing(Collector):
    """Whether the billing run keeps up. Zeros are told too."""

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges, as of now."""
        now = datetime.now(UTC)
        due = billing_due(now=now)
        yield GaugeMetricFamily(
            "soulbox_accounts_due",
            "Accounts whose period is over and not closed, or whose draft is due.",
            value=due.accounts,
        )
        yield GaugeMetricFamily(
            "soulbox_billing_due_seconds",
            "For how long the account that waits longest has been due.",
            value=due.longest.total_seconds(),
        )
        yield GaugeMetricFamily(
            "soulbox_parked_accounts",
            "Accounts that billing leaves alone until a person has looked.",
            value=parked_count(),
        )
        since = oldest_open_period()
        yield GaugeMetricFamily(
            "soulbox_oldest_unrated_window_seconds",
            "Age of the oldest usage that is on no final invoice: of the oldest open period.",
            value=max(0, (now - since).total_seconds()) if since else 0,
        )
        yield CounterMetricFamily(
            "soulbox_invoice_generation_errors",
            "How often an invoice could not be made, and its account was parked.",
            value=failures(FailureCount.Failed.INVOICE),
        )
        yield _amounts()


def _amounts() -> HistogramMetricFamily:
    amounts = HistogramMetricFamily(
        "soulbox_billing_amount",
        "Totals of the invoices that became final so far, void ones too.",
        labels=["type", "currency"],
    )
    for of_kind in invoiced_amounts():
        bounds = [(str(float(bound)), float(count)) for bound, count in of_kind.up_to]
        amounts.add_metric(
            [of_kind.kind, of_kind.currency],
            [*bounds, ("+Inf", float(of_kind.count))],
            float(of_kind.total),
        )
    return amounts
