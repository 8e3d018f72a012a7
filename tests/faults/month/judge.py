"""Compares what the product made of a month with what the oracle says; a sentence a difference."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Sum

from billing.conservation_queries import mismatch_count
from billing.models import CreditEntry, Invoice
from billing.services import check_conservation
from metering.audit import audit_usage
from metering.models import Gap, LateUsage, NetworkUsageRecord, UsageRecord
from payments.models import LIVE_ATTEMPT, Collection, Difference, Payment, PaymentAttempt, Refund
from tests.faults.billing_month import wrong_numbers
from tests.faults.month.oracle import Owed, Unmeasured, Usage, owed, taxed, usage_in
from tests.faults.month.script import GOOD_CARDS, Customer, Month
from tests.local_stripe import LocalStripe

SMALLEST_CHARGE = 50
FINAL = ("pending", "paid", "payment_failed", "pending_retry", "uncollectible")


@dataclass(frozen=True)
class Verdict:
    """What all invoices had to ask for before tax, what they do, in cents, and what is wrong."""

    expected_cents: int
    found_cents: int
    wrong: list[str]


def judge(month: Month, stripe: LocalStripe, *, now: datetime) -> Verdict:
    """Compare usage, invoices, credit and payments of the month with the oracle's."""
    gaps = _gaps()
    wrong: list[str] = []
    expected = found = 0
    for customer in month.customers:
        expected += sum(one.net for one in _expected(customer, gaps))
        found += sum(_owed(one).net + _adjusted(one) for one in _invoices(customer))
        wrong += _wrong_usage(customer, gaps)
        wrong += _wrong_invoices(customer, gaps)
        wrong += _wrong_payments(customer)
    wrong += [*invoiced_twice(month), *wrong_numbers(), *_wrong_proofs(now), *_wrong_ledger(stripe)]
    return Verdict(expected, found, wrong)


def invoiced_twice(month: Month) -> list[str]:
    """Return whose period has more than one invoice, a sentence each."""
    faults = []
    for customer in month.customers:
        starts = Counter(invoice.period_start for invoice in _invoices(customer))
        faults += [
            f"{customer.account} has {times} invoices of the period from {start}"
            for start, times in starts.items()
            if times > 1
        ]
    return faults


def late_share(month: Month) -> int:
    """Return how many customers had usage that came after its invoice."""
    lives = LateUsage.objects.values_list("life__sandbox__account_id", flat=True)
    return len(set(lives) & {customer.account for customer in month.customers})


def _gaps() -> list[Unmeasured]:
    rows = Gap.objects.values_list("life__container_id", "meter", "start", "end")
    return [Unmeasured(container, meter, (start, end)) for container, meter, start, end in rows]


def _own(customer: Customer, gaps: list[Unmeasured]) -> list[Unmeasured]:
    containers = {load.container for load in customer.loads}
    return [gap for gap in gaps if gap.container in containers]


def _wrong_usage(customer: Customer, gaps: list[Unmeasured]) -> Iterator[str]:
    own = _own(customer, gaps)
    for period in customer.periods():
        expected = usage_in(period, customer.loads, own)
        found = _usage(customer.account, period)
        if found != expected:
            yield f"{customer.account} used {expected} from {period[0]}; measured is {found}"


def _usage(account: UUID, period: tuple[datetime, datetime]) -> Usage:
    """Return what is recorded in a period's windows, on time and late."""
    start, end = period
    span = {"window_start__gte": start, "window_start__lt": end}
    lives = UsageRecord.objects.filter(life__sandbox__account_id=account, **span).aggregate(
        cpu=Sum("cpu_ns"), memory=Sum("memory_byte_ms")
    )
    network = NetworkUsageRecord.objects.filter(
        interface__life__sandbox__account_id=account, **span
    ).aggregate(egress=Sum("tx_bytes"))
    late = dict(
        LateUsage.objects.filter(life__sandbox__account_id=account, **span)
        .values_list("quantity_name")
        .annotate(Sum("quantity"))
    )
    return Usage(
        int((lives["cpu"] or 0) + late.get("cpu_ns", 0)),
        int((lives["memory"] or 0) + late.get("memory_byte_ms", 0)),
        int((network["egress"] or 0) + late.get("tx_bytes", 0)),
    )


def _expected(customer: Customer, gaps: list[Unmeasured]) -> list[Owed]:
    own = _own(customer, gaps)
    return [
        owed(customer, number, usage_in(period, customer.loads, own))
        for number, period in enumerate(customer.periods())
    ]


def _invoices(customer: Customer) -> list[Invoice]:
    rows = Invoice.objects.filter(account=customer.account, status__in=FINAL, kind="usage")
    return list(rows.order_by("period_start"))


def _wrong_invoices(customer: Customer, gaps: list[Unmeasured]) -> Iterator[str]:
    periods = customer.periods()
    expected = _expected(customer, gaps)
    invoices = {(i.period_start, i.period_end): i for i in _invoices(customer)}
    for period in invoices.keys() - set(periods):
        yield f"{customer.account} has an invoice of {period}"
    is_late = LateUsage.objects.filter(life__sandbox__account_id=customer.account).exists()
    found = [_owed(invoices.get(period)) for period in periods]
    if is_late:
        # What is asked for in two steps comes to what it comes to in one.
        nets = sum(one.net for one in expected)
        asked = sum(
            one.net + _adjusted(invoices.get(p)) for one, p in zip(found, periods, strict=True)
        )
        if nets != asked:
            yield f"{customer.account} owes {nets} in all, and is asked for {asked}"
    elif found != expected:
        yield f"{customer.account} owes {expected}, and its invoices say {found}"
    for invoice in invoices.values():
        yield from _wrong_totals(customer, invoice)
    yield from _wrong_credit(customer, list(invoices.values()))


