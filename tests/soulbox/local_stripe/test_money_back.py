from __future__ import annotations

import pytest
import stripe
from stripe import StripeClient

from tests.local_stripe import LocalStripe
from tests.soulbox.local_stripe.invoices import customer_with, final_invoice

DAY_S = 24 * 3600
FEE = 59  # of 1000: 2.9 % and 30


def paid(client: StripeClient, local: LocalStripe, token: str = "pm_card_visa") -> str:  # noqa: S107 - a test card
    """Return the charge of a paid invoice of 10.00."""
    customer = customer_with(client, local, token)
    client.v1.invoices.pay(final_invoice(client, customer.id, 1000).id)
    return str(local.charges()[-1]["id"])


def kinds(client: StripeClient) -> set[str]:
    return {event.type for event in client.v1.events.list({"limit": 100}).data}


def test_a_charge_is_refunded_in_parts_but_never_past_it(
    client: StripeClient, local: LocalStripe
) -> None:
    charge = client.v1.charges.retrieve(paid(client, local))
    assert charge.payment_intent is not None
    intent = str(charge.payment_intent)
    made = client.v1.refunds.create(
        {"payment_intent": intent, "amount": 400, "metadata": {"refund_id": "1"}}
    )
    assert (made.status, made.charge) == ("succeeded", charge.id)
    with pytest.raises(stripe.InvalidRequestError, match="greater than"):
        client.v1.refunds.create({"charge": charge.id, "amount": 601})
    client.v1.refunds.create({"charge": charge.id})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"charge": charge.id})
    assert refused.value.code == "charge_already_refunded"
    after = client.v1.charges.retrieve(charge.id, {"expand": ["refunds"]})
    assert (after.refunded, after.amount_refunded) == (True, 1000)
    assert after.refunds is not None
    assert [one.amount for one in after.refunds.data] == [600, 400]
    assert len(client.v1.refunds.list({"payment_intent": intent}).data) == 2
    assert client.v1.refunds.retrieve(made.id).amount == 400
    assert local.ledger()["usd"] == {
        "charged": 1000,
        "refunded": -1000,
        "disputed": 0,
        "gross": 0,
        "fees": FEE,
        "net": -FEE,
    }
    assert {"charge.refunded", "refund.created"} <= kinds(client)


def test_staff_refunds_in_the_dashboard(client: StripeClient, local: LocalStripe) -> None:
    local.refund(paid(client, local), 250)
    [found] = client.v1.refunds.list().data
    assert (found.amount, found.reason) == (250, "requested_by_customer")


def test_a_refund_that_fails_is_taken_back(client: StripeClient, local: LocalStripe) -> None:
    charge = paid(client, local)
    made = client.v1.refunds.create({"charge": charge})
    local.fail_refund(made.id)
    failed = client.v1.refunds.retrieve(made.id)
    assert (failed.status, failed.failure_reason) == ("failed", "expired_or_canceled_card")
    after = client.v1.charges.retrieve(charge)
    assert (after.refunded, after.amount_refunded) == (False, 0)
    assert local.ledger()["usd"]["gross"] == 1000
    assert "refund.failed" in kinds(client)
    client.v1.refunds.create({"charge": charge})


def test_a_refund_may_be_under_way_for_a_while(client: StripeClient, local: LocalStripe) -> None:
    made = client.v1.refunds.create({"charge": paid(client, local, "pm_card_pendingRefund")})
    assert made.status == "pending"
    local.finish_refund(made.id)
    assert client.v1.refunds.retrieve(made.id).status == "succeeded"
    with pytest.raises(RuntimeError, match="succeeded"):
        local.finish_refund(made.id)
    assert "refund.updated" in kinds(client)


def test_nothing_can_be_refunded_that_was_not_paid(
    client: StripeClient, local: LocalStripe
) -> None:
    customer = customer_with(client, local, "pm_card_chargeCustomerFail")
    invoice = final_invoice(client, customer.id, 1000)
    with pytest.raises(stripe.CardError):
        client.v1.invoices.pay(invoice.id)
    [failed] = local.charges(succeeded=False)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.refunds.create({"charge": failed["id"]})
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.refunds.create({"payment_intent": failed["payment_intent"]})
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.refunds.create({"amount": 1})


@pytest.mark.parametrize(
    ("outcome", "gross", "fees"), [("won", 1000, FEE), ("lost", 0, FEE + 1500)]
)
def test_a_dispute_takes_the_money_until_it_is_won(
    client: StripeClient, local: LocalStripe, outcome: str, gross: int, fees: int
) -> None:
    charge = paid(client, local, "pm_card_createDispute")
    [dispute] = client.v1.disputes.list({"charge": charge}).data
    assert (dispute.status, dispute.amount) == ("needs_response", 1000)
    assert client.v1.charges.retrieve(charge).disputed
    assert local.ledger()["usd"]["gross"] == 0
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"charge": charge})
    assert refused.value.code == "charge_disputed"
    local.close_dispute(dispute.id, outcome)
    assert client.v1.disputes.retrieve(dispute.id).status == outcome
    assert (local.ledger()["usd"]["gross"], local.ledger()["usd"]["fees"]) == (gross, fees)
    assert {"charge.dispute.created", "charge.dispute.closed"} <= kinds(client)


def test_a_cardholder_disputes_a_charge_later(client: StripeClient, local: LocalStripe) -> None:
    charge = paid(client, local)
    local.dispute(charge, "product_not_received")
    [dispute] = client.v1.disputes.list().data
    assert dispute.reason == "product_not_received"
    with pytest.raises(RuntimeError, match="cannot be disputed"):
        local.dispute(charge)


def test_the_balance_is_pending_and_then_available(
    client: StripeClient, local: LocalStripe
) -> None:
    charge = paid(client, local)
    balance = client.v1.balance.retrieve()
    assert [one["amount"] for one in (*balance.pending, *balance.available)] == [1000 - FEE, 0]
    local.advance(2 * DAY_S + 1)
    balance = client.v1.balance.retrieve()
    assert [one["amount"] for one in (*balance.pending, *balance.available)] == [0, 1000 - FEE]
    [entry] = client.v1.balance_transactions.list({"source": charge}).data
    assert (entry.type, entry.amount, entry.fee, entry.net) == ("charge", 1000, FEE, 1000 - FEE)
    assert client.v1.balance_transactions.retrieve(entry.id).status == "available"
    shown = client.v1.charges.retrieve(charge, {"expand": ["balance_transaction"]})
    assert isinstance(shown.balance_transaction, stripe.BalanceTransaction)
