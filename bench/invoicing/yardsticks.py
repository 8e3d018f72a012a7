"""What a billing run is compared with: the straightforward loop, and the rows alone."""

from __future__ import annotations

import time
from collections.abc import Iterable

from django.db import connections, transaction

from bench.invoicing.month import AFTER
from billing import services
from billing.facts import period_facts, schedule_of
from billing.models import Account, Invoice
from billing.services.statements import new_draft, unsaved_rows
from billing.statement import state_period

# What a run leaves of an invoice.
TABLES = {
    "billing_invoice": "number IS NOT NULL",
    "billing_invoiceline": "true",
    "billing_invoicelinepart": "true",
    "billing_invoicediscount": "true",
    "billing_invoiceevidence": "true",
    "billing_invoicetransition": "true",
    "billing_creditentry": "kind <> 'grant'",
}


def draft_by_orm(account: Account) -> Invoice:
    """Draft one account's invoice as one would write it down: create it, create each line."""
    with transaction.atomic():
        account = services.lock_account(account.pk)
        period = account.open_period
        statement = state_period(period_facts(account, period))
        invoice = new_draft(account, period, schedule_of(account), now=AFTER)
        for row in unsaved_rows(invoice, statement, now=AFTER):
            row.save(force_insert=True)
    return invoice


def finalise_one_by_one(drafts: Iterable[Invoice]) -> None:
    """Finalise each draft in a transaction of its own."""
    for draft in drafts:
        services.finalise_invoice(draft.pk, now=AFTER)


def copy_again(invoices: int) -> float:
    """Return how many invoices a second a bare COPY of a run's rows writes.

    Into tables with the same columns, checks and indexes, without foreign keys and triggers.
    """
    copied: list[tuple[str, bytes]] = []
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM billing_invoice WHERE number IS NOT NULL")
        kept = int(cursor.fetchone()[0])
        for table, condition in TABLES.items():
            cursor.execute(f"CREATE TABLE bench_{table} (LIKE {table} INCLUDING ALL)")
            rows = f"SELECT * FROM {table} WHERE {condition}"  # noqa: S608 -- constants of this file
            with cursor.copy(f"COPY ({rows}) TO STDOUT") as copy:
                copied.append((table, b"".join(bytes(block) for block in copy)))
        began = time.perf_counter()
        with transaction.atomic(using="owner"):
            for table, content in copied:
                with cursor.copy(f"COPY bench_{table} FROM STDIN") as copy:
                    copy.write(content)
        elapsed_s = time.perf_counter() - began
        for table in TABLES:
            cursor.execute(f"DROP TABLE bench_{table}")
    if kept < invoices:
        raise RuntimeError(f"{kept} invoices are left by runs of {invoices}.")
    return round(kept / elapsed_s, 1)
