"""A year of an installation as the API reads it, filled inside PostgreSQL.

Each account has slots in which one sandbox follows another; a sandbox runs for `LIFE_DAYS`, the
same every hour. What days sum to is what the hours are, and invoices ask for what days sum to.
There are a year of days and three months of hours.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from metering.partitions import make_partitions

MONTHS = 12
LIFE_DAYS = 9
RECORD_DAYS = 90


@dataclass(frozen=True, slots=True)
class Size:
    """How large it is. Heavy accounts come first; each account has so many slots."""

    accounts: int
    heavy: int
    slots: int
    heavy_slots: int


# With slots that change hands every nine days: more than 200,000 sandboxes.
FULL = Size(accounts=2_000, heavy=20, slots=2, heavy_slots=50)
QUICK = Size(accounts=40, heavy=1, slots=2, heavy_slots=30)

_ACCOUNTS = """
    INSERT INTO billing_account (id, name, currency, time_zone, anchor_day, tax_rate,
        tax_is_inclusive, opened_at, open_period_start, open_period_end, parked_reason,
        next_time_zone, address, tax_id, billing_email)
    SELECT md5('account ' || n)::uuid, 'Customer ' || n, 'USD', 'UTC', 1, 0, false, %(first)s,
        %(month)s, %(next_month)s, '', '', '', '', ''
    FROM generate_series(1, %(accounts)s) AS n
"""
_SUBSCRIPTIONS = """
    INSERT INTO billing_subscription (account_id, plan_id, interval, fee, monthly_credits,
        started_at, recorded_at, time_zone, ends_period, credit_rollover_periods,
        provider_price_id)
    SELECT account.id, plan.id, 'monthly', plan.monthly_fee, plan.monthly_credits, %(first)s,
        %(first)s, 'UTC', false, 0, ''
    FROM billing_account account, billing_plan plan WHERE plan.code = 'professional'
"""
_GRANTS = """
    INSERT INTO billing_creditgrant (account_id, kind, subscription_id, effective_at, expires_at,
        period_start, period_end, granted_at, reason, reference, priority)
    SELECT account_id, 'monthly', subscription.id, start, start + interval '1 month', start,
        start + interval '1 month', start, '', '', 0
    FROM billing_subscription subscription,
        generate_series(%(first)s, %(month)s, interval '1 month') AS start
"""
_ENTRIES = """
    INSERT INTO billing_creditentry (grant_id, kind, amount, recorded_at, reference, reason)
    SELECT id, 'grant', 100, granted_at, '', '' FROM billing_creditgrant
    UNION ALL
    SELECT id, 'expire', -100, expires_at, '', '' FROM billing_creditgrant
    WHERE expires_at <= %(month)s
"""
_REGISTRATIONS = """
    INSERT INTO metering_accountregistration (account_id, time_zone, registered_at, is_active)
    SELECT id, 'UTC', %(first)s, true FROM billing_account
"""
_HOST = """
    INSERT INTO metering_host (id, name, endpoint, is_active, engine_id, source, registered_at,
        pass_count, problem)
    VALUES (md5('host')::uuid, 'host', 'simulator:', true, '', 'simulator', %(first)s, 0, '')
"""
_CURSOR = """
    INSERT INTO metering_streamcursor (host_id, entry_id, sequence, collected_until, sample_count,
        lost_batch_count, problem)
    VALUES (md5('host')::uuid, '0-0', 0, %(now)s, 0, 0, '')
"""
# Its id says how old it is: of each account's slot, one follows another.
_SANDBOXES = """
    INSERT INTO metering_sandbox (account_id, sandbox_id, recorded_at)
    SELECT md5('account ' || account)::uuid,
        'sbx-' || slot || '-' || lpad(number::text, 3, '0'),
        %(first)s::timestamptz + number * interval '1 day' * %(life_days)s
    FROM generate_series(%(from_account)s, %(to_account)s) AS account,
        generate_series(0, (%(today)s::date - %(first)s::date) / %(life_days)s) AS number,
        generate_series(1, %(slots)s) AS slot
    ORDER BY number, account, slot
