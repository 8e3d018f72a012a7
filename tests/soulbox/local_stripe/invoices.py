"""Customers and invoices that tests begin with."""

from __future__ import annotations

import stripe
from stripe import StripeClient

from tests.local_stripe import LocalStripe


def customer_with(client: StripeClient, local: LocalStripe, token: str) -> stripe.Customer:
    """Return a customer whose default card is this test card."""
    customer = client.v1.customers.create({"name": "Ada", "email": "ada@example.com"})
    local.attach(customer.id, token)
    return customer


def final_invoice(
    client: StripeClient, customer: str, *amounts: int, currency: str = "usd"
) -> stripe.Invoice:
    """Return a finalised invoice with a line for each amount in minor units."""
    draft = client.v1.invoices.create({"customer": customer, "currency": currency})
    if amounts:
        client.v1.invoices.add_lines(
            draft.id, {"lines": [{"amount": amount, "description": "cpu"} for amount in amounts]}
        )
    return client.v1.invoices.finalize_invoice(draft.id)
