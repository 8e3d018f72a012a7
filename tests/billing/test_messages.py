from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.core import mail
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings

from billing import services
from billing.credits import CreditKind
from billing.letters import write_letter
from billing.models import Account, MailCursor, MailMessage, Membership
from billing.services import messages
from billing.services.messages import OVERLAP
from tests.billing.mail import (
    ADDRESS,
    add_member,
    issue_invoice,
    open_with_owner,
    send_waiting,
    start_mailing,
)
from tests.billing.usage import AFTER_MAY, JUNE, NOON, bill, open_account, record_usage

pytestmark = pytest.mark.django_db

WHY = services.Because("Card declined")
LATER = AFTER_MAY + timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _mailing_began_with_the_account() -> None:
    start_mailing()


def test_an_invoice_that_asks_for_money_is_told_of(settings: Settings) -> None:
    settings.PUBLIC_URL = "https://billing.example.com"
    account = open_with_owner()
    Account.objects.filter(pk=account.pk).update(time_zone="Asia/Kolkata")
    invoice = issue_invoice(account)
    assert services.write_due_messages(LATER) == 1
    send_waiting(LATER)
    (sent,) = mail.outbox
    assert isinstance(sent, mail.EmailMultiAlternatives)
    assert sent.subject == "Invoice 2026-000001: 12.00 USD due"
    assert sent.to == [ADDRESS]
    assert sent.body.splitlines()[0] == "Your invoice 2026-000001 is ready. 12.00 USD is due."
    link = f"https://billing.example.com/api/v1/invoices/{invoice.pk}"
    period = "1 May 2026, 05:30 to 1 June 2026, 05:30 (Asia/Kolkata)"
    for fact in ("Account: Ada", "Amount due: 12.00 USD", f"Period: {period}", link):
        assert fact in sent.body.splitlines()
    ((html, kind),) = sent.alternatives
    assert kind == "text/html"
    for fact in (">2026-000001<", ">12.00 USD<", f">{period}<", f'href="{link}"'):
        assert fact in str(html)


def test_an_invoice_says_when_it_is_due_and_on_which_terms() -> None:
    invoice = issue_invoice(open_with_owner())
    invoice.due_on, invoice.payment_terms = date(2026, 6, 15), "14 days net\nno discount"
    content = messages.about_invoice(invoice, template="invoice_ready", subject="Invoice")
    terms = "Terms: Due by 15 June 2026. 14 days net no discount"
    assert terms in write_letter(content).text.splitlines()


def test_an_invoice_of_nothing_is_not_told_of() -> None:
    account = open_with_owner()
    record_usage(account.pk, cpu_s=1_000_000)
    gift = services.Gift(CreditKind.PREPAID, Decimal(12), "Bank transfer", "BT-1")
    services.grant_credit(account.pk, gift, now=NOON)
    assert bill(account).amount_due == 0
    assert services.write_due_messages(LATER) == 0


def test_each_payment_that_fails_is_told_of() -> None:
    invoice = issue_invoice(open_with_owner())
    services.write_due_messages(LATER)
    for turn in range(2):
        services.mark_payment_failed(invoice.pk, because=WHY, now=LATER)
        assert services.write_due_messages(LATER) == 1, turn
        services.retry_payment(invoice.pk, because=WHY, now=LATER)
    failed = MailMessage.objects.filter(kind="payment_failed")
    assert [message.subject for message in failed] == [
        "Payment failed: invoice 2026-000001, 12.00 USD"
    ] * 2
    for message in failed:
        assert "The payment of invoice 2026-000001 failed. 12.00 USD is still due." in message.text
        # Why is for staff: it may be anything that somebody typed.
        assert "Card declined" not in message.text + message.html


@pytest.mark.parametrize(
    ("kind", "days", "is_told"),
    [
        (CreditKind.PROMOTIONAL, 7, True),
        (CreditKind.PREPAID, 7, True),
        (CreditKind.PROMOTIONAL, 8, False),
        (CreditKind.PROMOTIONAL, None, False),
    ],
)
def test_credit_is_told_of_a_week_before_it_expires(
    kind: CreditKind,
    days: int | None,
    is_told: bool,  # noqa: FBT001 - a column of the table
) -> None:
    account = open_with_owner()
    expires_at = None if days is None else NOON + timedelta(days=days)
    gift = services.Gift(kind, Decimal("25.5"), "Welcome", "welcome", expires_at=expires_at)
    services.grant_credit(account.pk, gift, now=NOON)
    assert services.write_due_messages(NOON) == int(is_told)
    if is_told:
        message = MailMessage.objects.get()
        assert message.subject == "Credit of 25.50 USD expires on 17 May 2026"
        assert f"Credit: {kind.value.capitalize()}" in message.text
        assert "Expires: 17 May 2026, 12:00 (UTC)" in message.text