"""
_LIVES = """
    INSERT INTO metering_life (id, sandbox_id, host_id, key, container_id, started_ns, started_at,
        ended_at, gone_at, counts_from_zero, network_unmetered, gpu_count, labels, recorded_at)
    SELECT id, id, md5('host')::uuid, id::text, id::text,
        (extract(epoch FROM recorded_at) * 1000000000)::bigint, recorded_at,
        CASE WHEN ends < %(now)s THEN ends END, CASE WHEN ends < %(now)s THEN ends END,
        true, '', 0, jsonb_build_object('team', 'team-' || id %% 7), recorded_at
    FROM (SELECT *, recorded_at + interval '1 day' * %(life_days)s AS ends
          FROM metering_sandbox) AS sandbox
"""
_READINGS = """
    INSERT INTO metering_lifereading (life_id, read_ms, cpu_ns, base_cpu_ns, disk_read_bytes,
        base_disk_read_bytes, disk_write_bytes, base_disk_write_bytes, known, memory_bytes,
        memory_held_until_ms, memory_limit_bytes, cpu_limit_micro, gpu_count, state, sample_count,
        out_of_order_count)
    SELECT id, (extract(epoch FROM coalesce(ended_at, %(now)s)) * 1000)::bigint, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 300, 0
    FROM metering_life
"""
_INTERFACES = """
    INSERT INTO metering_interfacereading (interface, life_id, name, read_ms, rx_bytes,
        base_rx_bytes, tx_bytes, base_tx_bytes, known)
    SELECT id, id, 'eth0', 0, 0, 0, 0, 0, 0 FROM metering_life
"""
# What life `id` used in an hour; a day has 24 of them, today as many as are over.
_HOUR = {
    "cpu_ns": "(id %% 7 + 1) * 100000000000",
    "memory_byte_ms": "(id %% 5 + 1) * 1932735283200000",
    "network_tx_bytes": "(id %% 3 + 1) * 10485760",
    "network_rx_bytes": "5242880",
    "storage_byte_ms": "(id %% 4 + 1) * 1932735283200000",
}
_DAYS = f"""
    INSERT INTO metering_dailyusagesummary
        (account_id, sandbox_id, day, {", ".join(_HOUR)}, disk_read_bytes, disk_write_bytes,
         gpu_ms, cpu_allocated_ns, memory_allocated_byte_ms, running_ms, measured_ms, life_count,
         computed_at)
    SELECT account_id, id, day::date, {", ".join(f"hours * ({h})" for h in _HOUR.values())},
        0, 0, 0, 0, 0, hours * 900000, hours * 890000, 1, %(now)s
    FROM (
        SELECT sandbox.*, day, least(24, extract(epoch FROM %(now)s - day)::integer / 3600) AS hours
        FROM metering_sandbox sandbox, generate_series(recorded_at, least(%(today)s::timestamptz,
            recorded_at + interval '1 day' * (%(life_days)s - 1)), interval '1 day') AS day
    ) AS ran
    -- As the days came.
    ORDER BY day, account_id, id
"""  # noqa: S608 -- expressions of our own
_TOTALS = f"""
    INSERT INTO metering_dailyusagetotal
        (account_id, day, {", ".join(_HOUR)}, disk_read_bytes, disk_write_bytes, gpu_ms,
         cpu_allocated_ns, memory_allocated_byte_ms, running_ms, measured_ms, life_count,
         sandbox_count)
    SELECT account_id, day, {", ".join(f"sum({figure})" for figure in _HOUR)}, 0, 0, 0, 0, 0,
        sum(running_ms), sum(measured_ms), sum(life_count), count(*)
    FROM metering_dailyusagesummary GROUP BY account_id, day
    ORDER BY day, account_id
"""  # noqa: S608 -- names of our own columns
_SETTLED = """
    INSERT INTO metering_settleddays (account_id, since, until)
    SELECT id, %(first)s::date, (%(now)s - interval '48 hours')::date FROM billing_account
