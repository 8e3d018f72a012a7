"""A year of an installation: accounts, their days, invoices of each month, credit, and trouble."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import connection, transaction

from billing.models import (
    Account,
    CreditEntry,
    CreditGrant,
    Invoice,
    InvoiceLine,
    Plan,
    Subscription,
)
from metering.meters import UNITS, Meter
from metering.models import AccountRegistration, Sandbox

SEED = 20260501
MONTHS, DAYS = 12, 365
LINES = (
    Meter.CPU,
    Meter.MEMORY,
    Meter.STORAGE,
    Meter.NETWORK_EGRESS,
    Meter.NETWORK_INGRESS,
    Meter.GPU,
)
ACCOUNTS_AT_ONCE = 200

_DAYS_OF_SANDBOXES = """
    INSERT INTO metering_dailyusagesummary
        (account_id, sandbox_id, day, cpu_ns, memory_byte_ms, network_tx_bytes, network_rx_bytes,
         disk_read_bytes, disk_write_bytes, storage_byte_ms, gpu_ms, cpu_allocated_ns,
         memory_allocated_byte_ms, running_ms, measured_ms, life_count, computed_at)
    SELECT sandbox.account_id, sandbox.id, %(today)s::date - age.days,
        (1000 + (hashtext(sandbox.sandbox_id || age.days) & 1023)) * 1000000000::numeric,
        (2000 + (hashtext(age.days || sandbox.sandbox_id) & 2047)) * 1073741824000::numeric,
        1073741824, 536870912, 0, 0, 3865470566400000, 60000, 0, 0, 86400000, 86300000, 1, %(now)s
    FROM metering_sandbox sandbox, generate_series(0, %(days)s - 1) AS age(days)
    -- As the days came: every account's day after another.
    ORDER BY age.days DESC, sandbox.id
"""
_DAYS_OF_ACCOUNTS = """
    INSERT INTO metering_dailyusagetotal
        (account_id, day, cpu_ns, memory_byte_ms, network_tx_bytes, network_rx_bytes,
         disk_read_bytes, disk_write_bytes, storage_byte_ms, gpu_ms, cpu_allocated_ns,
         memory_allocated_byte_ms, running_ms, measured_ms, life_count, sandbox_count)
    SELECT account_id, day, cpu_ns, memory_byte_ms, network_tx_bytes, network_rx_bytes,
        disk_read_bytes, disk_write_bytes, storage_byte_ms, gpu_ms, cpu_allocated_ns,
        memory_allocated_byte_ms, running_ms, measured_ms, life_count, 1
    -- Each account has one sandbox.
    FROM metering_dailyusagesummary ORDER BY day, account_id
"""
_FINALISE = """
    UPDATE billing_invoice invoice
    SET number = 'B-' || id, finalised_at = period_end + interval '1 hour',
        status = CASE WHEN recent AND id %% 10 = 0 THEN 'payment_failed'
                      WHEN recent THEN 'pending' ELSE 'paid' END,
        paid_at = CASE WHEN NOT recent THEN period_end + interval '2 days' END
    FROM (SELECT id AS of, period_end >= %(month)s AS recent FROM billing_invoice) AS age
    WHERE age.of = invoice.id AND invoice.status = 'draft' AND invoice.period_end <= %(month)s
