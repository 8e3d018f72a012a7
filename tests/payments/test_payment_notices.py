from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from pytest_django.fixtures import Settings

from billing import services
from billing.models import MailMessage
from payments.failures import failure_words
from payments.models import PaymentMethod
from payments.services.methods import take_methods
from payments.services.notices import tell_of_expiring_cards
from payments.services.settling import settle_bill
from tests.billing.mail import open_with_owner, start_mailing
from tests.billing.usage import open_account
from tests.local_stripe import LocalStripe
from tests.payments.arrears import Debtor, days, dun
from tests.payments.month import collect

pytestmark = pytest.mark.django_db

Kind = MailMessage.Kind
NOW = datetime(2026, 6, 10, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _mailing_began_with_the_account() -> None:
    start_mailing()


def written(kind: MailMessage.Kind | None = None) -> list[MailMessage]:
    rows = MailMessage.objects.order_by("created_at", "pk")
    return list(rows.filter(kind=kind) if kind else rows.exclude(kind=Kind.INVOICE_READY))


def test_a_failed_payment_says_why_when_it_is_tried_again_and_where_it_can_be_paid(
    stripe: LocalStripe,
) -> None:
    debtor = Debtor(stripe)
    (message,) = written()
    assert message.kind == Kind.PAYMENT_FAILED
    assert message.subject == "Payment failed: invoice 2026-000001, 36.00 USD"
    lines = message.text.splitlines()
    for fact in (
        "Amount due: 36.00 USD",
        "Reason: The bank declined the card.",
        "Tried again: 2 June 2026, 00:15 (UTC)",
        "Sandboxes are stopped: 15 June 2026, 00:15 (UTC)",
        debtor.attempts[0].collection.hosted_url,
    ):
        assert fact in lines
    assert f'href="{debtor.attempts[0].collection.hosted_url}"' in message.html


def test_each_failure_is_told_of_once(stripe: LocalStripe) -> None:
    Debtor(stripe)
    services.write_due_messages(days(0.01))
    assert len(written(Kind.PAYMENT_FAILED)) == 1
    dun(days(1))
    dun(days(1))
    services.write_due_messages(days(1.01))
    assert len(written(Kind.PAYMENT_FAILED)) == 2
    assert len(written()) == 2


def test_a_payment_to_be_confirmed_leads_to_the_page_and_is_no_failure(
    stripe: LocalStripe,
) -> None:
    debtor = Debtor(stripe, "pm_card_authenticationRequired")
    services.write_due_messages(days(0.01))
    (message,) = written()
    assert message.kind == Kind.CONFIRM_PAYMENT
    assert message.subject == "Confirm your payment: invoice 2026-000001, 36.00 USD"
    assert debtor.attempts[0].collection.hosted_url in message.text.splitlines()
    assert "Your bank wants you to confirm" in message.text


def test_without_a_card_the_reason_is_that(stripe: LocalStripe) -> None:
    Debtor(stripe, "")
    (message,) = written()
    assert "Reason: There is no payment method." in message.text.splitlines()


def test_suspension_write_off_and_late_payment_are_told_of_once_each(
    stripe: LocalStripe,
) -> None:
    debtor = Debtor(stripe)
    for day in (1, 3, 7, 14, 28):
        dun(days(day))
        dun(days(day))
    stripe.pay(debtor.bill, token="pm_card_visa")  # noqa: S106 - a test card
    settle_bill(debtor.bill, now=days(50))
    settle_bill(debtor.bill, now=days(51))
    dun(days(51))
    services.write_due_messages(days(51))
    assert Counter(message.kind for message in written()) == {
        Kind.PAYMENT_FAILED: 5,
        Kind.ACCOUNT_SUSPENDED: 1,
        Kind.INVOICE_WRITTEN_OFF: 1,
        Kind.ACCOUNT_RESUMED: 1,
    }
    (suspended,) = written(Kind.ACCOUNT_SUSPENDED)
    (written_off,) = written(Kind.INVOICE_WRITTEN_OFF)
    (resumed,) = written(Kind.ACCOUNT_RESUMED)
    assert "Invoice 2026-000001: 36.00 USD" in suspended.text.splitlines()
    page = debtor.attempts[0].collection.hosted_url
    assert page in suspended.text.splitlines()
    assert page in written_off.text.splitlines()
    assert resumed.subject == "Your account is active again"
    assert page not in resumed.text


def test_the_last_failure_before_suspension_does_not_promise_another_try(
    stripe: LocalStripe,
) -> None:
    Debtor(stripe)
    for day in (1, 3, 7, 14):
        dun(days(day))
    last = written(Kind.PAYMENT_FAILED)[-1]
    assert "Tried again" not in last.text
    assert "Sandboxes are stopped" in last.text


def test_what_is_paid_after_a_failure_is_told_of(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    stripe.attach(debtor.customer_id, "pm_card_visa")
    take_methods(debtor.customer_id, now=days(0.1))
    collect(days(0.1))
    dun(days(0.2))
    assert [message.subject for message in written()] == [
        "Payment failed: invoice 2026-000001, 36.00 USD",
        "Invoice 2026-000001 is paid",
    ]


def test_what_is_paid_at_once_is_not(stripe: LocalStripe) -> None:
    Debtor(stripe, "pm_card_visa")
    dun(days(1))
    assert written() == []


@pytest.mark.parametrize(
    ("code", "decline_code", "words"),
    [
        ("card_declined", "insufficient_funds", "There is not enough money on the card's account."),
        ("expired_card", "", "The card has expired."),
        ("card_declined", "expired_card", "The card has expired."),
        # The bank's suspicion is not for who holds the card.
        ("card_declined", "stolen_card", "The bank declined the card."),
        ("card_declined", "fraudulent", "The bank declined the card."),
        ("card_declined", "lost_card", "The bank declined the card."),
        ("", "", "The bank declined the card."),
        ("no_payment_method", "", "There is no payment method."),
    ],
)
def test_a_failure_in_words(code: str, decline_code: str, words: str) -> None:
    assert failure_words(code, decline_code) == words


def card(
    month: int, year: int = 2026, *, is_default: bool = True, name: str = "Ada"
) -> PaymentMethod:
    account = open_with_owner(name, f"{name}@example.com".casefold())
    return PaymentMethod.objects.create(
        account=account,
        provider_id=f"pm_{name}",
        kind="card",
        brand="visa",
        last4="4242",
        expires_month=month,
        expires_year=year,
        is_default=is_default,
        added_at=NOW,
    )


def test_a_card_that_soon_expires_is_told_of_once(settings: Settings) -> None:
    settings.PAYMENTS_RETURN_URL = "https://pay.example.com"
    method = card(6)
    assert tell_of_expiring_cards(NOW) == 1
    assert tell_of_expiring_cards(NOW + timedelta(hours=1)) == 0
    (message,) = written()
    assert message.subject == "Your card Visa …4242 expires on 30 June 2026"
    assert "https://pay.example.com" in message.text.splitlines()
    # Renewed, it is told of again when that ends.
    PaymentMethod.objects.filter(pk=method.pk).update(expires_year=2027)
    assert tell_of_expiring_cards(NOW) == 0
    assert tell_of_expiring_cards(NOW + timedelta(days=365)) == 1


@pytest.mark.parametrize(
    ("at", "told"),
    [
        (datetime(2026, 5, 31, 23, 59, tzinfo=UTC), 0),
        (datetime(2026, 6, 1, tzinfo=UTC), 1),
        (datetime(2026, 6, 30, 23, 59, tzinfo=UTC), 1),
        (datetime(2026, 7, 1, tzinfo=UTC), 0),
    ],
)
def test_a_card_is_told_of_in_the_days_before_its_month_ends(at: datetime, told: int) -> None:
    card(6)
    assert tell_of_expiring_cards(at) == told


def test_months_are_counted_over_the_turn_of_the_year() -> None:
    card(12)
    card(1, 2027, name="Bob")
    assert tell_of_expiring_cards(datetime(2026, 12, 15, tzinfo=UTC)) == 1
    assert tell_of_expiring_cards(datetime(2027, 1, 2, tzinfo=UTC)) == 1


def test_cards_that_are_not_charged_and_those_that_do_not_expire_are_left_alone() -> None:
    card(6, is_default=False)
    PaymentMethod.objects.create(
        account=open_account("Bob"), provider_id="pm_2", kind="link", is_default=True, added_at=NOW
    )
    assert tell_of_expiring_cards(NOW) == 0
