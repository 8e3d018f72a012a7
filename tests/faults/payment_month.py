"""A month collected while the provider fails and workers are killed, from one seed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from unittest.mock import patch
from uuid import UUID

from django.conf import settings
from django.db.models import Sum
from stripe import HTTPClient

from billing.lifecycle import InvoiceStatus
from billing.models import Account, Invoice
from billing.services import Because, retry_payment
from payments.models import (
    LIVE_ATTEMPT,
    Collection,
    Customer,
    Difference,
    Payment,
    PaymentAttempt,
    PaymentMethod,
)
from payments.provider import ProviderError
from payments.services.customers import ensure_customer
from payments.services.settling import settle_bill
from tests.billing.usage import bill, open_account, record_usage
from tests.faults import dying
from tests.local_stripe import LocalStripe
from tests.payments.month import BILLED, collect

ACCOUNTS = 3
LIVES = 5
SWEEPS_A_LIFE = 3
SETTLED_WITHIN = 10
SWEEP = timedelta(seconds=15)
HELD_S = 0.12
# How long an answer is waited for: less than one that is held takes, and longer than any other.
SHORT_S, LONG_S = HELD_S / 2, 10
CARDS = (
    "pm_card_visa",
    "pm_card_visa",
    "pm_card_mastercard",
    "pm_card_chargeCustomerFail",
    "pm_card_visa_chargeDeclinedInsufficientFunds",
    "pm_card_authenticationRequired",
    "",
)
FAULTS = {
    "timeout_after_success": 0.03,
    "timeout_before": 0.01,
    "reset_before": 0.03,
    "reset_after_success": 0.05,
    "500_after_success": 0.04,
    "500_before": 0.03,
    "409": 0.02,
    "429": 0.03,
}
KILLED = 0.8
MOST_STATEMENTS = 250


@dataclass
class Outcome:
    """What a seed did, and what is wrong after it: nothing, it is to be hoped."""

    seed: int
    kills: int = 0
    faults: int = 0
    attempts: int = 0
    charges: int = 0
    wrong: list[str] = field(default_factory=list)


def warm_up(stripe: LocalStripe) -> None:
    """Have the SDK load what it loads at its first answers, once and not in every worker."""
    account = open_account(name="Warm-up")
    stripe.attach(ensure_customer(account.pk, now=BILLED))
    record_usage(account.pk, cpu_s=1_000_000)
    bill(account)
    collect(BILLED)


@contextmanager
def reads_soon_again() -> Iterator[None]:
    """Let the SDK try a read again after a while as short as answers are; it waits half a second.

    That is most of what a month with a failing provider takes, and no clock can be moved past it.
    """
    with patch.object(HTTPClient, "INITIAL_DELAY", HELD_S / 10):
        yield


def run_month(seed: int, stripe: LocalStripe) -> Outcome:
    """Collect some invoices with everything going wrong that the seed draws; then look.

    The provider is empty, and the database may hold the accounts of other seeds.
    """
    outcome = Outcome(seed)
    draw = Random(seed)  # noqa: S311 - repeatable, and no secret
    stripe.set_clock(BILLED.timestamp())
    accounts = [open_account(name=f"Seed {seed}, {at}") for at in range(ACCOUNTS)]
    invoices = [_invoice(account, draw) for account in accounts]
    cards = {account.pk: draw.choice(CARDS) for account in accounts}
    stripe.random_faults(seed, FAULTS, seconds=HELD_S)
    settings.STRIPE_TIMEOUT_S = SHORT_S
    now = BILLED
    for _ in range(LIVES):
        outcome.kills += _work(now, draw, kills=draw.random() < KILLED)
        _customers_act(accounts, cards, invoices, stripe, draw, now=now)
        # Now and then keys are forgotten meanwhile.
        now += draw.choice((SWEEP * 3, timedelta(minutes=3), timedelta(hours=25)))
        stripe.set_clock(now.timestamp())
    outcome.faults = sum(1 for call in stripe.log() if call["fault"])
    stripe.clear_faults()
    settings.STRIPE_TIMEOUT_S = LONG_S
    _calm_down(accounts, now, stripe)
    _judge(outcome, accounts, invoices, stripe)
    return outcome


def _invoice(account: Account, draw: Random) -> Invoice:
    record_usage(account.pk, cpu_s=draw.randrange(50_000, 5_000_000))
    return bill(account)


def _work(now: datetime, draw: Random, *, kills: bool) -> int:
    """Do some sweeps in a process of their own; return 1 if it was killed in the middle."""
    after = draw.randrange(1, MOST_STATEMENTS) if kills else None
    until = now + SWEEP * (SWEEPS_A_LIFE - 1)
    ended = dying.end(dying.begin(lambda: collect(now, until=until), kill_after=after))
    if ended == -signal.SIGKILL:
        return 1
    if ended:
        raise AssertionError(f"The worker failed with status {ended}.")
    return 0


def _customers_act(
    accounts: list[Account],
    cards: dict[UUID, str],
    invoices: list[Invoice],
    stripe: LocalStripe,
    draw: Random,
    *,
    now: datetime,
) -> None:
    """Let customers add cards, confirm and pay on the provider's page, and staff try again."""
    known = {
        customer.pk: str(customer.provider_id)
        for customer in Customer.objects.filter(account__in=accounts, provider_id__isnull=False)
    }
    for account_id, customer_id in known.items():
        if card := cards.pop(account_id, ""):
            stripe.attach(customer_id, card)
    for invoice in invoices:
        invoice.refresh_from_db(fields=["status"])
        collection = Collection.objects.filter(parts__invoice=invoice).first()
        if invoice.status != InvoiceStatus.PAYMENT_FAILED or collection is None:
            continue
        way = draw.randrange(5)
        if way == 0:
            stripe.attach(known[invoice.account_id], "pm_card_visa")
            PaymentMethod.objects.filter(account_id=invoice.account_id).update(is_default=False)
        if way == 1:
            _pay_by_hand(stripe, str(collection.provider_id))
        if way <= 2:
            retry_payment(invoice.pk, because=Because("Try again"), now=now)
        if way == 3 and draw.random() < 0.5:
            # What fails is tried again by the sweep of events, which is not here.
            with suppress(ProviderError):
                settle_bill(str(collection.provider_id), now=now)


