from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from pytest_django.fixtures import Settings

from billing import services
from billing.credits import CreditKind
from billing.lifecycle import InvoiceStatus
from billing.models import Account, Invoice
from billing.services.top_ups import prepaid_balance
from payments.ledger import balances
from payments.models import Dispute, Payment, Refund
from payments.services.overpaid import settle_credited
from payments.services.refundable import had_twice, refundable
from payments.services.refunds import (
    Proposal,
    RefundRefusedError,
    approve_refund,
    mark_refund_done,
    propose_refund,
    reject_refund,
)
from tests.billing.usage import open_account
from tests.payments.month import BILLED, invoice_of
from tests.payments.test_collecting import status_of
from tests.payments.test_offline import credit, record

pytestmark = pytest.mark.django_db
LATER = BILLED + timedelta(days=2)


@pytest.fixture(autouse=True)
def _threshold(settings: Settings) -> None:
    settings.REFUND_APPROVAL_THRESHOLD = 30


@pytest.fixture
def clerk() -> User:
    return User.objects.create_user("clerk")


@pytest.fixture
def manager() -> User:
    return User.objects.create_user("manager")


def paid(amount: str = "36") -> tuple[Account, Invoice, Payment]:
    """Return an account's invoice of 36, and a transfer that paid it."""
    account = open_account()
    invoice = invoice_of(account)
    return account, invoice, record(account, amount)


def propose(payment: Payment, amount: str, reference: str = "R-1", **more: Any) -> Refund:
    proposal = Proposal(Decimal(amount), "Not content", reference, **more)
    return propose_refund(payment.pk, proposal, now=LATER)


def done(refund: Refund, reference: str = "BACK-1") -> Refund:
    return mark_refund_done(refund.pk, bank_reference=reference, now=LATER)


def test_a_small_one_is_approved_and_marked_done_under_the_banks_reference(clerk: User) -> None:
    account, invoice, payment = paid()
    refund = propose(payment, "10", user_id=clerk.pk)
    assert (refund.status, refund.author, refund.decided_by) == ("approved", clerk, None)
    assert balances(Payment.Method.OFFLINE)["USD"].balance.amount == 36
    for _ in range(2):
        refund = done(refund)
        assert (refund.status, refund.bank_reference) == ("succeeded", "BACK-1")
    with pytest.raises(RefundRefusedError, match="succeeded"):
        done(refund, "BACK-2")
    sums = balances(Payment.Method.OFFLINE)["USD"]
    assert [sums.received.amount, sums.refunded.amount, sums.balance.amount] == [36, 10, 26]
    # The invoice stays paid, and no credit was there to take.
    assert status_of(invoice) == InvoiceStatus.PAID
    assert refund.credit_taken == 0
    assert prepaid_balance(account) == 0


def test_the_same_refund_twice_is_one() -> None:
    _, _, payment = paid()
    first = propose(payment, "10")
    assert propose(payment, "10.00", " R-1 ") == first
    assert Refund.objects.count() == 1
    with pytest.raises(RefundRefusedError, match=r"R-1' is a refund of 10\.00"):
        propose(payment, "11")


@pytest.mark.parametrize(
    ("amount", "reference", "message"),
    [
        ("0", "R-1", "up to 36.00 USD"),
        ("-1", "R-1", "up to 36.00 USD"),
        ("36.01", "R-1", "up to 36.00 USD"),
        ("0.001", "R-1", "whole cents"),
        ("Infinity", "R-1", "whole cents"),
        ("1", " ", "a reference of yours"),
        ("1", "x" * 101, "100 characters"),
    ],
)
def test_what_cannot_go_back_is_refused(amount: str, reference: str, message: str) -> None:
    _, _, payment = paid()
    with pytest.raises(RefundRefusedError, match=message):
        propose(payment, amount, reference)
    assert not Refund.objects.exists()


def test_no_more_goes_back_than_came() -> None:
    _, _, payment = paid()
    propose(payment, "20")
    with pytest.raises(RefundRefusedError, match=r"up to 16\.00 USD"):
        propose(payment, "16.01", "R-2")
    second = propose(payment, "16", "R-2")
    assert refundable(payment).amount.amount == 0
    # One that is rejected counts no more.
    reject_refund(second.pk, user_id=None, now=LATER)
    assert refundable(payment).amount.amount == 16


def test_a_large_one_waits_for_a_second_person(clerk: User, manager: User) -> None:
    _, _, payment = paid()
    refund = propose(payment, "30.01", user_id=clerk.pk)
    assert refund.status == "proposed"
    with pytest.raises(RefundRefusedError, match=r"proposed\. Only an approved"):
        done(refund)
    with pytest.raises(RefundRefusedError, match="second person"):
        approve_refund(refund.pk, user_id=clerk.pk, now=LATER)
    for _ in range(2):
        refund = approve_refund(refund.pk, user_id=manager.pk, now=LATER)
        assert (refund.status, refund.decided_by) == ("approved", manager)
    done(refund)


