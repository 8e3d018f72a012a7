from __future__ import annotations

import pytest
import stripe
from stripe import StripeClient

from tests.local_stripe import LocalStripe
from tests.soulbox.local_stripe.invoices import customer_with, final_invoice

HOUR_S = 3600


@pytest.fixture
def customer(client: StripeClient, local: LocalStripe) -> str:
    return customer_with(client, local, "pm_card_visa").id


def balance_of(client: StripeClient, customer: str) -> int | None:
    return client.v1.customers.retrieve(customer).balance


@pytest.mark.parametrize(
    ("currency", "smallest"),
    [("usd", 50), ("eur", 50), ("gbp", 30), ("jpy", 50), ("huf", 17500), ("sek", 300)],
)
def test_less_than_the_smallest_charge_goes_on_the_balance(
    client: StripeClient, local: LocalStripe, customer: str, currency: str, smallest: int
) -> None:
    invoice = final_invoice(client, customer, smallest - 1, currency=currency)
    assert (invoice.status, invoice.total, invoice.amount_due) == ("paid", smallest - 1, 0)
    assert (invoice.starting_balance, invoice.ending_balance) == (0, smallest - 1)
    assert local.charges() == []
    assert balance_of(client, customer) == smallest - 1
    # The next invoice asks for it.
    following = final_invoice(client, customer, 20_000, currency=currency)
    assert (following.starting_balance, following.amount_due) == (smallest - 1, 19_999 + smallest)
    assert balance_of(client, customer) == 0


def test_the_smallest_charge_is_charged(
    client: StripeClient, local: LocalStripe, customer: str
) -> None:
    invoice = final_invoice(client, customer, 50)
    assert (invoice.status, invoice.amount_due) == ("open", 50)
    assert client.v1.invoices.pay(invoice.id).amount_paid == 50
    assert [charge["amount"] for charge in local.charges()] == [50]


@pytest.mark.parametrize(
    ("balance", "total", "due", "left"),
    [(-300, 1000, 700, 0), (-1000, 1000, 0, 0), (-1500, 1000, 0, -500), (200, 1000, 1200, 0)],
)
def test_finalising_settles_the_balance(
    client: StripeClient, customer: str, balance: int, total: int, due: int, left: int
) -> None:
    client.v1.customers.update(customer, {"balance": balance})
    invoice = final_invoice(client, customer, total)
    assert (invoice.starting_balance, invoice.amount_due) == (balance, due)
    assert (invoice.ending_balance, balance_of(client, customer)) == (left, left)
    assert invoice.status == ("open" if due else "paid")


def test_a_negative_total_becomes_a_credit(client: StripeClient, customer: str) -> None:
    invoice = final_invoice(client, customer, 1000, -1600)
    assert (invoice.status, invoice.total, invoice.amount_due) == ("paid", -600, 0)
    assert balance_of(client, customer) == -600


def test_an_empty_invoice_is_paid_by_finalising(
    client: StripeClient, local: LocalStripe, customer: str
) -> None:
    invoice = final_invoice(client, customer)
    assert (invoice.status, invoice.total) == ("paid", 0)
    assert client.v1.invoice_payments.list({"invoice": invoice.id}).data == []
    assert local.charges() == []


def test_voiding_gives_the_balance_back_and_cancels_the_payment(
    client: StripeClient, customer: str
) -> None:
    client.v1.customers.update(customer, {"balance": -300})
    invoice = final_invoice(client, customer, 1000)
    void = client.v1.invoices.void_invoice(invoice.id, {"expand": ["payments"]})
    assert void.status == "void"
    assert balance_of(client, customer) == -300
    assert void.payments is not None
    [payment] = void.payments.data
    assert payment.status == "canceled"
    intent = client.v1.payment_intents.retrieve(str(payment.payment.payment_intent))
    assert (intent.status, intent.cancellation_reason) == ("canceled", "void_invoice")
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.invoices.pay(invoice.id)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.invoices.void_invoice(invoice.id)


