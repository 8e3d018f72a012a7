"""Whether the money is right, after all of it: nothing wrong is an empty list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from io import StringIO
from uuid import UUID

from django.core.management import CommandError, call_command
from django.db.models import Count, Sum

from billing.models import Account, Invoice
from metering.meters import Meter
from metering.models import Host, LifeReading, NetworkUsageRecord, StreamCursor, UsageRecord
from metering.period import Period, from_ms
from metering.simulator import fleet_of
from payments.models import Payment, WebhookEvent
from tests.local_stripe import LocalStripe
from tests.soak.installation import Installation
from tests.soak.plan import Plan


@dataclass
class Verdict:
    """What the books say, and what is wrong with them."""

    invoices: int = 0
    invoiced: Decimal = Decimal(0)
    collected: Decimal = Decimal(0)
    charged: Decimal = Decimal(0)
    samples: int = 0
    cpu_difference_ns: int = 0
    egress_difference_bytes: int = 0
    wrong: list[str] = field(default_factory=list)


def judge(plan: Plan, installed: Installation, stripe: LocalStripe) -> Verdict:
    """Compare what was used, invoiced, charged and received with one another."""
    verdict = Verdict()
    verdict.wrong += _invoices(plan, installed, verdict)
    verdict.wrong += _money(stripe, verdict)
    verdict.wrong += _fleet(installed.host_id, verdict)
    verdict.wrong += _said_by("conservation", f"--month={installed.month.start:%Y-%m}")
    verdict.wrong += _said_by("audit_usage", *(f"--account={one}" for one in installed.fleet))
    return verdict


def _invoices(plan: Plan, installed: Installation, verdict: Verdict) -> Iterator[str]:
    of_month = Invoice.objects.filter(
        number__isnull=False, period_start=installed.month.start, account__in=installed.subscribers
    )
    verdict.invoices = of_month.count()
    verdict.invoiced = of_month.aggregate(sum=Sum("total_amount"))["sum"] or Decimal(0)
    if verdict.invoices != plan.subscriptions:
        yield f"{plan.subscriptions} months ended, and {verdict.invoices} are invoiced."
    twice = of_month.values("account").annotate(count=Count("pk")).filter(count__gt=1).count()
    if twice:
        yield f"{twice} accounts were invoiced twice."
    if parked := Account.objects.filter(parked_at__isnull=False).count():
        yield f"{parked} accounts are parked."


def _money(stripe: LocalStripe, verdict: Verdict) -> Iterator[str]:
    asked = Invoice.objects.filter(number__isnull=False, amount_due__gt=0)
    due = asked.aggregate(sum=Sum("amount_due"))["sum"] or Decimal(0)
    verdict.collected = Payment.objects.aggregate(sum=Sum("amount"))["sum"] or Decimal(0)
    verdict.charged = Decimal(stripe.ledger().get("usd", {}).get("charged", 0)) / 100
    paid = asked.filter(status="paid").aggregate(sum=Sum("amount_due"))["sum"] or Decimal(0)
    if not verdict.charged == verdict.collected == paid:
        yield f"Cards were charged {verdict.charged}, {verdict.collected} received, {paid} paid."
    if verdict.charged > due:
        yield f"Cards were charged {verdict.charged}, and {due} was due."
    charges = [one["invoice"] for one in stripe.charges()]
    if len(charges) != len(set(charges)):
        yield f"{len(charges) - len(set(charges))} invoices were charged twice."
    if failed := WebhookEvent.objects.filter(status=WebhookEvent.Status.FAILED).count():
        yield f"{failed} webhooks were given up."
    yield from (f"Stripe would not know: {one}" for one in stripe.violations()[:5])


def _fleet(host_id: UUID, verdict: Verdict) -> Iterator[str]:
    """Compare the fleet's usage with its rates and the time of each one's last reading."""
    host = Host.objects.get(pk=host_id)
    cursor = StreamCursor.objects.get(host=host)
    verdict.samples = cursor.sample_count
    sandboxes = {
        (one.account_id, one.sandbox_id): one
        for one in fleet_of(host.endpoint, started_at=host.registered_at).sandboxes
    }
    expected_cpu = expected_egress = 0
    readings = LifeReading.objects.filter(life__host=host).select_related("life__sandbox")
    for reading in readings:
        of = reading.life.sandbox
        used = sandboxes[str(of.account_id), of.sandbox_id].usage(
            Period(host.registered_at, from_ms(reading.read_ms))
        )
        expected_cpu += used[Meter.CPU]
        expected_egress += used[Meter.NETWORK_EGRESS]
    records = UsageRecord.objects.filter(life__host=host)
    network = NetworkUsageRecord.objects.filter(interface__life__host=host)
    stored_cpu = int(records.aggregate(sum=Sum("cpu_ns"))["sum"] or 0)
    stored_egress = int(network.aggregate(sum=Sum("tx_bytes"))["sum"] or 0)
    verdict.cpu_difference_ns = stored_cpu - expected_cpu
    verdict.egress_difference_bytes = stored_egress - expected_egress
    if len(readings) != len(sandboxes):
        yield f"{len(sandboxes)} sandboxes run, and {len(readings)} were read."
    if verdict.cpu_difference_ns or verdict.egress_difference_bytes:
        yield (
            f"The fleet's usage is {verdict.cpu_difference_ns} ns of cpu and "
            f"{verdict.egress_difference_bytes} bytes of egress from what it used."
        )
    if cursor.lost_batch_count:
        yield f"{cursor.lost_batch_count} batches are lost."


def _said_by(command: str, *arguments: str) -> Iterator[str]:
    """Yield what a command that proves something ends with, if it is not that all is well."""
    told = StringIO()
    try:
        with suppress(SystemExit):
            call_command(command, *arguments, stdout=told, stderr=StringIO())
    except CommandError as error:
        yield f"{command}: {error}"
    else:
        if not told.getvalue():
            yield f"{command} said nothing."
