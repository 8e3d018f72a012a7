"""So many accounts with a final invoice of May each, written past all services."""

from __future__ import annotations

from typing import Any

from django.db import connection

METERS = ("cpu", "memory", "network_egress", "storage", "gpu", "disk_write")
_STATEMENTS = (
    # A name that holds memory, so that rows which are kept would be seen.
    """INSERT INTO billing_account (id, name, currency, time_zone, anchor_day, next_time_zone,
           tax_rate, tax_is_inclusive, opened_at, open_period_start, open_period_end,
           parked_reason, address, tax_id, billing_email)
       SELECT gen_random_uuid(), lpad(n::text, 200, 'x'), 'USD', 'UTC', 1, '', 0, false,
              '2026-05-01Z', '2026-06-01Z', '2026-07-01Z', '', '', '', ''
         FROM generate_series(1, %(count)s) n""",
    """INSERT INTO billing_invoice (account_id, kind, status, period_start, period_end, currency,
           tax_rate, tax_is_inclusive, subscription_fee, usage_fee, discounts, credits_used,
           adjustments, tax, credited, top_up, total_amount, prepaid_used, amount_due, drafted_at,
           computed_at, finalise_after, waiting_for, seller, buyer, tax_name, payment_terms,
           time_zone, evidence_hash)
       SELECT id, 'usage', 'draft', '2026-05-01Z', '2026-06-01Z', 'USD', 0, false, 0,
              %(lines)s * 1.25, 0, 1, 0, 0, 0, 0, %(lines)s * 1.25 - 1, 0, %(lines)s * 1.25 - 1,
              '2026-06-01Z', '2026-06-01Z', '2026-06-01Z', '', '{}', '{}', '', '', '', ''
         FROM billing_account account
        WHERE NOT EXISTS (SELECT FROM billing_invoice WHERE account_id = account.id)""",
    """INSERT INTO billing_invoiceline (invoice_id, kind, position, description, meter, charge,
           quantity, base_unit, unit, unit_size, unit_price, amount, discount, period_start,
           period_end)
       SELECT invoice.id, 'usage', meter.position, 'Usage', meter.name, 'per_unit', 1000000, 'base',
              'shown', 1000, 0.00125, 1.25, 0, '2026-05-01Z', '2026-06-01Z'
         FROM billing_invoice invoice,
              unnest(%(meters)s::text[]) WITH ORDINALITY AS meter(name, position)
        WHERE invoice.status = 'draft'""",
    """UPDATE billing_invoice SET status = 'pending', number = 'X-' || id,
              finalised_at = '2026-06-01T01:00Z'
        WHERE status = 'draft'""",
)


def bill_many(count: int) -> None:
    """Add `count` accounts and their invoices, with a line a meter."""
    values: dict[str, Any] = {"count": count, "lines": len(METERS), "meters": list(METERS)}
    with connection.cursor() as cursor:
        for statement in _STATEMENTS:
            cursor.execute(statement, values)