def test_what_is_paid_is_not_paid_again_nor_voided(
    client: StripeClient, local: LocalStripe, customer: str
) -> None:
    invoice = final_invoice(client, customer, 1000)
    client.v1.invoices.pay(invoice.id)
    with pytest.raises(stripe.InvalidRequestError, match="already paid"):
        client.v1.invoices.pay(invoice.id)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.invoices.void_invoice(invoice.id)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.invoices.mark_uncollectible(invoice.id)
    assert len(local.charges()) == 1


def test_an_uncollectible_invoice_may_still_be_paid(client: StripeClient, customer: str) -> None:
    invoice = final_invoice(client, customer, 1000)
    assert client.v1.invoices.mark_uncollectible(invoice.id).status == "uncollectible"
    assert client.v1.invoices.pay(invoice.id).status == "paid"


def test_an_invoice_paid_elsewhere_is_paid_without_a_charge(
    client: StripeClient, local: LocalStripe, customer: str
) -> None:
    invoice = final_invoice(client, customer, 1000)
    paid = client.v1.invoices.pay(invoice.id, {"paid_out_of_band": True})
    assert (paid.status, paid.amount_paid_off_stripe) == ("paid", 1000)
    assert local.charges(succeeded=False) == []


def test_an_invoice_has_at_most_250_lines(client: StripeClient, customer: str) -> None:
    draft = client.v1.invoices.create({"customer": customer, "currency": "usd"})
    client.raw_request(
        "post",
        f"/v1/invoices/{draft.id}/add_lines",
        lines=[{"amount": number, "description": str(number)} for number in range(250)],
    )
    with pytest.raises(stripe.InvalidRequestError, match="250"):
        client.v1.invoices.add_lines(draft.id, {"lines": [{"amount": 1}]})
    shown = client.v1.invoices.retrieve(draft.id).lines
    assert (len(shown.data), shown.has_more) == (10, True)
    every = client.v1.invoices.line_items.list(draft.id, {"limit": 100}).auto_paging_iter()
    assert [line.amount for line in every] == list(range(250))
    assert client.v1.invoices.finalize_invoice(draft.id).total == sum(range(250))


def test_a_final_invoice_is_not_edited(client: StripeClient, customer: str) -> None:
    invoice = final_invoice(client, customer, 1000)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.invoices.add_lines(invoice.id, {"lines": [{"amount": 1}]})
    assert refused.value.code == "invoice_not_editable"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.invoices.update(invoice.id, {"description": "x"})
    with pytest.raises(stripe.InvalidRequestError, match="already finalized"):
        client.v1.invoices.finalize_invoice(invoice.id)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.invoices.delete(invoice.id)
    told = client.v1.invoices.update(invoice.id, {"metadata": {"a": "1"}})
    assert told.to_dict()["metadata"] == {"a": "1"}


def test_a_deleted_draft_is_gone_with_its_items(client: StripeClient, customer: str) -> None:
    draft = client.v1.invoices.create({"customer": customer})
    client.v1.invoices.add_lines(draft.id, {"lines": [{"amount": 1}]})
    assert len(client.v1.invoice_items.list({"customer": customer}).data) == 1
    client.v1.invoices.delete(draft.id)
    with pytest.raises(stripe.InvalidRequestError) as gone:
        client.v1.invoices.retrieve(draft.id)
    assert gone.value.http_status == 404
    assert client.v1.invoice_items.list({"customer": customer}).data == []


def test_pending_items_come_along_only_where_they_are_asked_for(
    client: StripeClient, customer: str
) -> None:
    item = client.v1.invoice_items.create(
        {"customer": customer, "amount": 700, "currency": "usd", "description": "left over"}
    )
    ours = client.v1.invoices.create({"customer": customer, "currency": "usd"})
    assert ours.total == 0
    client.v1.invoices.add_lines(ours.id, {"lines": [{"amount": 100}]})
    theirs = client.v1.invoices.create(
        {"customer": customer, "pending_invoice_items_behavior": "include"}
    )
    assert (theirs.total, theirs.lines.data[0].description) == (700, "left over")
    assert client.v1.invoice_items.retrieve(item.id).invoice == theirs.id
    assert client.v1.invoice_items.list({"customer": customer, "pending": True}).data == []
    client.v1.invoice_items.delete(item.id)
    assert client.v1.invoices.retrieve(theirs.id).total == 0


