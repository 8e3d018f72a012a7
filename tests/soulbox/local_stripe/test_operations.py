"""Every operation that is served answers Stripe's own client, with nothing wrong on either side."""

from __future__ import annotations

from contextlib import suppress

import stripe
from stripe import StripeClient

from soulbox.local_stripe.operations import OPERATIONS
from tests.local_stripe import LocalStripe
from tests.soulbox.local_stripe.invoices import final_invoice

PRICE = "price_soulbox_pro_monthly"


def customers(client: StripeClient) -> str:
    v1 = client.v1
    customer = v1.customers.create({"name": "Ada", "email": "ada@example.com"}).id
    v1.customers.update(customer, {"description": "x"})
    v1.customers.retrieve(customer)
    v1.customers.list()
    v1.customers.search({"query": "email:'ada@example.com'"})
    v1.billing_portal.sessions.create({"customer": customer, "return_url": "http://127.0.0.1/"})
    intent = v1.setup_intents.create({"customer": customer})
    v1.setup_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    v1.setup_intents.cancel(v1.setup_intents.create({}).id)
    v1.setup_intents.retrieve(intent.id)
    v1.setup_intents.list()
    method = v1.payment_methods.attach("pm_card_createDispute", {"customer": customer})
    v1.payment_methods.update(method.id, {"metadata": {"a": "1"}})
    v1.payment_methods.retrieve(method.id)
    v1.payment_methods.list({"customer": customer})
    v1.customers.payment_methods.list(customer)
    v1.customers.payment_methods.retrieve(customer, method.id)
    v1.customers.update(customer, {"invoice_settings": {"default_payment_method": method.id}})
    return customer


def invoices(client: StripeClient, customer: str) -> None:
    v1 = client.v1
    item = v1.invoice_items.create({"customer": customer, "amount": 100, "currency": "usd"})
    v1.invoice_items.retrieve(item.id)
    v1.invoice_items.list()
    v1.invoice_items.delete(item.id)
    v1.invoices.delete(v1.invoices.create({"customer": customer}).id)
    paid = final_invoice(client, customer, 1000)
    v1.invoices.update(paid.id, {"metadata": {"a": "1"}})
    v1.invoices.line_items.list(paid.id)
    v1.invoices.pay(paid.id)
    v1.invoices.retrieve(paid.id)
    v1.invoices.list()
    v1.invoices.mark_uncollectible(final_invoice(client, customer, 1000).id)
    v1.invoices.void_invoice(final_invoice(client, customer, 1000).id)
    payment = v1.invoice_payments.list({"invoice": paid.id}).data[0]
    v1.invoice_payments.retrieve(payment.id)
    v1.payment_intents.retrieve(str(payment.payment.payment_intent))
    v1.payment_intents.list()


def money(client: StripeClient) -> None:
    v1 = client.v1
    charge = v1.charges.list().data[0]
    v1.charges.retrieve(charge.id)
    v1.disputes.retrieve(v1.disputes.list().data[0].id)
    with suppress(stripe.InvalidRequestError):
        v1.refunds.create({"charge": charge.id})
    v1.refunds.list()
    with suppress(stripe.InvalidRequestError):
        v1.refunds.retrieve("re_none")
    v1.balance.retrieve()
    v1.balance_transactions.retrieve(v1.balance_transactions.list().data[0].id)


def subscriptions(client: StripeClient, customer: str) -> None:
    v1 = client.v1
    v1.products.retrieve(str(v1.prices.retrieve(PRICE).product))
    v1.prices.list()
    made = v1.subscriptions.create({"customer": customer, "items": [{"price": PRICE}]})
    v1.subscriptions.update(made.id, {"cancel_at_period_end": True})
    v1.subscriptions.retrieve(made.id)
    v1.subscriptions.list()
    v1.subscriptions.cancel(made.id)


def test_the_sdk_reaches_every_operation(client: StripeClient, local: LocalStripe) -> None:
    customer = customers(client)
    invoices(client, customer)
    money(client)
    subscriptions(client, customer)
    v1 = client.v1
    v1.payment_methods.detach(v1.payment_methods.list({"customer": customer}).data[0].id)
    v1.events.retrieve(v1.events.list().data[0].id)
    calls = local.log()
    assert {call["operation"] for call in calls} == set(OPERATIONS)
    assert {call["operation"] for call in calls if call["status"] != 200} == {
        "PostRefunds",  # of a disputed charge
        "GetRefundsRefund",
    }


def test_a_list_shows_full_pages_of_everything(client: StripeClient, local: LocalStripe) -> None:
    customer = client.v1.customers.create({}).id
    local.attach(customer)
    for _invoice in range(12):
        client.v1.invoices.pay(final_invoice(client, customer, 1000).id)
    v1 = client.v1
    for page in (
        v1.invoices.list({"limit": 12, "expand": ["data.payments.data.payment.payment_intent"]}),
        v1.payment_intents.list({"limit": 12, "expand": ["data.latest_charge"]}),
        v1.charges.list({"limit": 12, "expand": ["data.balance_transaction", "data.refunds"]}),
        v1.events.list({"limit": 100}),
    ):
        assert len(page.data) >= 12
