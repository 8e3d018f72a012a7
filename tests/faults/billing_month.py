"""A billing month of many accounts, and what each of them owes, reckoned without the product.

The oracle is plain fractions, from the usage that was put in and the price list on the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import floor
from random import Random
from uuid import UUID

from django.db.models import Sum

from billing import services
from billing.models import Account, CreditEntry, Invoice, InvoiceTransition, NumberSeries
from billing.totals import Tax
from metering.period import window_start
from tests.billing.usage import read_streams_until, record_usage

GIGABYTE = 1024**3
# A plan's fee and the credit that comes with it, in dollars.
PLANS = {"developer": (0, 0), "professional": (99, 100), "team": (299, 300)}
TAX = Tax(Decimal("0.19"))
LAST_DAY_OF_ALL_MONTHS = 28
INVOICED = ("subscription_fee", "usage_fee", "discounts", "credits_used", "tax", "total_amount")


@dataclass(frozen=True)
class Customer:
    """An account with one month's usage."""

    account_id: UUID
    plan: str
    month_end: datetime
    cpu_s: int
    memory_gb_s: int
    egress_bytes: int

    @property
    def owed(self) -> tuple[int, ...]:
        """What the invoice says, in cents, in the order of INVOICED."""
        fee, credit = PLANS[self.plan]
        usage = (
            _cents(Fraction(12 * self.cpu_s, 10**6))
            + _cents(Fraction(4 * self.memory_gb_s, 10**6))
            + _cents(Fraction(2 * self.egress_bytes, 100 * GIGABYTE))
        )
        # Of the two volume rules the higher one that is reached holds.
        percent = 10 if usage >= 2000_00 else 5 if usage >= 500_00 else 0
        discount = _cents(Fraction(usage * percent, 100 * 100))
        used = min(100 * credit, usage - discount)
        net = 100 * fee + usage - discount - used
        tax = _cents(Fraction(net * 19, 100 * 100))
        return (100 * fee, usage, discount, used, tax, net + tax)


def _cents(dollars: Fraction) -> int:
    return floor(dollars * 100 + Fraction(1, 2))


def open_customers(count: int, *, random: Random, now: datetime) -> list[Customer]:
    """Open accounts whose first month ended some days before `now`, and whose next is running."""
    some_days_ago = now - timedelta(days=3)
    day = min(some_days_ago.day, LAST_DAY_OF_ALL_MONTHS)
    end = some_days_ago.replace(day=day, hour=0, minute=0, second=0, microsecond=0)
    start = (end.replace(day=1) - timedelta(days=1)).replace(day=day)
    customers = [_open(f"Customer {number}", random, start, end) for number in range(count)]
    read_streams_until(now + timedelta(days=1))
    return customers


def _open(name: str, random: Random, start: datetime, end: datetime) -> Customer:
    account = services.open_account(name=name, now=start, anchor_day=start.day, tax=TAX)
    customer = Customer(
        account.pk,
        random.choice(list(PLANS)),
        end,
        # Below the credit, below the first discount, below the second, and above.
        cpu_s=random.randrange(1, random.choice((10**7, 4 * 10**7, 10**8, 3 * 10**8))),
        memory_gb_s=random.randrange(1, 8 * 10**6),
        egress_bytes=random.randrange(1, 5 * 10**12),
    )
    services.subscribe(account.pk, plan_code=customer.plan, now=start)
    record_usage(
        account.pk,
        window_start(start + random.random() * (end - start)),
        cpu_s=customer.cpu_s,
        memory_gb_s=customer.memory_gb_s,
        egress_bytes=customer.egress_bytes,
    )
    return customer


def find_faults(customers: Sequence[Customer]) -> list[str]:
    """Return what is wrong with the invoices of these customers, a sentence each."""
    return [*_wrong_invoices(customers), *_wrong_accounts(customers), *wrong_numbers()]


def _wrong_invoices(customers: Sequence[Customer]) -> Iterator[str]:
    rows = Invoice.objects.values_list("account_id", *INVOICED)
    invoiced: dict[UUID, list[tuple[Decimal, ...]]] = {}
    for account_id, *figures in rows:
        invoiced.setdefault(account_id, []).append(tuple(100 * figure for figure in figures))
    for customer in customers:
        found = invoiced.pop(customer.account_id, [])
        if len(found) != 1:
            yield f"{customer.account_id} has {len(found)} invoices"
        elif found[0] != customer.owed:
            yield f"{customer.account_id} owes {customer.owed} and its invoice says {found[0]}"
    for account_id in invoiced:
        yield f"{account_id} is nobody's account"
    steps = Counter(InvoiceTransition.objects.values_list("invoice", "to_status"))
    yield from (
        f"invoice {step} was made {times} times" for step, times in steps.items() if times > 1
    )


def _wrong_accounts(customers: Sequence[Customer]) -> Iterator[str]:
    entries = CreditEntry.objects.filter(kind="use").values_list("grant__account")
    used = dict(entries.annotate(total=Sum("amount")).order_by())
    accounts = Account.objects.in_bulk([customer.account_id for customer in customers])
    for customer in customers:
        account = accounts[customer.account_id]
        if account.open_period_start != customer.month_end:
            yield f"{account.pk} goes on from {account.open_period_start}"
        if account.parked_reason:
            yield f"{account.pk} is parked: {account.parked_reason}"
        if -100 * used.get(account.pk, Decimal(0)) != customer.owed[INVOICED.index("credits_used")]:
            yield f"{account.pk} used {used.get(account.pk)} of its credit"


def wrong_numbers() -> Iterator[str]:
    counters = NumberSeries.objects.order_by("year")
    expected = [
        f"{counter.year}-{number:06d}"
        for counter in counters
        for number in range(1, counter.last_number + 1)
    ]
    given = Counter(Invoice.objects.values_list("number", flat=True))
    for number in expected:
        if number not in given:
            yield f"number {number} is a gap"
    for one, times in given.items():
        if times > 1 or one not in expected:
            yield f"number {one} was given {times} times"