def _pay_by_hand(stripe: LocalStripe, invoice_id: str) -> None:
    try:
        stripe.pay(invoice_id, token="pm_card_visa")  # noqa: S106 - a test card
    except RuntimeError:
        # It is paid already, or is being paid.
        return


def _calm_down(accounts: list[Account], now: datetime, stripe: LocalStripe) -> None:
    """Let sweeps and events that came late settle what is left, with nothing going wrong."""
    for _ in range(SETTLED_WITHIN):
        now += timedelta(hours=1)
        stripe.set_clock(now.timestamp())
        collect(now)
    for bill_id in Collection.objects.filter(
        account__in=accounts, provider_id__isnull=False
    ).values_list("provider_id", flat=True):
        settle_bill(str(bill_id), now=now)


def _judge(
    outcome: Outcome, accounts: list[Account], invoices: list[Invoice], stripe: LocalStripe
) -> None:
    wrong = outcome.wrong
    charges = stripe.charges()
    outcome.charges = len(charges)
    outcome.attempts = PaymentAttempt.objects.filter(collection__account__in=accounts).count()
    by_bill = [charge["invoice"] for charge in charges]
    for invoice in invoices:
        invoice.refresh_from_db()
        bills = set(
            Collection.objects.filter(parts__invoice=invoice).values_list("provider_id", flat=True)
        )
        charged = sum(1 for bill_id in by_bill if bill_id in bills)
        if charged > 1:
            wrong.append(f"{invoice} is charged {charged} times")
        if (invoice.status == InvoiceStatus.PAID) != (charged == 1):
            wrong.append(f"{invoice} is {invoice.status} and charged {charged} times")
        if invoice.status not in {InvoiceStatus.PAID, InvoiceStatus.PAYMENT_FAILED}:
            wrong.append(f"{invoice} is stuck as {invoice.status}")
        due = Payment.objects.filter(allocations__invoice=invoice).aggregate(sum=Sum("amount"))
        if charged == 1 and due["sum"] != invoice.amount_due:
            wrong.append(f"{invoice} of {invoice.amount_due} was paid with {due['sum']}")
    ours = Payment.objects.filter(account__in=accounts).aggregate(sum=Sum("amount"))["sum"]
    theirs = Decimal(stripe.ledger().get("usd", {}).get("charged", 0)) / 100
    if (ours or Decimal(0)) != theirs:
        wrong.append(f"Our ledger has {ours}, the provider's {theirs}")
    live = PaymentAttempt.objects.filter(LIVE_ATTEMPT, collection__account__in=accounts)
    wrong.extend(f"{attempt} is {attempt.status} still" for attempt in live)
    unpaid_bills = {charge["invoice"] for charge in charges} - set(
        Collection.objects.values_list("provider_id", flat=True)
    )
    wrong.extend(f"{bill_id} was paid and is not ours" for bill_id in unpaid_bills)
    wrong.extend(
        f"{difference}: {difference.ours}; {difference.theirs}"
        for difference in Difference.objects.filter(account__in=accounts)
    )
    wrong.extend(f"Violation: {violation}" for violation in stripe.violations())