def test_an_item_made_for_a_draft_is_summed_up_at_once(client: StripeClient, customer: str) -> None:
    draft = client.v1.invoices.create({"customer": customer, "currency": "usd"})
    item = client.v1.invoice_items.create(
        {"customer": customer, "amount": 700, "invoice": draft.id, "currency": "usd"}
    )
    assert [one.total for one in client.v1.invoices.list().data] == [700]
    client.v1.invoice_items.delete(item.id)
    assert [one.total for one in client.v1.invoices.list().data] == [0]
    with pytest.raises(stripe.InvalidRequestError, match="currency"):
        client.v1.invoice_items.create(
            {"customer": customer, "amount": 700, "invoice": draft.id, "currency": "eur"}
        )


def test_a_pending_item_can_be_attached_by_name(client: StripeClient, customer: str) -> None:
    item = client.v1.invoice_items.create({"customer": customer, "amount": 700, "currency": "usd"})
    draft = client.v1.invoices.create({"customer": customer})
    client.v1.invoices.add_lines(draft.id, {"lines": [{"invoice_item": item.id}]})
    assert client.v1.invoices.finalize_invoice(draft.id).total == 700
    other = client.v1.invoices.create({"customer": customer})
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.invoices.add_lines(other.id, {"lines": [{"invoice_item": item.id}]})


def test_a_draft_with_auto_advance_finalises_and_pays_itself(
    client: StripeClient, local: LocalStripe, customer: str
) -> None:
    local.set_clock(1_800_000_000)
    draft = client.v1.invoices.create({"customer": customer, "auto_advance": True})
    ours = client.v1.invoices.create({"customer": customer, "auto_advance": False})
    for invoice in (draft, ours):
        client.v1.invoices.add_lines(invoice.id, {"lines": [{"amount": 5000}]})
    assert draft.automatically_finalizes_at == 1_800_000_000 + HOUR_S
    local.advance(24 * HOUR_S)
    assert client.v1.invoices.retrieve(draft.id).status == "paid"
    assert client.v1.invoices.retrieve(ours.id).status == "draft"


def test_invoices_are_numbered_by_customer(
    client: StripeClient, local: LocalStripe, customer: str
) -> None:
    numbers = [final_invoice(client, customer, 1000).number for _invoice in range(2)]
    prefix = client.v1.customers.retrieve(customer).invoice_prefix
    assert numbers == [f"{prefix}-0001", f"{prefix}-0002"]
    other = customer_with(client, local, "pm_card_visa").id
    assert str(final_invoice(client, other, 1000).number).endswith("-0001")


def test_invoices_are_filtered(client: StripeClient, local: LocalStripe, customer: str) -> None:
    other = customer_with(client, local, "pm_card_visa").id
    paid, still_open = final_invoice(client, customer, 1000), final_invoice(client, customer, 1000)
    client.v1.invoices.pay(paid.id)
    final_invoice(client, other, 1000)
    found = client.v1.invoices.list({"customer": customer, "status": "open"}).data
    assert [one.id for one in found] == [still_open.id]
    assert len(client.v1.invoices.list({"customer": customer}).data) == 2


def test_a_payment_leads_back_to_its_invoice(client: StripeClient, customer: str) -> None:
    invoice = final_invoice(client, customer, 1000)
    [payment] = client.v1.invoice_payments.list({"invoice": invoice.id}).data
    assert (payment.status, payment.amount_requested) == ("open", 1000)
    intent = str(payment.payment.payment_intent)
    client.v1.invoices.pay(invoice.id)
    [found] = client.v1.invoice_payments.list(
        {"payment": {"type": "payment_intent", "payment_intent": intent}}
    ).data
    assert (found.id, found.invoice, found.status) == (payment.id, invoice.id, "paid")
    assert client.v1.invoice_payments.retrieve(payment.id).amount_paid == 1000


def test_paying_needs_a_card_of_the_customers(
    client: StripeClient, local: LocalStripe, customer: str
) -> None:
    cardless = client.v1.customers.create({})
    invoice = final_invoice(client, cardless.id, 1000)
    with pytest.raises(stripe.InvalidRequestError, match="default_payment_method"):
        client.v1.invoices.pay(invoice.id)
    [method] = client.v1.customers.payment_methods.list(customer).data
    with pytest.raises(stripe.InvalidRequestError, match="attached"):
        client.v1.invoices.pay(invoice.id, {"payment_method": method.id})
    assert local.charges(succeeded=False) == []