def test_credit_that_is_used_up_or_gone_is_not_told_of() -> None:
    account = open_with_owner()
    expires_at = NOON + timedelta(days=3)
    gift = services.Gift(
        CreditKind.PROMOTIONAL, Decimal(25), "Welcome", "welcome", expires_at=expires_at
    )
    services.grant_credit(account.pk, gift, now=NOON)
    by = services.ByHand(reason="Training", reference="T-1")
    services.use_credit(account.pk, Decimal(25), by=by, now=NOON)
    assert services.write_due_messages(NOON) == 0
    assert services.write_due_messages(expires_at) == 0


def test_sweeping_twice_writes_and_sends_once() -> None:
    account = open_with_owner()
    invoice = issue_invoice(account)
    services.mark_payment_failed(invoice.pk, because=WHY, now=LATER)
    for number, left in enumerate([2, 0, 0]):
        now = LATER + number * timedelta(seconds=15)
        assert services.write_due_messages(now) == left
        send_waiting(now)
    assert len(mail.outbox) == 2
    assert len({email.extra_headers["Message-ID"] for email in mail.outbox}) == 2


def test_invoices_from_before_e_mails_are_not_told_of() -> None:
    account = open_with_owner()
    issue_invoice(account)
    start_mailing(LATER)
    assert services.write_due_messages(LATER) == 0
    MailCursor.objects.all().delete()
    assert services.write_due_messages(LATER) == 0


def test_what_was_looked_through_is_not_looked_through_again() -> None:
    account = open_with_owner()
    issue_invoice(account)
    services.write_due_messages(JUNE.end)
    cursor = MailCursor.objects.get(source="invoice transitions")
    assert cursor.looked_until == JUNE.end - OVERLAP
    # A sweep with an older clock leaves it where it is.
    services.write_due_messages(AFTER_MAY)
    cursor.refresh_from_db()
    assert cursor.looked_until == JUNE.end - OVERLAP


def test_a_void_invoice_is_not_told_of() -> None:
    invoice = issue_invoice(open_with_owner())
    services.void_invoice(invoice.pk, because=WHY, now=AFTER_MAY)
    assert services.write_due_messages(LATER) == 0


def test_owners_billing_people_and_the_account_have_one_each_and_nobody_else() -> None:
    account = open_with_owner()
    add_member(account, "bill@example.com", Membership.Role.BILLING)
    add_member(account, "ADA@example.com", Membership.Role.BILLING)
    add_member(account, "viewer@example.com", Membership.Role.VIEWER)
    add_member(account, "")
    gone = add_member(account, "gone@example.com")
    gone.is_active = False
    gone.save(update_fields=["is_active"])
    Account.objects.filter(pk=account.pk).update(billing_email="billing@example.com")
    add_member(open_account("Bob"), "bob@example.com")
    issue_invoice(account)
    assert services.write_due_messages(LATER) == 1
    send_waiting(LATER)
    # Each to one address, so that nobody reads who else has it.
    assert sorted(email.to for email in mail.outbox) == [
        [ADDRESS],
        ["bill@example.com"],
        ["billing@example.com"],
    ]


def test_an_account_without_an_address_has_a_row_that_says_so() -> None:
    account = open_account()
    issue_invoice(account)
    assert services.write_due_messages(LATER) == 1
    assert services.write_due_messages(LATER) == 0
    message = MailMessage.objects.get()
    assert message.recipient == ""
    send_waiting(LATER)
    with pytest.raises(services.MessageRefusedError, match="no address"):
        services.send_again(message.pk, now=LATER)
    assert mail.outbox == []
    # Nothing is lost: it goes out once there is somebody.
    add_member(account, ADDRESS)
    add_member(account, "bill@example.com")
    services.send_again(message.pk, now=LATER)
    send_waiting(LATER)
    assert sorted(email.to for email in mail.outbox) == [[ADDRESS], ["bill@example.com"]]


@pytest.mark.parametrize(
    "address", ["ada", "ada@example.com\nBcc: eve@example.com", "a@b@c", "ada@example.com, eve@x.y"]
)
def test_what_is_no_address_is_given_up_and_says_why(address: str) -> None:
    issue_invoice(open_with_owner(address=address))
    services.write_due_messages(LATER)
    message = MailMessage.objects.get()
    assert message.given_up_at == LATER
    assert message.last_error == "It is no e-mail address."
    send_waiting(LATER)
    assert mail.outbox == []


def test_many_are_written_in_few_queries() -> None:
    counts = []
    for number in (1, 10):
        for each in range(number):
            gift = services.Gift(
                CreditKind.PREPAID, Decimal(5), "Welcome", "w", expires_at=NOON + timedelta(days=1)
            )
            account = open_with_owner(f"Ada {number}", f"ada{number}.{each}@example.com")
            services.grant_credit(account.pk, gift, now=NOON)
        with CaptureQueriesContext(connection) as queries:
            assert services.write_due_messages(NOON) == number
        counts.append(len(queries))
    assert counts[0] == counts[1]