def _cents(amount: Decimal) -> int:
    return int(amount * 100)


def _owed(invoice: Invoice | None) -> Owed:
    if invoice is None:
        return Owed(0, 0, 0, 0)
    return Owed(
        _cents(invoice.subscription_fee),
        _cents(invoice.usage_fee),
        _cents(invoice.discounts),
        _cents(invoice.credits_used),
    )


def _adjusted(invoice: Invoice | None) -> int:
    return _cents(invoice.adjustments) if invoice else 0


def _wrong_totals(customer: Customer, invoice: Invoice) -> Iterator[str]:
    net = _owed(invoice).net + _adjusted(invoice)
    tax = taxed(net, customer.tax_percent)
    if net >= 0 and (_cents(invoice.tax), _cents(invoice.total_amount)) != (tax, net + tax):
        yield f"{invoice} of {net} asks for {invoice.tax} of tax and {invoice.total_amount} in all"


def _wrong_credit(customer: Customer, invoices: list[Invoice]) -> Iterator[str]:
    """Prepaid credit pays what is left of the totals; promotional credit ends with its month."""
    held = customer.gift.dollars * 100 if customer.gift and customer.gift.prepaid else 0
    totals = sum(_cents(invoice.total_amount) for invoice in invoices)
    credited = sum(_cents(invoice.credited) for invoice in invoices)
    prepaid = sum(_cents(invoice.prepaid_used) for invoice in invoices)
    # What an earlier invoice took is no more there for a later one that comes to less.
    if prepaid != min(held, totals) and not credited:
        yield f"{customer.account} held {held}, owed {totals}, and {prepaid} of it is used"
    entries = CreditEntry.objects.filter(grant__account=customer.account)
    by_kind = entries.values_list("grant__kind").annotate(left=Sum("amount")).order_by()
    left = {kind: _cents(amount) for kind, amount in by_kind}
    if left.get("prepaid", 0) != held + credited - prepaid:
        yield f"{customer.account} has {left} of credit, of {held} and {credited}"
    if left.get("promotional", 0):
        yield f"{customer.account} has {left} of credit after its time"


def _wrong_payments(customer: Customer) -> Iterator[str]:
    """Who can pay has paid what is not too small to ask for; who cannot has not; nobody twice."""
    invoices = _invoices(customer)
    due = sum(_cents(invoice.amount_due) for invoice in invoices)
    payments = Payment.objects.filter(account=customer.account)
    paid = _cents(payments.aggregate(sum=Sum("amount"))["sum"] or Decimal(0))
    if customer.card in GOOD_CARDS:
        if not 0 <= due - paid < SMALLEST_CHARGE:
            yield f"{customer.account} owes {due} and paid {paid}"
    elif paid:
        yield f"{customer.account} cannot pay, and paid {paid}"
    refunds = Refund.objects.filter(payment__account=customer.account)
    wanted = 0
    if customer.refunded_percent and (first := payments.order_by("pk").first()):
        wanted = _cents(first.amount) * customer.refunded_percent // 100
    given = sum(_cents(refund.amount) for refund in refunds if refund.status == "succeeded")
    if given != wanted:
        yield f"{customer.account} is to have {wanted} back, and has {given}"


def _wrong_proofs(now: datetime) -> Iterator[str]:
    """The product's own proofs hold too."""
    for check, count in audit_usage(now=now).failing.items():
        yield f"audit of usage: {check}: {count}"
    after: int | None = None
    while (after := check_conservation(now=now, after=after)) is not None:
        pass
    if count := mismatch_count():
        yield f"{count} invoices do not add up"


def _wrong_ledger(stripe: LocalStripe) -> Iterator[str]:
    """Both sides have the same money, and each bill there was charged once at most."""
    by_bill: defaultdict[str, int] = defaultdict(int)
    for charge in stripe.charges():
        by_bill[charge["invoice"]] += 1
    ours = set(Collection.objects.values_list("provider_id", flat=True))
    for bill, times in by_bill.items():
        if times > 1 or bill not in ours:
            yield f"{bill} was charged {times} times, and is {'' if bill in ours else 'not '}ours"
    ledger: dict[str, Any] = stripe.ledger().get("usd", {})
    received = Payment.objects.aggregate(sum=Sum("amount"))["sum"] or Decimal(0)
    returned = Refund.objects.filter(status="succeeded").aggregate(sum=Sum("amount"))["sum"]
    here = (_cents(received), _cents(returned or Decimal(0)))
    there = (ledger.get("charged", 0), -ledger.get("refunded", 0))
    if here != there:
        yield f"received and returned are {here} here, and {there} there"
    for attempt in PaymentAttempt.objects.filter(LIVE_ATTEMPT):
        yield f"{attempt} is {attempt.status} still"
    for difference in Difference.objects.all():
        yield f"{difference}: {difference.ours}; {difference.theirs}"
    for violation in stripe.violations():
        yield f"not what Stripe takes: {violation}"
