"""Accounts with usage, for tests of what billing makes of it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db.models import Q

from billing import services
from billing.models import Account, CreditEntry, Invoice
from billing.money import Money
from metering.meters import GB
from metering.models import (
    Host,
    InterfaceReading,
    Life,
    LifeReading,
    NetworkUsageRecord,
    Sandbox,
    StreamCursor,
    UsageRecord,
)
from metering.period import WINDOW, Period, to_ms

OPENED = datetime(2026, 5, 1, tzinfo=UTC)
MAY = Period(OPENED, datetime(2026, 6, 1, tzinfo=UTC))
JUNE = Period(MAY.end, datetime(2026, 7, 1, tzinfo=UTC))
NOON = datetime(2026, 5, 10, 12, tzinfo=UTC)
GRACE = timedelta(minutes=15)
AFTER_MAY = MAY.end + GRACE


def open_account(name: str = "Ada", *, plan_code: str | None = None) -> Account:
    """Open an account at the start of May, on a plan from then on if one is given."""
    account = services.open_account(name=name, now=OPENED)
    if plan_code:
        services.subscribe(account.pk, plan_code=plan_code, now=OPENED)
    return account


def credits_left(account: Account, period: Period) -> Money:
    """Return the balance of the credits that may pay for `period`, below zero too."""
    entries = CreditEntry.objects.filter(
        Q(grant__expires_at__isnull=True) | Q(grant__expires_at__gt=period.start),
        grant__account=account,
        grant__effective_at__lt=period.end,
    )
    amounts = entries.values_list("amount", flat=True)
    return Money(sum(amounts, start=Decimal(0)), account.currency)


def bill(account: Account, period: Period = MAY) -> Invoice:
    """Draft and finalise a period that has something to invoice, with everything read."""
    now = period.end + GRACE
    read_streams_until(now)
    draft = services.draft_invoice(account.pk, period=period, now=now)
    invoice = services.finalise_invoice(draft.pk, now=now)
    if invoice is None:
        raise ValueError(f"There is nothing to invoice in {period}.")
    return invoice


def record_usage(  # one argument a meter
    account_id: UUID,
    at: datetime = NOON,
    *,
    cpu_s: int = 0,
    memory_gb_s: int = 0,
    egress_bytes: int = 0,
    ingress_bytes: int = 0,
    disk_write_bytes: int = 0,
) -> None:
    """Leave the rows that metering has after a life used this much in one window."""
    name = f"host of {account_id}"
    number = int.from_bytes(hashlib.sha256(f"{account_id} {at}".encode()).digest()[:6], "big")
    host, _ = Host.objects.get_or_create(
        name=name, defaults={"id": account_id, "endpoint": "simulator:", "registered_at": OPENED}
    )
    StreamCursor.objects.get_or_create(host=host)
    sandbox, _ = Sandbox.objects.get_or_create(
        account_id=account_id, sandbox_id="sbx-1", defaults={"recorded_at": OPENED}
    )
    life = Life.objects.create(
        id=number,
        sandbox=sandbox,
        host=host,
        key=str(number),
        container_id=str(number),
        started_ns=to_ms(at) * 10**6,
        started_at=at,
        counts_from_zero=True,
        recorded_at=at,
    )
    _record_reading(life, at)
    UsageRecord.objects.create(
        life=life,
        window_start=at,
        cpu_ns=cpu_s * 10**9,
        opening_cpu_ns=0,
        closing_cpu_ns=cpu_s * 10**9,
        disk_read_bytes=0,
        opening_disk_read_bytes=0,
        closing_disk_read_bytes=0,
        disk_write_bytes=disk_write_bytes,
        opening_disk_write_bytes=0,
        closing_disk_write_bytes=disk_write_bytes,
        memory_byte_ms=memory_gb_s * GB * 1000,
        cpu_allocated_ns=0,
        memory_allocated_byte_ms=0,
        gpu_ms=0,
        running_ms=800_000,
        measured_ms=600_000,
        sample_count=300,
    )
    interface = InterfaceReading.objects.create(
        interface=number,
        life=life,
        name="eth0",
        read_ms=to_ms(at),
        rx_bytes=ingress_bytes,
        base_rx_bytes=0,
        tx_bytes=egress_bytes,
        base_tx_bytes=0,
        known=0,
    )
    NetworkUsageRecord.objects.create(
        interface=interface,
        window_start=at,
        rx_bytes=ingress_bytes,
        opening_rx_bytes=0,
        closing_rx_bytes=ingress_bytes,
        tx_bytes=egress_bytes,
        opening_tx_bytes=0,
        closing_tx_bytes=egress_bytes,
        sample_count=300,
    )


def _record_reading(life: Life, at: datetime) -> None:
    LifeReading.objects.create(
        life=life,
        read_ms=to_ms(at + WINDOW),
        cpu_ns=0,
        base_cpu_ns=0,
        disk_read_bytes=0,
        base_disk_read_bytes=0,
        disk_write_bytes=0,
        base_disk_write_bytes=0,
        known=0,
        memory_bytes=0,
        memory_held_until_ms=0,
        memory_limit_bytes=0,
        cpu_limit_micro=0,
        gpu_count=0,
        state=0,
        sample_count=300,
        out_of_order_count=0,
    )


def record_first_invoice(account_id: UUID) -> None:
    """Leave what docs/rating.md's first invoice was made from, as far as metering measures it."""
    record_usage(account_id, cpu_s=3600, memory_gb_s=7200, egress_bytes=10 * GB)


def read_streams_until(moment: datetime) -> None:
    """Say that every host was read up to `moment`."""
    StreamCursor.objects.update(collected_until=moment)
