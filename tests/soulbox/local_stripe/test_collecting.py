"""From a customer to a paid invoice, through Stripe's own client."""

from __future__ import annotations

import pytest
import stripe
from stripe import StripeClient

from tests.local_stripe import LocalStripe
from tests.soulbox.local_stripe.invoices import customer_with, final_invoice


def test_an_invoice_is_drafted_filled_finalised_and_paid(
    client: StripeClient, local: LocalStripe
) -> None:
    customer = customer_with(client, local, "pm_card_visa")
    draft = client.v1.invoices.create(
        {
            "customer": customer.id,
            "currency": "usd",
            "auto_advance": False,
            "collection_method": "charge_automatically",
            "pending_invoice_items_behavior": "exclude",
            "metadata": {"invoice_id": "one"},
        }
    )
    assert (draft.status, draft.amount_due, draft.lines.data) == ("draft", 0, [])
    client.v1.invoices.add_lines(
        draft.id,
        {
            "lines": [
                {
                    "amount": 1234,
                    "description": "cpu",
                    "period": {"start": 1, "end": 2},
                    "metadata": {"meter": "cpu_ns"},
                },
                {"amount": -234, "description": "credits", "discountable": False},
            ]
        },
    )
    final = client.v1.invoices.finalize_invoice(draft.id, {"auto_advance": False})
    assert (final.status, final.total, final.amount_due) == ("open", 1000, 1000)
    assert final.number is not None
    assert final.number.endswith("-0001")
    paid = client.v1.invoices.pay(
        draft.id, {"expand": ["payments.data.payment.payment_intent.latest_charge"]}
    )
    assert (paid.status, paid.amount_paid, paid.attempt_count) == ("paid", 1000, 1)
    assert paid.payments is not None
    intent = paid.payments.data[0].payment.payment_intent
    assert isinstance(intent, stripe.PaymentIntent)
    assert isinstance(intent.latest_charge, stripe.Charge)
    assert intent.latest_charge.status == "succeeded"
    assert [charge["invoice"] for charge in local.charges()] == [draft.id]
    assert local.ledger()["usd"]["charged"] == 1000
    assert client.v1.invoices.retrieve(draft.id).status == "paid"
    kinds = [event.type for event in client.v1.events.list({"limit": 100}).data]
    assert {"invoice.paid", "payment_intent.succeeded", "charge.succeeded"} <= set(kinds)


@pytest.mark.parametrize(
    ("token", "code", "decline"),
    [
        ("pm_card_chargeCustomerFail", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "expired_card"),
        ("pm_card_visa_chargeDeclinedLostCard", "card_declined", "lost_card"),
        ("pm_card_authenticationRequired", "authentication_required", "authentication_required"),
    ],
)
def test_a_bad_card_is_a_card_error_and_leaves_the_invoice_open(
    client: StripeClient, local: LocalStripe, token: str, code: str, decline: str
) -> None:
    customer = customer_with(client, local, token)
    invoice = final_invoice(client, customer.id, 5000)
    with pytest.raises(stripe.CardError) as refused:
        client.v1.invoices.pay(invoice.id)
    error = refused.value.error
    assert error is not None
    assert (refused.value.http_status, error.code, error.decline_code) == (402, code, decline)
    assert error.payment_intent is not None
    assert error.payment_intent["status"] == "requires_payment_method"
    assert client.v1.invoices.retrieve(invoice.id).status == "open"
    local.attach(customer.id, "pm_card_mastercard")
    assert client.v1.invoices.pay(invoice.id).status == "paid"
    assert len(local.charges(succeeded=False)) == 2
    assert len({charge["payment_intent"] for charge in local.charges(succeeded=False)}) == 1


def test_a_misnamed_parameter_is_refused_and_kept(client: StripeClient, local: LocalStripe) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.raw_request("post", "/v1/customers", e_mail="a@example.com")
    assert refused.value.code == "parameter_unknown"
    assert refused.value.param == "e_mail"
    assert "e_mail" in local.violations()[0]["message"]
    local.clear_violations()
