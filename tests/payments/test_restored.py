"""After an older state of the database was restored: what the provider knows of, and we do not."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from stripe import StripeClient

from billing.lifecycle import InvoiceStatus
from billing.models import Account, NumberSeries
from billing.models.invoices import Series
from billing.services.numbering import NumberRefusedError, skip_numbers, take_numbers
from payments.models import Collection, Customer, Difference
from payments.services.anew import collect_anew
from payments.services.customers import ensure_customer
from payments.services.differences import settle_difference
from payments.services.restorations import note_restoration
from tests.billing.usage import open_account
from tests.local_stripe import API_KEY, LocalStripe
from tests.payments.month import BILLED, account_with_card, collect, collection_of, invoice_of
from tests.payments.test_collecting import status_of
from tests.payments.test_refunding import ask, both_sides_agree, paid, propose, there

pytestmark = pytest.mark.django_db
LATER = BILLED + timedelta(days=2)


def sdk(stripe: LocalStripe) -> StripeClient:
    return StripeClient(API_KEY, base_addresses={"api": stripe.url})


def bill_there(stripe: LocalStripe, account: Account, **metadata: str) -> str:
    """Have an invoice at the provider that says it is of a collection which is not here."""
    client = sdk(stripe)
    customer = str(Customer.objects.get(account=account).provider_id)
    named = {"account_id": str(account.pk), "collection_id": str(uuid4()), **metadata}
    made = client.v1.invoices.create({"customer": customer, "currency": "usd", "metadata": named})
    client.v1.invoices.add_lines(
        str(made.id), {"lines": [{"amount": 3600, "description": "CPU time"}]}
    )
    client.v1.invoices.finalize_invoice(str(made.id))
    return str(made.id)


def test_an_invoice_of_the_provider_that_nobody_knows_is_looked_at_by_a_person_first(
    stripe: LocalStripe,
) -> None:
    account = account_with_card(stripe)
    bill_id = bill_there(stripe, account)
    invoice = invoice_of(account)
    note_restoration(LATER)
    collect()
    assert stripe.charges() == []
    assert status_of(invoice) == InvoiceStatus.PENDING
    refused = collection_of(invoice)
    assert refused.status == Collection.Status.REFUSED
    assert bill_id in refused.waiting_for or "nobody here knows" in refused.waiting_for
    difference = Difference.objects.get(subject=bill_id)
    assert difference.kind == Difference.Kind.INVOICE_ONLY_THERE
    # It was for something else, and is void there now.
    sdk(stripe).v1.invoices.void_invoice(bill_id)
    user = User.objects.create(username="finance")
    settle_difference(difference.pk, reason="A mistake", user_id=user.pk, now=LATER)
    assert collect_anew(refused.pk, now=LATER)
    collect(LATER)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert len(stripe.charges()) == 1


def test_without_a_restoration_nothing_is_looked_for(stripe: LocalStripe) -> None:
    account = account_with_card(stripe)
    invoice = invoice_of(account)
    collect()
    assert status_of(invoice) == InvoiceStatus.PAID
    assert stripe.log("GetInvoices") == []


def test_a_refund_that_was_asked_for_before_is_found(stripe: LocalStripe) -> None:
    refund = propose(paid(stripe), "10")
    named = {"refund_id": str(refund.pk), "account_id": str(refund.payment.account_id)}
    sdk(stripe).v1.refunds.create(
        {
            "payment_intent": str(refund.payment.provider_id),
            "amount": 1000,
            "metadata": named,
        }
    )
    note_restoration(LATER + timedelta(days=1))
    ask()
    refund.refresh_from_db()
    assert refund.status == "succeeded"
    assert there(stripe) == 1000
    assert both_sides_agree(stripe)


def test_a_customer_that_was_made_before_is_found(stripe: LocalStripe) -> None:
    account = open_account()
    made = sdk(stripe).v1.customers.create({"metadata": {"account_id": str(account.pk)}})
    note_restoration(LATER)
    assert ensure_customer(account.pk, now=LATER) == made.id


def test_numbers_that_others_have_are_left_out() -> None:
    assert take_numbers(Series.INVOICE, 2, now=BILLED) == ["2026-000001", "2026-000002"]
    assert skip_numbers("2026-000005") == 3
    assert skip_numbers("2026-000004") == skip_numbers("2026-000005") == 0
    assert take_numbers(Series.INVOICE, 1, now=BILLED) == ["2026-000006"]
    assert skip_numbers("CN-2027-000002") == 2
    assert NumberSeries.objects.count() == 2
    with pytest.raises(NumberRefusedError, match="is no number such as"):
        skip_numbers("6")
