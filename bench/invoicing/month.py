"""A month that is over: accounts with a sandbox each, measured by six meters, on two plans."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from billing.models import Plan, Price, PriceBookVersion
from metering.period import Period
from metering.services import register_host

MONTH = Period(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
AFTER = datetime(2026, 11, 1, 1, tzinfo=UTC)
METERS = 6
WINDOWS = 4
"""Of each account and table of usage."""
FEE_PAYING_16THS = 5
"""Of all accounts: those whose id begins with one of so many digits."""

_ACCOUNTS = """
    INSERT INTO billing_account (id, name, currency, time_zone, anchor_day, next_time_zone,
        tax_rate, tax_is_inclusive, opened_at, open_period_start, open_period_end, parked_reason,
        address, tax_id, billing_email)
    SELECT md5(%(batch)s || n)::uuid, 'Customer ' || n, 'USD', 'UTC', 1, '', 0.19, false,
        %(start)s, %(start)s, %(end)s, '', '1 Main Street', '', ''
    FROM generate_series(1, %(count)s) n
"""
_REGISTRATIONS = """
    INSERT INTO metering_accountregistration (account_id, time_zone, registered_at, is_active)
    SELECT md5(%(batch)s || n)::uuid, 'UTC', %(start)s, true FROM generate_series(1, %(count)s) n
"""
_SANDBOXES = """
    INSERT INTO metering_sandbox (account_id, sandbox_id, recorded_at)
    SELECT md5(%(batch)s || n)::uuid, 'sbx-1', %(start)s FROM generate_series(1, %(count)s) n
"""
_LIVES = """
    INSERT INTO metering_life (id, sandbox_id, host_id, key, container_id, started_ns, started_at,
        ended_at, gone_at, counts_from_zero, network_unmetered, gpu_count, labels, recorded_at)
    SELECT sandbox.id, sandbox.id, %(host)s, sandbox.id::text, md5(sandbox.id::text), 0, %(start)s,
        %(end)s, %(end)s, true, '', 0, '{}', %(start)s
    FROM metering_sandbox sandbox
    WHERE NOT EXISTS (SELECT FROM metering_life life WHERE life.sandbox_id = sandbox.id)
"""
_INTERFACES = """
    INSERT INTO metering_interfacereading (interface, life_id, name, read_ms, rx_bytes,
        base_rx_bytes, tx_bytes, base_tx_bytes, known)
    SELECT id, id, 'eth0', 0, 0, 0, 0, 0, 3 FROM metering_life life
    WHERE NOT EXISTS (SELECT FROM metering_interfacereading i WHERE i.life_id = life.id)
"""
_NEW = """
    FROM metering_life life CROSS JOIN generate_series(0, %(windows)s - 1) w
    WHERE NOT EXISTS (SELECT FROM metering_usagerecord r WHERE r.life_id = life.id)
"""
_USAGE = (
    """
    INSERT INTO metering_networkusagerecord (interface_id, window_start, rx_bytes,
        opening_rx_bytes, closing_rx_bytes, tx_bytes, opening_tx_bytes, closing_tx_bytes,
        sample_count)
    SELECT life.id, %(start)s::timestamptz + w * interval '15 minutes',
        1073741824 + life.id, (1073741824 + life.id) * w, (1073741824 + life.id) * (w + 1),
        4294967296 + life.id, (4294967296 + life.id) * w, (4294967296 + life.id) * (w + 1), 450
    """
    + _NEW,
    """
    INSERT INTO metering_storageusagerecord (life_id, window_start, storage_byte_ms, existing_ms,
        measured_ms, sample_count)
    SELECT life.id, %(start)s::timestamptz + w * interval '15 minutes',
        (107374182400 + life.id) * 900000, 900000, 900000, 3
    """
    + _NEW,
    """
    INSERT INTO metering_usagerecord (life_id, window_start, cpu_ns, opening_cpu_ns,
        closing_cpu_ns, disk_read_bytes, opening_disk_read_bytes, closing_disk_read_bytes,
        disk_write_bytes, opening_disk_write_bytes, closing_disk_write_bytes, memory_byte_ms,
        cpu_allocated_ns, memory_allocated_byte_ms, gpu_ms, running_ms, measured_ms, sample_count)
    SELECT life.id, %(start)s::timestamptz + w * interval '15 minutes',
        900000000000 + life.id, (900000000000 + life.id) * w, (900000000000 + life.id) * (w + 1),
        0, 0, 0, 0, 0, 0, (4294967296 + life.id) * 900000, 0, 0, 900000, 900000, 899000, 450
    """
    + _NEW,
)
_SUBSCRIPTIONS = """
    INSERT INTO billing_subscription (account_id, plan_id, fee, monthly_credits, interval,
        credit_rollover_periods, started_at, recorded_at, ends_period, time_zone,
        provider_price_id)
    SELECT account.id, %(plan)s, 99, 100, 'monthly', 0, %(start)s, %(start)s, false, 'UTC', ''
    FROM billing_account account
    WHERE strpos('0123456789abcdef', left(account.id::text, 1)) <= %(fee_paying)s
      AND NOT EXISTS (SELECT FROM billing_subscription s WHERE s.account_id = account.id)
"""
_GRANTS = """
    WITH granted AS (
        INSERT INTO billing_creditgrant (account_id, kind, effective_at, expires_at, priority,
            subscription_id, period_start, period_end, reference, reason, granted_at)
        SELECT account_id, 'monthly', %(start)s, %(end)s, 0, id, %(start)s, %(end)s, '', '',
            %(start)s
        FROM billing_subscription subscription
        WHERE NOT EXISTS (
            SELECT FROM billing_creditgrant g WHERE g.subscription_id = subscription.id)
        RETURNING id
    )
    INSERT INTO billing_creditentry (grant_id, kind, amount, reference, reason, recorded_at)
    SELECT id, 'grant', 100, '', '', %(start)s FROM granted
"""


def charge_six_meters() -> None:
    """Give the default prices a sixth meter, so that each account has as many lines."""
    for version in PriceBookVersion.objects.all():
        for currency in version.prices.values_list("currency", flat=True).distinct():
            Price.objects.get_or_create(
                version=version,
                meter="network_ingress",
                currency=currency,
                defaults={"unit_price": Decimal("0.001")},
            )


def make_accounts(
    count: int, *, batch: str, month: Period = MONTH, fee_paying_16ths: int = FEE_PAYING_16THS
) -> None:
    """Add so many accounts whose month is over and measured to its end."""
    after = month.end + (AFTER - MONTH.end)
    host = register_host(
        host_id=UUID("00000000-0000-4000-8000-000000000001"),
        name="bench",
        endpoint="simulator:",
        now=month.start,
    )
    host.cursor.collected_until = after
    host.cursor.save(update_fields=["collected_until"])
    values: dict[str, Any] = {
        "batch": batch,
        "count": count,
        "start": month.start,
        "end": month.end,
        "host": host.pk,
        "windows": WINDOWS,
        "plan": Plan.objects.get(code="professional").pk,
        "fee_paying": fee_paying_16ths,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        for statement in (
            _ACCOUNTS,
            _REGISTRATIONS,
            _SANDBOXES,
            _LIVES,
            _INTERFACES,
            *_USAGE,
            _SUBSCRIPTIONS,
            _GRANTS,
        ):
            cursor.execute(statement, values)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
