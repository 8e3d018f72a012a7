"""An invoice's page, with what payments knows of it."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from billing import services
from billing.lifecycle import InvoiceStatus
from billing.models import Invoice
from payments.models import Collection, Customer, Payment
from payments.owed import owed
from tests.billing import admin_pages
from tests.billing.admin_pages import page, press, text_of, viewer
from tests.billing.usage import open_account
from tests.local_stripe import LocalStripe
from tests.payments.month import BILLED, account_with_card, collect, collection_of, invoice_of
from tests.payments.test_admin_collections import declined
from tests.payments.test_collecting import status_of

pytestmark = pytest.mark.django_db
DAY = date(2026, 6, 2)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def record(client: Client, invoice: Invoice, amount: str, **said: str) -> str:
    given = {"amount": amount, "reference": "TX-1", "received_on": DAY.isoformat(), **said}
    return text_of(press(client, invoice, "record_payment", **given))


def test_the_page_says_what_was_asked_for_and_what_came(
    stripe: LocalStripe, finance: Client
) -> None:
    invoice = declined(stripe)
    record(finance, invoice, "10")
    text = text_of(finance.get(page(Invoice, invoice.pk, "change")))
    collection = collection_of(invoice)
    assert f'href="{page(Collection, collection.pk, "change")}"' in text
    assert f'href="{collection.hosted_url}"' in text
    assert "generic_decline" in text
    payment = Payment.objects.get()
    assert f'href="{page(Payment, payment.pk, "change")}"' in text
    assert "10.00 USD" in text
    assert "26.00 USD" in text


def test_a_payment_is_recorded_as_the_statement_says_it(finance: Client) -> None:
    invoice = invoice_of(open_account())
    assert "10.00 USD are recorded. 2026-000001: Pending, 26.00 USD are still owed." in record(
        finance, invoice, "10"
    )
    assert "26.00 USD are recorded. 2026-000001: Paid." in record(
        finance, invoice, "26", reference="TX-2"
    )
    payment = Payment.objects.get(reference="TX-2")
    assert payment.received_at.date() == DAY
    assert payment.recorded_by == User.objects.get(username="finance")


def test_the_form_proposes_what_is_owed(finance: Client) -> None:
    invoice = invoice_of(open_account())
    text = text_of(finance.get(page(Invoice, invoice.pk, "record_payment")))
    assert 'value="36"' in text
    assert f'value="{timezone.now():%Y-%m-%d}"' in text


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ({"amount": "0"}, "Use whole cents, above 0"),
        ({"amount": "1.001"}, "Use whole cents, above 0"),
        ({"reference": ""}, "This field is required"),
        (
            {"received_on": (timezone.now() + timedelta(days=2)).date().isoformat()},
            "Record it then",
        ),
        ({"received_on": "yesterday"}, "Enter a valid date"),
    ],
)
def test_what_cannot_be_is_refused_with_all_that_was_typed(
    finance: Client, said: dict[str, str], answer: str
) -> None:
    invoice = invoice_of(open_account())
    text = record(finance, invoice, **{"amount": "36", **said})
    assert answer in text
    assert not Payment.objects.exists()
    assert status_of(invoice) == InvoiceStatus.PENDING


def test_the_same_statement_twice_is_one_payment(finance: Client) -> None:
    invoice = invoice_of(open_account())
    for _ in range(2):
        record(finance, invoice, "10")
    assert Payment.objects.count() == 1
    assert owed(invoice).amount == 26
    assert "use the bank's own reference" in record(finance, invoice, "11").lower()


def test_a_retry_says_what_happens_and_does(stripe: LocalStripe, finance: Client) -> None:
    invoice = declined(stripe)
    asked = text_of(finance.get(page(Invoice, invoice.pk, "retry_payment")))
    assert "The default card is charged within a minute." in asked
    stripe.attach(str(Customer.objects.get().provider_id), "pm_card_visa")
    invoice.account.payment_methods.update(is_default=False)
    press(finance, invoice, "retry_payment", reason="Card was renewed")
    collect(BILLED)
    assert status_of(invoice) == InvoiceStatus.PAID
    attempt = collection_of(invoice).attempts.get(number=2)
    assert (attempt.trigger, attempt.requested_by) == ("staff", User.objects.get())


def test_without_a_key_a_retry_says_so(finance: Client, settings: Settings) -> None:
    settings.STRIPE_API_KEY = ""
    invoice = invoice_of(open_account())
    services.mark_payment_failed(invoice.pk, because=services.Because("No card"), now=BILLED)
    asked = text_of(finance.get(page(Invoice, invoice.pk, "retry_payment")))
    assert "Nothing is collected while STRIPE_API_KEY is not set." in asked


@pytest.mark.parametrize("button", ["void", "issue_again"])
def test_what_is_collected_is_void_at_the_provider_too(
    stripe: LocalStripe, finance: Client, button: str
) -> None:
    invoice = declined(stripe)
    collection = collection_of(invoice)
    press(finance, invoice, button, reason="Wrong address")
    assert status_of(invoice) == InvoiceStatus.VOID
    collection.refresh_from_db()
    assert collection.status == Collection.Status.VOID
    with pytest.raises(RuntimeError, match="void"):
        stripe.pay(str(collection.provider_id), token="pm_card_visa")  # noqa: S106 - a test card


def test_what_was_paid_is_not_voided(stripe: LocalStripe, finance: Client) -> None:
    invoice = invoice_of(account_with_card(stripe))
    record(finance, invoice, "10")
    text = text_of(press(finance, invoice, "void", reason="Wrong address"))
    assert "10.00 USD of it were paid. Write a credit note instead." in text
    assert status_of(invoice) == InvoiceStatus.PENDING


@pytest.mark.parametrize("button", ["record_payment", "collect_anew"])
def test_who_may_only_look_changes_nothing(button: str) -> None:
    invoice = invoice_of(open_account())
    said = {"reason": "x", "amount": "1", "reference": "x", "received_on": DAY.isoformat()}
    assert press(viewer(), invoice, button, **said).status_code == 403
    assert not Payment.objects.exists()
