"""Accounts with an invoice to collect, and the clock that collects it."""

from __future__ import annotations

from datetime import datetime, timedelta

from billing.models import Account, Invoice
from payments.models import Collection
from payments.services.collecting import take_step
from payments.services.customers import ensure_customer
from payments.services.sweeps import begin_due_collections, due_steps
from tests.billing.usage import AFTER_MAY, bill, open_account, record_usage
from tests.local_stripe import LocalStripe

BILLED = AFTER_MAY
CARD = "pm_card_visa"
MOST_STEPS = 30
CPU_OF_36_DOLLARS = 3_000_000


def account_with_card(stripe: LocalStripe, token: str = CARD, **more: str) -> Account:
    """Open an account that pays with a test card."""
    account = open_account(**more)
    stripe.attach(ensure_customer(account.pk, now=BILLED), token)
    return account


def invoice_of(account: Account, *, cpu_s: int = CPU_OF_36_DOLLARS) -> Invoice:
    """Bill the account for some usage of May."""
    record_usage(account.pk, cpu_s=cpu_s)
    return bill(account)


def collect(now: datetime = BILLED, *, until: datetime | None = None) -> None:
    """Do what the sweeps do, at `now` or, every 15 s from then on, until there is nothing due."""
    while True:
        begin_due_collections(now)
        for collection_id in due_steps(now):
            for _ in range(MOST_STEPS):
                if not take_step(collection_id, now=now):
                    break
            else:
                raise AssertionError(f"Collection {collection_id} is never done.")
        if until is None or now >= until:
            return
        now += timedelta(seconds=15)


def collection_of(invoice: Invoice) -> Collection:
    """Return the newest collection that asks for the invoice."""
    return Collection.objects.filter(parts__invoice=invoice).latest("started_at")