"""
_RECORDS_OF = """
    FROM (
        SELECT life.id, hour FROM metering_life life, generate_series(
            greatest(started_at, least(%(month)s, %(records_from)s)),
            least(started_at + interval '1 day' * %(life_days)s, %(now)s) - interval '1 hour',
            interval '1 hour') AS hour
        WHERE started_at + interval '1 day' * %(life_days)s > least(%(month)s, %(records_from)s)
    ) AS ran
    -- As folds wrote them.
    ORDER BY hour
"""
_RECORDS = f"""
    INSERT INTO metering_usagerecord (life_id, window_start, cpu_ns, opening_cpu_ns,
        closing_cpu_ns, disk_read_bytes, opening_disk_read_bytes, closing_disk_read_bytes,
        disk_write_bytes, opening_disk_write_bytes, closing_disk_write_bytes, memory_byte_ms,
        cpu_allocated_ns, memory_allocated_byte_ms, gpu_ms, running_ms, measured_ms, sample_count)
    SELECT id, hour, {_HOUR["cpu_ns"]}, 0, 0, 0, 0, 0, 0, 0, 0, {_HOUR["memory_byte_ms"]}, 0, 0, 0,
        900000, 890000, 450 {_RECORDS_OF}
"""
_NETWORK = f"""
    INSERT INTO metering_networkusagerecord (interface_id, window_start, rx_bytes,
        opening_rx_bytes, closing_rx_bytes, tx_bytes, opening_tx_bytes, closing_tx_bytes,
        sample_count)
    SELECT id, hour, {_HOUR["network_rx_bytes"]}, 0, 0, {_HOUR["network_tx_bytes"]}, 0, 0, 450
    {_RECORDS_OF}
"""
_STORAGE = f"""
    INSERT INTO metering_storageusagerecord (life_id, window_start, storage_byte_ms, existing_ms,
        measured_ms, sample_count)
    SELECT id, hour, {_HOUR["storage_byte_ms"]}, 900000, 890000, 3 {_RECORDS_OF}
"""
_INVOICES = """
    INSERT INTO billing_invoice (account_id, kind, status, currency, period_start, period_end,
        tax_rate, tax_is_inclusive, subscription_fee, usage_fee, discounts, credits_used,
        adjustments, tax, credited, top_up, total_amount, prepaid_used, amount_due, drafted_at,
        computed_at, finalise_after, waiting_for, seller, buyer, tax_name, payment_terms,
        time_zone, evidence_hash)
    SELECT id, 'usage', 'draft', 'USD', start, start + interval '1 month', 0, false, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, start + interval '1 month', start + interval '1 month',
        start + interval '1 month 15 minutes', '', '{}', '{}', '', '', 'UTC', ''
    FROM billing_account,
        generate_series(%(first)s, %(month)s::timestamptz - interval '1 day', interval '1 month')
            AS start
"""
_METERS = (
    # meter, column, base unit, unit, units' size, price
    ("cpu", "cpu_ns", "cpu_ns", "cpu_seconds", 10**9, "0.000012"),
    ("memory", "memory_byte_ms", "memory_byte_ms", "memory_gb_seconds", 2**30 * 1000, "0.000004"),
    ("network_egress", "network_tx_bytes", "network_tx_bytes", "network_egress_gb", 2**30, "0.02"),
    (
        "storage",
        "storage_byte_ms",
        "storage_byte_ms",
        "storage_gb_hours",
        2**30 * 3_600_000,
        "0.0001",
    ),
)
_LINES = """
    INSERT INTO billing_invoiceline (invoice_id, kind, position, description, meter, charge,
        quantity, base_unit, unit, unit_size, unit_price, amount, discount, period_start,
        period_end)
    SELECT invoice.id, 'usage', meter.position, meter.meter, meter.meter, 'per_unit', quantity,
        base_unit, unit, unit_size, unit_price, round(quantity * unit_price / unit_size, 2), 0,
        period_start, period_end
    FROM billing_invoice invoice
    JOIN (
        SELECT account_id, date_trunc('month', day) AS month, ARRAY[{sums}] AS quantities
        FROM metering_dailyusagesummary GROUP BY 1, 2
    ) AS used ON used.account_id = invoice.account_id
        AND used.month = invoice.period_start AT TIME ZONE 'UTC',
    LATERAL (VALUES {meters}) AS meter (position, meter, base_unit, unit, unit_size, unit_price),
    LATERAL (SELECT quantities[meter.position] AS quantity) AS summed
