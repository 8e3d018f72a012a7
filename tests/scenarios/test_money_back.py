"""A customer who pays in parts and in two ways, is credited, and has money given back."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User

from billing import services
from billing.lifecycle import InvoiceStatus
from billing.services.top_ups import prepaid_balance
from payments.ledger import balances
from payments.models import Difference, Payment, Refund
from payments.services.offline import Transfer, record_offline_payment
from payments.services.overpaid import settle_credited
from payments.services.reconciling import begin_reconciliation, take_look
from payments.services.refunding import due_refunds, take_refund_step
from payments.services.refunds import (
    Proposal,
    RefundRefusedError,
    mark_refund_done,
    propose_refund,
)
from tests.billing.usage import JUNE, bill, record_usage
from tests.local_stripe import LocalStripe
from tests.payments.month import BILLED, account_with_card, collect, invoice_of

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def reconcile(now: datetime) -> None:
    row = begin_reconciliation(since=BILLED - DAY, now=now)
    while take_look(row.pk, now=now):
        pass


def test_every_cent_is_told_from_the_invoice_to_the_money_back(stripe: LocalStripe) -> None:
    clerk = User.objects.create_user("clerk")
    account = account_with_card(stripe)

    # May: 36. Ada pays 10 by bank transfer; the card is charged the rest.
    may = invoice_of(account)
    transfer = record_offline_payment(
        account.pk, Transfer(Decimal(10), "TX-1", BILLED), user_id=clerk.pk, now=BILLED
    )
    collect(BILLED)
    may.refresh_from_db()
    assert may.status == InvoiceStatus.PAID
    [charge] = stripe.charges()
    assert charge["amount"] == 2600

    # A third of it was wrong: what was paid of that is credit, and pays June's 12.
    by = services.Author("Wrong price", clerk.pk, "c1")
    services.credit_amount(may.pk, Decimal(20), by=by, now=BILLED + DAY)
    assert prepaid_balance(account) == 20
    record_usage(account.pk, JUNE.start + DAY, cpu_s=1_000_000)
    june = bill(account, JUNE)
    assert (june.status, june.amount_due) == (InvoiceStatus.PAID, 0)
    assert prepaid_balance(account) == 8

    # Ada wants the rest back. More than that has been spent.
    now = JUNE.end + DAY
    card = Payment.objects.get(method=Payment.Method.PROVIDER)
    with pytest.raises(RefundRefusedError, match=r"8\.00 USD of credit are left"):
        propose_refund(card.pk, Proposal(Decimal(20), "Asked", "R-1", None, clerk.pk), now=now)
    propose_refund(card.pk, Proposal(Decimal(8), "Asked", "R-1", None, clerk.pk), now=now)
    assert prepaid_balance(account) == 0

    # And 4 of the transfer as goodwill: they paid for what is invoiced still.
    back = propose_refund(transfer.pk, Proposal(Decimal(4), "Goodwill", "R-2", Decimal(0)), now=now)
    assert back.status == Refund.Status.APPROVED
    mark_refund_done(back.pk, bank_reference="BACK-1", now=now)
    for refund_id in due_refunds(now):
        take_refund_step(refund_id, now=now)
    settle_credited(now)
    reconcile(now)

    by_card = balances(Payment.Method.PROVIDER)["USD"]
    assert by_card.balance.amount == 18
    assert stripe.ledger()["usd"]["gross"] == 1800
    assert balances(Payment.Method.OFFLINE)["USD"].balance.amount == 6
    assert not Difference.objects.exists()
    # 36 - 20 + 12 were invoiced, and 24 are here: the other 4 are the goodwill.
    assert by_card.balance.amount + 6 == 36 - 20 + 12 - 4


def test_a_chargeback_of_what_was_paid_twice(stripe: LocalStripe) -> None:
    account = account_with_card(stripe)
    invoice_of(account)
    collect(BILLED)
    # The transfer was on its way already: it is credit now.
    record_offline_payment(
        account.pk, Transfer(Decimal(36), "TX-1", BILLED), user_id=None, now=BILLED + DAY
    )
    assert prepaid_balance(account) == 36
    [charge] = stripe.charges()
    opened = stripe.dispute(charge["id"])
    stripe.close_dispute(opened["id"], "lost")
    reconcile(BILLED + 2 * DAY)
    assert balances(Payment.Method.PROVIDER)["USD"].balance.amount == 0
    # What is left is the transfer's, which was credit from the start: nobody has it twice.
    assert not Difference.objects.exists()
    assert prepaid_balance(account) == 36
