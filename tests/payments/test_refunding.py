from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings
from stripe import StripeClient

from billing.models import Account
from billing.services.top_ups import prepaid_balance
from payments.ledger import balances
from payments.models import Difference, Dispute, Payment, ProviderCall, Refund
from payments.services.differences import settle_difference
from payments.services.disputes import take_dispute
from payments.services.refundable import had_twice, refundable
from payments.services.refunding import due_refunds, take_refund_step, take_refunds
from payments.services.refunds import (
    Proposal,
    RefundRefusedError,
    propose_refund,
    take_credit_after,
)
from tests.local_stripe import API_KEY, LocalStripe
from tests.payments.month import BILLED, CARD, account_with_card, collect, invoice_of
from tests.payments.test_collecting import FAILING, HELD_S
from tests.payments.test_top_ups import asked_for, sweep

pytestmark = pytest.mark.django_db
LATER = BILLED + timedelta(days=2)
PENDING = "pm_card_pendingRefund"


@pytest.fixture(autouse=True)
def _threshold(settings: Settings) -> None:
    settings.REFUND_APPROVAL_THRESHOLD = 100


def paid(stripe: LocalStripe, token: str = CARD) -> Payment:
    """Return the payment of an invoice of 36 by card."""
    invoice_of(account_with_card(stripe, token))
    collect()
    return Payment.objects.get()


def topped_up(stripe: LocalStripe) -> tuple[Account, Payment]:
    """Return an account that has bought 50 of prepaid credit, and the payment."""
    account = account_with_card(stripe)
    asked_for(account)
    sweep(BILLED)
    return account, Payment.objects.get()


def propose(payment: Payment, amount: str, reference: str = "R-1") -> Refund:
    proposal = Proposal(Decimal(amount), "Not content", reference)
    return propose_refund(payment.pk, proposal, now=LATER)


def ask(*, minutes: int = 0) -> None:
    """Do what the sweeps do with refunds."""
    for minute in range(minutes + 1):
        now = LATER + timedelta(minutes=minute)
        for refund_id in due_refunds(now):
            take_refund_step(refund_id, now=now)


def there(stripe: LocalStripe) -> int:
    """Return what the provider says went back, in cents."""
    return -int(stripe.ledger()["usd"]["refunded"])


def both_sides_agree(stripe: LocalStripe) -> bool:
    ours = balances(Payment.Method.PROVIDER)["USD"].balance.amount
    return ours * 100 == stripe.ledger()["usd"]["gross"]


def test_a_refund_is_asked_for_once_and_done(stripe: LocalStripe) -> None:
    refund = propose(paid(stripe), "10")
    for _ in range(3):
        ask(minutes=2)
    refund.refresh_from_db()
    assert refund.status == "succeeded"
    assert there(stripe) == 1000
    assert both_sides_agree(stripe)
    [asked] = stripe.log("PostRefunds")
    assert asked["key"] == f"refund-{refund.pk}"
    assert asked["given"]["metadata"]["refund_id"] == str(refund.pk)
    assert ProviderCall.objects.get(refund=refund).outcome == "done"


@pytest.mark.parametrize("operation", ["PostRefunds", "GetRefunds"])
@pytest.mark.parametrize("kind", FAILING)
def test_whatever_goes_wrong_money_goes_back_once(
    stripe: LocalStripe, kind: str, operation: str
) -> None:
    refund = propose(paid(stripe), "10")
    stripe.fault(kind, operation, seconds=HELD_S)
    ask(minutes=4)
    refund.refresh_from_db()
    assert refund.status == "succeeded"
    assert there(stripe) == 1000
    assert both_sides_agree(stripe)
    assert Refund.objects.count() == 1
    assert not Difference.objects.exists()


def test_an_answer_of_yesterday_is_looked_for_before_it_is_asked_again(
    stripe: LocalStripe,
) -> None:
    refund = propose(paid(stripe), "10")
    stripe.fault("timeout_after_success", "PostRefunds", seconds=HELD_S)
    ask()
    now = LATER + timedelta(days=2)
    take_refund_step(refund.pk, now=now)
    refund.refresh_from_db()
    assert refund.status == "succeeded"
    assert there(stripe) == 1000
    assert len(stripe.log("PostRefunds")) == 1


def test_a_worker_that_died_in_it_is_followed_by_another(stripe: LocalStripe) -> None:
    refund = propose(paid(stripe), "10")
    Refund.objects.update(claimed_until=LATER + timedelta(seconds=45))
    assert not take_refund_step(refund.pk, now=LATER)
    assert take_refund_step(refund.pk, now=LATER + timedelta(seconds=46))
    assert there(stripe) == 1000