""".format(  # noqa: S608 -- names of our own columns
    sums=", ".join(f"sum({column})" for _, column, *_ in _METERS),
    meters=", ".join(
        f"({at}, '{meter}', '{base}', '{unit}', {size}::numeric, {price}::numeric)"
        for at, (meter, _, base, unit, size, price) in enumerate(_METERS, start=1)
    ),
)
_FINALISE = """
    UPDATE billing_invoice invoice
    SET number = 'B-' || id, finalised_at = period_end + interval '1 hour', status = 'paid',
        paid_at = period_end + interval '2 days', usage_fee = lines.fee, total_amount = lines.fee,
        amount_due = lines.fee
    FROM (SELECT invoice_id, sum(amount) AS fee FROM billing_invoiceline GROUP BY 1) AS lines
    WHERE lines.invoice_id = invoice.id
"""

_COUNTED = (
    "billing_account",
    "metering_sandbox",
    "metering_dailyusagesummary",
    "metering_dailyusagetotal",
    "metering_usagerecord",
    "metering_networkusagerecord",
    "metering_storageusagerecord",
    "billing_invoice",
    "billing_invoiceline",
)


@dataclass(frozen=True, slots=True)
class Filled:
    """What there is to ask for."""

    account_ids: list[UUID]
    heavy_ids: list[UUID]
    rows: dict[str, int]


def fill(size: Size, *, now: datetime) -> Filled:
    """Fill empty tables. The same every time, up to the day it is."""
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    number = month.year * 12 + month.month - 1
    first, next_month = (
        month.replace(year=at // 12, month=at % 12 + 1) for at in (number - MONTHS, number + 1)
    )
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    records_from = today.fromordinal(today.toordinal() - RECORD_DAYS).replace(tzinfo=now.tzinfo)
    make_partitions(now=now, since=records_from)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT md5('account ' || n)::uuid FROM generate_series(1, %s) AS n ORDER BY n",
            [size.accounts],
        )
        account_ids = [key for (key,) in cursor.fetchall()]
    words: dict[str, Any] = {
        **{key: value for key, value in asdict(size).items() if isinstance(value, int)},
        "first": first,
        "month": month,
        "next_month": next_month,
        "today": today,
        "now": now.replace(minute=0, second=0, microsecond=0),
        "records_from": records_from,
        "life_days": LIFE_DAYS,
    }
    statements: list[tuple[str, dict[str, Any]]] = [
        *((sql, {}) for sql in (_ACCOUNTS, _SUBSCRIPTIONS, _GRANTS, _ENTRIES, _REGISTRATIONS)),
        (_HOST, {}),
        (_CURSOR, {}),
        (_SANDBOXES, {"from_account": 1, "to_account": size.heavy, "slots": size.heavy_slots}),
        (_SANDBOXES, {"from_account": size.heavy + 1, "to_account": size.accounts}),
        *((sql, {}) for sql in (_LIVES, _READINGS, _INTERFACES, _DAYS, _TOTALS, _SETTLED)),
        *((sql, {}) for sql in (_RECORDS, _NETWORK, _STORAGE, _INVOICES, _LINES, _FINALISE)),
    ]
    for statement, more in statements:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement, words | more)
    rows = {}
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
        for table in _COUNTED:
            cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 -- our own tables
            rows[table] = cursor.fetchone()[0]
    return Filled(account_ids, account_ids[: size.heavy], rows)
