"""The hosted pages, read and submitted as a browser would."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest
import requests
import stripe
from stripe import StripeClient

from tests.local_stripe import LocalStripe
from tests.soulbox.local_stripe.invoices import customer_with, final_invoice


@dataclass
class Form:
    action: str
    button: str = ""
    fields: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """A page's text and forms."""

    def __init__(self, url: str, **submitted: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.words: list[str] = []
        if submitted:
            answer = requests.post(url, data=submitted, timeout=10)
        else:
            answer = requests.get(url, timeout=10)
        self.status, self.url = answer.status_code, answer.url
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(given["action"]))
        elif tag in ("input", "select"):
            self.forms[-1].fields[given["name"]] = given.get("value", "")

    def handle_data(self, data: str) -> None:
        if self.forms and not self.forms[-1].button and self.lasttag == "button":
            self.forms[-1].button = data
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def press(self, button: str, **chosen: str) -> Page:
        """Submit the first form whose button begins so."""
        form = next(one for one in self.forms if one.button.startswith(button))
        return Page(urljoin(self.url, form.action), **{"pressed": "1", **form.fields, **chosen})


def test_an_invoice_is_paid_on_its_page(client: StripeClient, local: LocalStripe) -> None:
    customer = client.v1.customers.create({"name": "<b>Ada</b>"})
    invoice = final_invoice(client, customer.id, 123456)
    page = Page(str(invoice.hosted_invoice_url))
    assert "<b>Ada</b>" in page.text
    assert "1,234.56 USD" in page.text
    declined = page.press("Pay", token="pm_card_chargeCustomerFail")  # noqa: S106 - a test card
    assert "Your card was declined." in declined.text
    paid = declined.press("Pay", token="pm_card_visa")  # noqa: S106 - the same
    assert "Thank you." in paid.text
    assert paid.forms == []
    assert client.v1.invoices.retrieve(invoice.id).status == "paid"
    assert len(local.charges()) == 1


def test_authentication_is_completed_on_the_page(client: StripeClient, local: LocalStripe) -> None:
    customer = customer_with(client, local, "pm_card_authenticationRequired")
    invoice = final_invoice(client, customer.id, 1000)
    with pytest.raises(stripe.CardError):
        client.v1.invoices.pay(invoice.id)
    page = Page(str(invoice.hosted_invoice_url))
    assert "Thank you." in page.press("Complete authentication").text
    assert client.v1.invoices.retrieve(invoice.id).status == "paid"


def test_a_card_that_asks_for_authentication_leads_to_that_step(
    client: StripeClient, local: LocalStripe
) -> None:
    customer = customer_with(client, local, "pm_card_authenticationRequired")
    invoice = final_invoice(client, customer.id, 1000)
    asked = Page(str(invoice.hosted_invoice_url)).press("Pay")
    assert "Your bank wants you to confirm" in asked.text
    asked.press("Complete authentication")
    assert client.v1.invoices.retrieve(invoice.id).status == "paid"


def test_the_portal_manages_cards_and_subscriptions(
    client: StripeClient, local: LocalStripe
) -> None:
    customer = customer_with(client, local, "pm_card_visa")
    subscription = client.v1.subscriptions.create(
        {"customer": customer.id, "items": [{"price": "price_soulbox_pro_monthly"}]}
    )
    invoice = final_invoice(client, customer.id, 1000)
    session = client.v1.billing_portal.sessions.create(
        {"customer": customer.id, "return_url": "http://127.0.0.1/back"}
    )
    page = Page(session.url)
    assert "Visa •••• 4242" in page.text
    assert str(invoice.number) in page.text
    page = page.press("Add card", token="pm_card_mastercard")  # noqa: S106 - a test card
    assert "Mastercard •••• 4444, 12/" in page.text
    cards = client.v1.customers.payment_methods.list(customer.id).data
    page = page.press("Make default")
    settings = client.v1.customers.retrieve(customer.id).invoice_settings
    assert settings is not None
    assert settings.default_payment_method == cards[1].id
    page = page.press("Remove")
    assert len(client.v1.customers.payment_methods.list(customer.id).data) == 1
    page = page.press("Cancel at period end")
    assert client.v1.subscriptions.retrieve(subscription.id).cancel_at_period_end
    assert "Ends with its period" in page.text


@pytest.mark.parametrize("path", ["invoices/in_none", "portal/bps_none"])
def test_a_page_that_is_not_there_says_so(local: LocalStripe, path: str) -> None:
    page = Page(f"{local.url}/_local/pages/{path}")
    assert page.status == 404
    assert "No such" in page.text


def test_the_overview_leads_to_every_invoice(client: StripeClient, local: LocalStripe) -> None:
    customer = customer_with(client, local, "pm_card_visa")
    paid, draft = (
        final_invoice(client, customer.id, 1000),
        client.v1.invoices.create({"customer": customer.id}),
    )
    client.v1.invoices.pay(paid.id)
    page = Page(local.url)
    assert str(paid.number) in page.text
    assert "invoice.paid delivered" in page.text
    assert "would not know: 0" in page.text
    assert "Draft" in page.text
    assert Page(f"{local.url}/_local/pages/invoices/{draft.id}").forms == []