def test_many_small_ones_are_a_large_one(clerk: User, manager: User) -> None:
    _, _, payment = paid()
    assert propose(payment, "20", "R-1", user_id=clerk.pk).status == "approved"
    large = propose(payment, "10.01", "R-2", user_id=clerk.pk)
    assert large.status == "proposed"
    # One that still waits makes none of the others large.
    assert propose(payment, "1", "R-3", user_id=clerk.pk).status == "approved"
    approve_refund(large.pk, user_id=manager.pk, now=LATER)
    # What a second person agreed to does not count.
    assert propose(payment, "1", "R-4", user_id=clerk.pk).status == "approved"


def test_one_that_is_rejected_does_not_happen(clerk: User, manager: User) -> None:
    _, _, payment = paid()
    refund = propose(payment, "36", user_id=clerk.pk)
    for _ in range(2):
        refund = reject_refund(refund.pk, user_id=clerk.pk, now=LATER)
        assert refund.status == "rejected"
    with pytest.raises(RefundRefusedError, match="was rejected"):
        approve_refund(refund.pk, user_id=manager.pk, now=LATER)


def test_the_database_wants_a_second_person_too(clerk: User) -> None:
    _, _, payment = paid()
    refund = propose(payment, "36", user_id=clerk.pk)
    second_person = pytest.raises(IntegrityError, match="refund_is_approved_by_a_second_person")
    with second_person, transaction.atomic():
        Refund.objects.filter(pk=refund.pk).update(status="approved", decided_by=clerk)


def test_the_database_lets_no_more_go_back_than_came() -> None:
    _, _, payment = paid()
    propose(payment, "20")
    row = {"payment": payment, "reason": "Race", "proposed_at": LATER, "try_at": LATER}
    more = pytest.raises(IntegrityError, match="would be more than it")
    with more, transaction.atomic():
        Refund.objects.create(**row, amount=17, status="approved", reference="R-2")
    # One that was made at the provider is a fact.
    Refund.objects.create(**row, amount=17, status="pending", provider_id="re_1")


def test_a_refund_takes_the_credit_back_that_the_money_became() -> None:
    account, _, payment = paid("50")
    assert prepaid_balance(account) == 14
    left = refundable(payment)
    assert [left.amount.amount, left.credit.amount] == [50, 14]
    refund = propose(payment, "20")
    assert refund.credit_taken == 14
    assert prepaid_balance(account) == 0
    # What is left of the payment paid the invoice.
    assert refundable(payment).credit.amount == 0
    assert propose(payment, "5", "R-2").credit_taken == 0


def test_how_much_credit_it_takes_may_be_said_but_never_so_that_both_are_had(
    settings: Settings,
) -> None:
    settings.REFUND_APPROVAL_THRESHOLD = 100
    account, _, payment = paid("50")
    # 36 of it paid the invoice: giving those back leaves the credit to the customer.
    assert propose(payment, "10", "R-1", credit=Decimal(0)).credit_taken == 0
    with pytest.raises(RefundRefusedError, match=r"Use 2.00 USD or more, up to 28.00 USD"):
        propose(payment, "28", "R-2", credit=Decimal(1))
    with pytest.raises(RefundRefusedError, match="whole cents"):
        propose(payment, "28", "R-2", credit=Decimal("2.001"))
    with pytest.raises(RefundRefusedError, match=r"Use 2.00 USD or more"):
        propose(payment, "28", "R-2", credit=Decimal(29))
    assert propose(payment, "28", "R-2", credit=Decimal(2)).credit_taken == 2
    assert prepaid_balance(account) == 12
    assert had_twice(payment).amount == 0


def test_more_credit_may_be_taken_than_the_payment_became() -> None:
    account, _, payment = paid()
    gift = services.Gift(CreditKind.PREPAID, Decimal(20), "Remainder", "g1")
    services.grant_credit(account.pk, gift, now=BILLED)
    propose(payment, "10", credit=Decimal(10))
    assert prepaid_balance(account) == 10


def test_credit_that_is_spent_cannot_be_refunded() -> None:
    account, _, payment = paid("50")
    by = services.ByHand("Spent", "s1")
    services.take_prepaid(account.pk, Decimal(10), by=by, now=LATER)
    with pytest.raises(RefundRefusedError, match=r"4.00 USD of credit are left"):
        propose(payment, "14")
    assert not Refund.objects.exists()
    assert prepaid_balance(account) == 4
    assert propose(payment, "4").credit_taken == 4


def test_credit_notes_and_refunds_do_not_give_the_same_money_twice() -> None:
    account, invoice, payment = paid()
    # The invoice is paid, so the note is credit.
    credit(invoice, "16", "c1")
    assert prepaid_balance(account) == 16
    left = refundable(payment)
    assert [left.amount.amount, left.credit.amount] == [36, 16]
    assert propose(payment, "16").credit_taken == 16
    assert prepaid_balance(account) == 0
    assert refundable(payment).credit.amount == 0