"""


def month_start(now: datetime, before: int) -> datetime:
    """Return the start of the month that is so many before that of `now`, in UTC."""
    number = now.year * 12 + now.month - 1 - before
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)


def make_year(accounts: int, *, now: datetime) -> dict[str, int]:
    """Fill empty tables; return how many rows there are of each kind. The same every time."""
    chance = random.Random(SEED)  # noqa: S311 -- the same installation in each run
    plan = Plan.objects.get(code="professional")
    with transaction.atomic():
        made = [_account(chance, number, now=now) for number in range(accounts)]
        Account.objects.bulk_create(made, batch_size=1000)
        AccountRegistration.objects.bulk_create(
            AccountRegistration(account_id=account.pk, registered_at=account.opened_at)
            for account in made
        )
        Sandbox.objects.bulk_create(
            Sandbox(account_id=account.pk, sandbox_id=f"sbx-{at}", recorded_at=account.opened_at)
            for at, account in enumerate(made)
        )
        subscriptions = Subscription.objects.bulk_create(
            Subscription(
                account=account,
                plan=plan,
                fee=plan.monthly_fee or Decimal(0),
                monthly_credits=plan.monthly_credits,
                started_at=account.opened_at,
                recorded_at=account.opened_at,
                time_zone="UTC",
            )
            for account in made
        )
        _give_credit(subscriptions, now=now)
        with connection.cursor() as cursor:
            cursor.execute(_DAYS_OF_SANDBOXES, {"today": now.date(), "now": now, "days": DAYS})
            cursor.execute(_DAYS_OF_ACCOUNTS)
    for at in range(0, accounts, ACCOUNTS_AT_ONCE):
        with transaction.atomic():
            _invoice(chance, made[at : at + ACCOUNTS_AT_ONCE], now=now)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_FINALISE, {"month": month_start(now, 0)})
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return {
        "accounts": accounts,
        "invoices": Invoice.objects.count(),
        "invoice_lines": InvoiceLine.objects.count(),
        "daily_summaries": accounts * DAYS,
        "credit_grants": CreditGrant.objects.count(),
    }


def _account(chance: random.Random, number: int, *, now: datetime) -> Account:
    is_parked = number % 100 == 7
    return Account(
        pk=UUID(int=chance.getrandbits(128)),
        name=f"Customer {number}",
        currency="EUR" if number % 5 == 0 else "USD",
        opened_at=month_start(now, MONTHS),
        open_period_start=month_start(now, 0),
        open_period_end=month_start(now, -1),
        parked_reason="UsageUnpricedError: gpu has no price" if is_parked else "",
        parked_at=now if is_parked else None,
    )


def _give_credit(subscriptions: list[Subscription], *, now: datetime) -> None:
    grants = CreditGrant.objects.bulk_create(
        CreditGrant(
            account_id=subscription.account_id,
            kind="monthly",
            subscription=subscription,
            effective_at=month_start(now, before),
            expires_at=month_start(now, before - 1),
            period_start=month_start(now, before),
            period_end=month_start(now, before - 1),
            granted_at=month_start(now, before),
        )
        for subscription in subscriptions
        for before in range(MONTHS)
    )
    CreditEntry.objects.bulk_create(
        [
            CreditEntry(grant=grant, kind=kind, amount=amount, recorded_at=grant.granted_at)
            for grant in grants
            for kind, amount in (
                [("grant", Decimal(100))]
                if grant.period_end and grant.period_end > now
                else [("grant", Decimal(100)), ("expire", Decimal(-100))]
            )
        ],
        batch_size=5000,
    )


def _invoice(chance: random.Random, accounts: list[Account], *, now: datetime) -> None:
    """Leave an invoice with a line a meter for each closed month, and some drafts that wait."""
    invoices: list[Invoice] = []
    lines: list[InvoiceLine] = []
    for account in accounts:
        for before in range(MONTHS, 0, -1):
            start, end = month_start(now, before), month_start(now, before - 1)
            amounts = [Decimal(chance.randrange(1, 20_000)).scaleb(-2) for _ in LINES]
            fee = sum(amounts, start=Decimal(0))
            invoice = Invoice(
                account=account,
                currency=account.currency,
                period_start=start,
                period_end=end,
                usage_fee=fee,
                total_amount=fee,
                amount_due=fee,
                drafted_at=end,
                computed_at=end,
                finalise_after=end + timedelta(minutes=15),
            )
            invoices.append(invoice)
            lines += [
                _line(invoice, position, meter, amount)
                for position, (meter, amount) in enumerate(zip(LINES, amounts, strict=True))
            ]
    Invoice.objects.bulk_create(invoices)
    InvoiceLine.objects.bulk_create(lines)


def _line(invoice: Invoice, position: int, meter: Meter, amount: Decimal) -> InvoiceLine:
    unit = UNITS[meter]
    return InvoiceLine(
        invoice=invoice,
        kind=InvoiceLine.Kind.USAGE,
        position=position,
        description=meter.value,
        meter=meter.value,
        charge="per_unit",
        quantity=unit.size * 1000,
        base_unit=unit.stored,
        unit=unit.shown,
        unit_size=unit.size,
        unit_price=amount / 1000,
        amount=amount,
        period_start=invoice.period_start,
        period_end=invoice.period_end,
    )