def test_one_that_waits_for_a_second_person_is_not_asked_for(
    stripe: LocalStripe, settings: Settings
) -> None:
    settings.REFUND_APPROVAL_THRESHOLD = 5
    refund = propose(paid(stripe), "10")
    ask()
    assert not take_refund_step(refund.pk, now=LATER)
    assert there(stripe) == 0


def test_one_that_is_under_way_is_looked_at_until_it_has_arrived(stripe: LocalStripe) -> None:
    refund = propose(paid(stripe, PENDING), "10")
    ask()
    refund.refresh_from_db()
    assert refund.status == "pending"
    # It is off the balance already.
    assert both_sides_agree(stripe)
    stripe.finish_refund(str(refund.provider_id))
    assert not take_refund_step(refund.pk, now=LATER)
    assert take_refund_step(refund.pk, now=LATER + timedelta(hours=1))
    refund.refresh_from_db()
    assert refund.status == "succeeded"
    assert refund.ended_at == LATER + timedelta(hours=1)


@pytest.mark.parametrize("token", [CARD, PENDING])
def test_one_that_the_bank_sends_back_gives_its_credit_back(
    stripe: LocalStripe, token: str
) -> None:
    account = account_with_card(stripe, token)
    asked_for(account)
    sweep(BILLED)
    payment = Payment.objects.get()
    refund = propose(payment, "20")
    ask()
    assert prepaid_balance(account) == 30
    refund.refresh_from_db()
    stripe.fail_refund(str(refund.provider_id))
    for _ in range(2):
        assert take_refunds(str(payment.provider_id), now=LATER)
        refund.refresh_from_db()
        assert refund.status == "failed"
        assert refund.failure == "expired_or_canceled_card"
        assert prepaid_balance(account) == 50
    assert both_sides_agree(stripe)
    assert refundable(payment).amount.amount == 50


def test_forward_only(stripe: LocalStripe) -> None:
    payment = paid(stripe)
    refund = propose(payment, "10")
    ask()
    Refund.objects.filter(pk=refund.pk).update(status="failed")
    take_refunds(str(payment.provider_id), now=LATER)
    refund.refresh_from_db()
    assert refund.status == "failed"


def test_what_the_provider_refuses_has_failed_and_says_why(stripe: LocalStripe) -> None:
    account, payment = topped_up(stripe)
    refund = propose(payment, "50")
    assert prepaid_balance(account) == 0
    # Somebody was quicker in the dashboard.
    stripe.refund(payment.charge_id, 3000)
    ask(minutes=2)
    refund.refresh_from_db()
    assert refund.status == "failed"
    assert "greater than unrefunded amount" in refund.failure
    # The credit of what was not given back is there; of the other a person decides.
    assert prepaid_balance(account) == 50
    assert had_twice(payment).amount == 30
    assert there(stripe) == 3000


def test_one_that_was_made_in_the_dashboard_is_written_down(stripe: LocalStripe) -> None:
    payment = paid(stripe)
    stripe.refund(payment.charge_id, 500)
    for _ in range(2):
        assert take_refunds(str(payment.provider_id), now=LATER)
    refund = Refund.objects.get()
    assert (refund.status, refund.reference, refund.author) == ("succeeded", "", None)
    assert refund.reason == "Made at the provider: requested_by_customer"
    assert refund.amount == 5
    assert both_sides_agree(stripe)
    # It paid an invoice: no credit is left over.
    assert not Difference.objects.exists()
    assert refundable(payment).amount.amount == 31


def test_its_credit_is_a_persons_to_decide_about(stripe: LocalStripe) -> None:
    account, payment = topped_up(stripe)
    stripe.refund(payment.charge_id, 2000)
    for _ in range(2):
        take_refunds(str(payment.provider_id), now=LATER)
    refund = Refund.objects.get()
    difference = Difference.objects.get()
    assert difference.subject == payment.provider_id
    assert difference.ours.startswith("20.00 USD that went back")
    assert difference.proposed_action.startswith("Take 20.00 USD of prepaid credit back")
    with pytest.raises(RefundRefusedError, match=r"up to 20"):
        take_credit_after(refund.pk, Decimal(21), user_id=None, now=LATER)
    for _ in range(2):
        take_credit_after(refund.pk, Decimal(20), user_id=None, now=LATER)
    assert prepaid_balance(account) == 30
    difference.refresh_from_db()
    assert difference.settled_at
    with pytest.raises(RefundRefusedError, match="settled already"):
        take_credit_after(refund.pk, Decimal(1), user_id=None, now=LATER)
    take_refunds(str(payment.provider_id), now=LATER)
    assert Difference.objects.filter(settled_at__isnull=True).count() == 0