def test_a_note_over_a_payment_in_part_is_credit_of_it_too() -> None:
    account, invoice, payment = paid("30")
    credit(invoice, "10", "c1")
    settle_credited(LATER)
    assert prepaid_balance(account) == 4
    assert refundable(payment).credit.amount == 4
    assert propose(payment, "4").credit_taken == 4
    assert prepaid_balance(account) == 0


def test_of_two_payments_the_credit_is_taken_once() -> None:
    account, invoice, first = paid("18")
    second = record(account, "18", "TX-2")
    credit(invoice, "24", "c1")
    assert prepaid_balance(account) == 24
    assert refundable(first).credit.amount == refundable(second).credit.amount == 18
    assert propose(first, "18", "R-1").credit_taken == 18
    assert refundable(second).credit.amount == 6
    assert propose(second, "18", "R-2").credit_taken == 6
    assert prepaid_balance(account) == 0


def test_what_paid_for_what_is_invoiced_still_may_go_back_without_credit_once() -> None:
    account, invoice, first = paid("10")
    second = record(account, "26", "TX-2")
    credit(invoice, "20", "c1")
    # 16 of the 36 are kept: any of the two payments may give them back, not both.
    assert refundable(first).without_credit.amount == 10
    assert refundable(second).without_credit.amount == 16
    assert propose(first, "10", "R-1", credit=Decimal(0)).credit_taken == 0
    assert refundable(second).without_credit.amount == 6
    with pytest.raises(RefundRefusedError, match=r"Use 4\.00 USD or more"):
        propose(second, "10", "R-2", credit=Decimal(3))
    assert propose(second, "10", "R-2", credit=Decimal(4)).credit_taken == 4
    assert had_twice(first) == had_twice(second)
    assert had_twice(second).amount == 0


def test_the_credit_of_one_that_does_not_happen_is_there_again(clerk: User) -> None:
    account, _, payment = paid("50")
    large = propose(payment, "50", user_id=clerk.pk)
    # Nothing is taken while it waits.
    assert prepaid_balance(account) == 14
    reject_refund(large.pk, user_id=clerk.pk, now=LATER)
    small = propose(payment, "14", "R-2", user_id=clerk.pk)
    assert prepaid_balance(account) == 0
    for _ in range(2):
        reject_refund(small.pk, user_id=clerk.pk, now=LATER)
        assert prepaid_balance(account) == 14
    assert refundable(payment).credit.amount == 14


def test_one_that_is_done_stays_done() -> None:
    _, _, payment = paid()
    refund = done(propose(payment, "10"))
    with pytest.raises(RefundRefusedError, match="succeeded already"):
        reject_refund(refund.pk, user_id=None, now=LATER)


def test_approving_takes_the_credit_that_is_left_or_refuses(clerk: User, manager: User) -> None:
    account, _, payment = paid("50")
    refund = propose(payment, "50", user_id=clerk.pk)
    by = services.ByHand("Spent", "s1")
    services.take_prepaid(account.pk, Decimal(10), by=by, now=LATER)
    with pytest.raises(RefundRefusedError, match="takes credit back"):
        approve_refund(refund.pk, user_id=manager.pk, now=LATER)
    refund.refresh_from_db()
    assert refund.status == "proposed"


def dispute(payment: Payment, status: str = "open") -> Dispute:
    return Dispute.objects.create(
        provider_id="du_1",
        payment=payment,
        amount=payment.amount,
        status=status,
        reason="fraudulent",
        opened_at=LATER,
        closed_at=None if status == "open" else LATER,
    )


def test_what_the_bank_has_taken_back_is_not_refunded(clerk: User, manager: User) -> None:
    _, _, payment = paid()
    waiting = propose(payment, "36", user_id=clerk.pk)
    made = dispute(payment)
    with pytest.raises(RefundRefusedError, match="disputed"):
        propose(payment, "1", "R-2")
    with pytest.raises(RefundRefusedError, match="gone meanwhile"):
        approve_refund(waiting.pk, user_id=manager.pk, now=LATER)
    Dispute.objects.filter(pk=made.pk).update(status="lost", closed_at=LATER)
    with pytest.raises(RefundRefusedError, match="gone meanwhile"):
        approve_refund(waiting.pk, user_id=manager.pk, now=LATER)
    assert balances(Payment.Method.OFFLINE)["USD"].disputed.amount == 36
    Dispute.objects.filter(pk=made.pk).update(status="won")
    assert approve_refund(waiting.pk, user_id=manager.pk, now=LATER).status == "approved"
    assert balances(Payment.Method.OFFLINE)["USD"].disputed.amount == 0