def test_authentication_off_session_is_refused_and_on_session_asked_for(
    client: StripeClient, local: LocalStripe
) -> None:
    customer = customer_with(client, local, "pm_card_authenticationRequired")
    invoice = final_invoice(client, customer.id, 1000)
    outcomes = []
    for off_session in (True, False):
        with pytest.raises(stripe.CardError) as refused:
            client.v1.invoices.pay(invoice.id, {"off_session": off_session})
        [payment] = client.v1.invoice_payments.list({"invoice": invoice.id}).data
        intent = client.v1.payment_intents.retrieve(str(payment.payment.payment_intent))
        outcomes.append((refused.value.code, intent.status))
    assert outcomes == [
        ("authentication_required", "requires_payment_method"),
        ("invoice_payment_intent_requires_action", "requires_action"),
    ]
    local.authenticate(invoice.id)
    assert client.v1.invoices.retrieve(invoice.id).status == "paid"
    kinds = {event.type for event in client.v1.events.list({"limit": 100}).data}
    assert "invoice.payment_action_required" in kinds
    assert len(local.charges()) == 1


def test_a_card_that_went_bad_declines_from_then_on(
    client: StripeClient, local: LocalStripe, customer: str
) -> None:
    [method] = client.v1.customers.payment_methods.list(customer).data
    client.v1.invoices.pay(final_invoice(client, customer, 1000).id)
    local.become(method.id, "pm_card_visa_chargeDeclinedLostCard")
    with pytest.raises(stripe.CardError) as refused:
        client.v1.invoices.pay(final_invoice(client, customer, 1000).id)
    assert refused.value.error is not None
    assert refused.value.error.decline_code == "lost_card"


def test_the_customer_pays_on_the_hosted_page_with_another_card(
    client: StripeClient, local: LocalStripe
) -> None:
    customer = customer_with(client, local, "pm_card_chargeCustomerFail")
    invoice = final_invoice(client, customer.id, 1000)
    with pytest.raises(RuntimeError, match="card_declined"):
        local.pay(invoice.id)
    local.pay(invoice.id, token="pm_card_mastercard")  # noqa: S106 - a test card
    assert client.v1.invoices.retrieve(invoice.id).status == "paid"
    with pytest.raises(RuntimeError, match="is paid"):
        local.pay(invoice.id)


def test_too_large_an_amount_is_refused(client: StripeClient, customer: str) -> None:
    invoice = final_invoice(client, customer, 100_000_000)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.invoices.pay(invoice.id)
    assert refused.value.code == "amount_too_large"


def test_a_browser_can_be_given_what_confirms_the_payment(
    client: StripeClient, customer: str
) -> None:
    invoice = final_invoice(client, customer, 1000)
    shown = client.v1.invoices.retrieve(invoice.id, {"expand": ["confirmation_secret"]})
    [payment] = client.v1.invoice_payments.list({"invoice": invoice.id}).data
    intent = client.v1.payment_intents.retrieve(str(payment.payment.payment_intent))
    assert shown.confirmation_secret is not None
    assert shown.confirmation_secret.client_secret == intent.client_secret
    draft = client.v1.invoices.create({"customer": customer, "expand": ["confirmation_secret"]})
    assert draft.confirmation_secret is None


def test_a_customer_is_delinquent_while_an_automatic_payment_fails(
    client: StripeClient, local: LocalStripe
) -> None:
    customer = customer_with(client, local, "pm_card_chargeCustomerFail").id
    draft = client.v1.invoices.create({"customer": customer, "auto_advance": True})
    client.v1.invoices.add_lines(draft.id, {"lines": [{"amount": 5000}]})
    local.advance(2 * HOUR_S)
    assert client.v1.customers.retrieve(customer).delinquent
    local.attach(customer)
    client.v1.invoices.pay(draft.id)
    assert not client.v1.customers.retrieve(customer).delinquent