def test_credit_that_a_person_leaves_to_the_customer_is_not_listed_again(
    stripe: LocalStripe,
) -> None:
    _, payment = topped_up(stripe)
    stripe.refund(payment.charge_id, 2000)
    take_refunds(str(payment.provider_id), now=LATER)
    clerk = User.objects.create_user("clerk")
    [difference] = Difference.objects.all()
    settle_difference(difference.pk, reason="A present", user_id=clerk.pk, now=LATER)
    take_refunds(str(payment.provider_id), now=LATER)
    assert Difference.objects.get().settled_reason == "A present"
    # Another one is another difference.
    stripe.refund(payment.charge_id, 500)
    take_refunds(str(payment.provider_id), now=LATER)
    assert Difference.objects.filter(settled_at__isnull=True).count() == 1


def test_a_refund_of_a_payment_that_we_did_not_hear_of_tells_of_both(stripe: LocalStripe) -> None:
    invoice = invoice_of(account_with_card(stripe, "pm_card_chargeCustomerFail"))
    collect()
    collection = invoice.collection_parts.get().collection
    bill = stripe.pay(str(collection.provider_id), token=CARD)
    [charge] = stripe.charges()
    stripe.refund(charge["id"], 600)
    assert bill["status"] == "paid"
    assert take_refunds(charge["payment_intent"], now=LATER)
    assert Payment.objects.get().amount == 36
    assert Refund.objects.get().amount == 6


def test_refunds_of_what_is_not_ours_are_left_alone(stripe: LocalStripe) -> None:
    sdk = StripeClient(API_KEY, base_addresses={"api": stripe.url})
    customer = sdk.v1.customers.create({"name": "Somebody"})
    stripe.attach(customer.id, CARD)
    made = sdk.v1.invoices.create({"customer": customer.id, "currency": "usd"})
    assert made.id
    line = {"amount": 700, "description": "Something else"}
    sdk.v1.invoices.add_lines(made.id, {"lines": [line]})  # type: ignore[list-item]
    sdk.v1.invoices.finalize_invoice(made.id)
    sdk.v1.invoices.pay(made.id)
    [charge] = stripe.charges()
    assert not take_refunds(charge["payment_intent"], now=LATER)
    du = stripe.dispute(charge["id"])
    assert not take_dispute(du["id"], now=LATER)
    assert not Payment.objects.exists()


def test_a_dispute_takes_the_money_off_until_it_is_won(stripe: LocalStripe) -> None:
    payment = paid(stripe)
    opened = stripe.dispute(payment.charge_id)
    for _ in range(2):
        assert take_dispute(opened["id"], now=LATER)
    dispute = Dispute.objects.get()
    assert (dispute.status, dispute.amount, dispute.payment) == ("open", 36, payment)
    assert dispute.answer_by
    assert both_sides_agree(stripe)
    stripe.close_dispute(opened["id"], "won")
    for _ in range(2):
        take_dispute(opened["id"], now=LATER)
    won = Dispute.objects.get()
    assert won.status == "won"
    assert won.answer_by is None
    assert both_sides_agree(stripe)


def test_a_lost_one_is_lost_and_its_credit_is_listed(stripe: LocalStripe) -> None:
    account, payment = topped_up(stripe)
    opened = stripe.dispute(payment.charge_id)
    stripe.close_dispute(opened["id"], "lost")
    for _ in range(2):
        take_dispute(opened["id"], now=LATER)
    assert Dispute.objects.get().status == "lost"
    assert both_sides_agree(stripe)
    assert prepaid_balance(account) == 50
    assert Difference.objects.get().proposed_action.startswith("Take 50.00 USD")
    # What was decided stays decided.
    Dispute.objects.update(status="won")
    take_dispute(opened["id"], now=LATER)
    assert Dispute.objects.get().status == "won"


def test_without_a_provider_they_wait(stripe: LocalStripe, settings: Settings) -> None:
    propose(paid(stripe), "10")
    settings.STRIPE_API_KEY = ""
    assert due_refunds(LATER) == []
