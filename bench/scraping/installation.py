"""An installation of many accounts as a scrape reads it, filled inside PostgreSQL.

Of each account a sandbox runs, two have gone, credit lapses, and an invoice is paid; of one in
twenty an attempt failed. Sandboxes are on 200 hosts.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg
from django.db import connection, connections, transaction

from metering.meters import UNITS, Meter

HOSTS = 200
MONTHS = 1
GONE = 2
_FIGURES = [UNITS[meter].stored for meter in Meter]

_STATEMENTS = (
    """
    INSERT INTO billing_account (id, name, currency, time_zone, anchor_day, tax_rate,
        tax_is_inclusive, opened_at, open_period_start, open_period_end, parked_reason,
        next_time_zone, address, tax_id, billing_email)
    SELECT md5('account ' || n)::uuid, 'Customer ' || n, 'USD', 'UTC', 1, 0, false, %(first)s,
        %(now)s - interval '10 days', %(now)s + interval '20 days', '', '', '', '', ''
    FROM generate_series(1, %(accounts)s) AS n
    """,
    """
    INSERT INTO metering_accountregistration (account_id, time_zone, registered_at, is_active)
    SELECT id, 'UTC', %(first)s, true FROM billing_account
    """,
    """
    INSERT INTO metering_host (id, name, endpoint, is_active, engine_id, source, registered_at,
        pass_count, problem, last_seen_at)
    SELECT md5('host ' || n)::uuid, 'host-' || n, 'simulator:', true, '', 'simulator', %(first)s,
        0, '', %(now)s FROM generate_series(1, %(hosts)s) AS n
    """,
    """
    INSERT INTO metering_streamcursor (host_id, entry_id, sequence, collected_until, sample_count,
        lost_batch_count, problem)
    SELECT id, '0-0', 0, %(now)s, 0, 0, '' FROM metering_host
    """,
    """
    INSERT INTO metering_sandbox (account_id, sandbox_id, recorded_at)
    SELECT account_id, 'sbx-' || n, %(first)s
    FROM generate_series(0, %(gone)s) AS n, metering_accountregistration
    """,
    """
    INSERT INTO metering_life (id, sandbox_id, host_id, key, container_id, started_ns, started_at,
        ended_at, gone_at, counts_from_zero, network_unmetered, gpu_count, labels, recorded_at)
    SELECT id, id, md5('host ' || id %% %(hosts)s + 1)::uuid, id::text, id::text,
        (extract(epoch FROM recorded_at) * 1000000000)::bigint, recorded_at,
        CASE WHEN id > %(accounts)s THEN %(now)s END, CASE WHEN id > %(accounts)s THEN %(now)s END,
        true, '', 0, '{}', recorded_at
    FROM metering_sandbox
    """,
    """
    INSERT INTO metering_lifereading (life_id, read_ms, cpu_ns, base_cpu_ns, disk_read_bytes,
        base_disk_read_bytes, disk_write_bytes, base_disk_write_bytes, known, memory_bytes,
        memory_held_until_ms, memory_limit_bytes, cpu_limit_micro, gpu_count, state, sample_count,
        out_of_order_count)
    SELECT id, (extract(epoch FROM %(now)s) * 1000)::bigint, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        300, 0
    FROM metering_life
    """,
    f"""
    INSERT INTO metering_dailyusagetotal
        (account_id, day, {", ".join(_FIGURES)}, running_ms, measured_ms, life_count, sandbox_count)
    SELECT account_id, (%(now)s - interval '1 day' * day)::date,
        {", ".join("hashtext(account_id::text)::bigint + 2147483648" for _ in _FIGURES)},
        86400000, 86400000, 1, 1
    FROM generate_series(0, 9) AS day, metering_accountregistration
    """,  # noqa: S608 -- names of our own columns
    """
    INSERT INTO billing_creditgrant (account_id, kind, effective_at, expires_at, granted_at,
        reason, reference, priority)
    SELECT id, 'promotional', %(first)s, %(now)s + interval '1 day' * (n * 15 + 3), %(first)s,
        'A gift', 'gift ' || n || id, 0
    FROM billing_account, generate_series(0, 2) AS n
    """,
    """
    INSERT INTO billing_creditentry (grant_id, kind, amount, recorded_at, reference, reason)
    SELECT id, 'grant', 100, granted_at, '', '' FROM billing_creditgrant
    """,
    """
    INSERT INTO billing_invoice (account_id, kind, status, number, finalised_at, paid_at, currency,
        period_start, period_end, tax_rate, tax_is_inclusive, subscription_fee, usage_fee,
        discounts, credits_used, adjustments, tax, credited, top_up, total_amount, prepaid_used,
        amount_due, drafted_at, computed_at, finalise_after, waiting_for, seller, buyer, tax_name,
        payment_terms, time_zone, evidence_hash)
    SELECT account.id, 'usage', 'paid',
        'B-' || n || left(replace(account.id::text, '-', ''), 28), ends, ends, 'USD',
        ends - interval '30 days', ends, 0, false, 99, 0, 0, 0, 0, 0, 0, 0, 99, 0, 99, ends, ends,
        ends, '', '{}', '{}', '', '', 'UTC', ''
    FROM billing_account account, generate_series(1, %(months)s) AS n,
        LATERAL (SELECT %(now)s - interval '30 days' * n + interval '20 days' AS ends) AS period
    """,
    """
    INSERT INTO payments_collection (id, account_id, status, amount, currency, provider_id,
        provider_number, hosted_url, started_at, opened_at, ended_at, void_reason, failures,
        waiting_for)
    SELECT md5('collection ' || id)::uuid, account_id, 'paid', amount_due, currency, 'in_' || id,
        '', '', finalised_at, finalised_at, finalised_at, '', 0, ''
    FROM billing_invoice
    """,
    """
    INSERT INTO payments_collectionpart (collection_id, position, invoice_id, amount, is_live)
    SELECT md5('collection ' || id)::uuid, 1, id, amount_due, false FROM billing_invoice
    """,
    """
    INSERT INTO payments_paymentattempt (collection_id, number, status, trigger, method_id,
        started_at, ended_at, failure_code, decline_code, failure_message)
    SELECT md5('collection ' || id)::uuid, 1,
        CASE WHEN id %% 20 = 0 THEN 'failed' ELSE 'succeeded' END, 'finalised', 'pm',
        finalised_at, finalised_at - interval '1 day' * (id %% 30),
        CASE WHEN id %% 20 = 0 THEN 'card_declined' ELSE '' END, '', ''
    FROM billing_invoice
    """,
    """
    INSERT INTO payments_payment (account_id, method, amount, currency, received_at, recorded_at,
        provider_id, charge_id, collection_id, reference)
    SELECT account_id, 'provider', amount_due, currency, finalised_at, finalised_at, 'pi_' || id,
        '', md5('collection ' || id)::uuid, '' FROM billing_invoice
    """,
    """
    INSERT INTO payments_allocation (payment_id, invoice_id, amount)
    SELECT payment.id, invoice.id, amount_due
    FROM payments_payment payment JOIN billing_invoice invoice
        ON payment.provider_id = 'pi_' || invoice.id
    """,
    """
    INSERT INTO payments_webhookevent (event_id, type, object_type, object_id, api_version,
        is_live_mode, source, happened_at, received_at, body, status, result, applied_at, tries,
        try_at)
    SELECT 'evt_' || id, 'invoice.paid', 'invoice', 'in_' || id, '', true, 'webhook',
        finalised_at, finalised_at, '{}', 'applied', '', finalised_at, 1, finalised_at
    FROM billing_invoice
    """,
    """
    INSERT INTO billing_unpricedusage (account_id, meter, reason, billing_period_start,
        period_start, period_end, quantity, noted_at)
    SELECT id, 'disk_write', 'meter_not_charged', open_period_start, open_period_start,
        open_period_end, 1, %(now)s FROM billing_account
    """,
)
_COUNTERS = f"""
    INSERT INTO metering_usagecounter (host_id, told_as, {", ".join(_FIGURES)})
    SELECT host.id, told.name, {", ".join("1000000000000" for _ in _FIGURES)}
    FROM metering_host host, (SELECT account_id::text AS name FROM metering_toldaccount
        UNION ALL SELECT 'other') AS told
"""  # noqa: S608 -- names of our own columns


def fill(accounts: int, *, now: datetime) -> dict[str, int]:
    """Fill empty tables; return how many rows there are of what is many."""
    words: dict[str, int | datetime] = {
        "accounts": accounts,
        "hosts": HOSTS,
        "months": MONTHS,
        "gone": GONE,
        "now": now,
        "first": now - timedelta(days=200),
    }
    with transaction.atomic(), connection.cursor() as cursor:
        for statement in _STATEMENTS:
            cursor.execute(statement, words)
    # As the database does by itself some time after they came.
    with psycopg.connect(**connections["owner"].get_connection_params(), autocommit=True) as owner:
        owner.execute("VACUUM ANALYZE")
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT relname, reltuples::bigint FROM pg_class
            WHERE relkind = 'r' AND reltuples >= %s ORDER BY relname
            """,
            [accounts],
        )
        return dict(cursor.fetchall())


def fill_counters() -> None:
    """Leave what folds count of the accounts that are told of, on each host."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNTERS)
