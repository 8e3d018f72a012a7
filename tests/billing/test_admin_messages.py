from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.core import mail
from django.test import Client

from billing import services
from billing.models import Account, Budget, MailMessage
from tests.billing import admin_pages
from tests.billing.admin_pages import act, page, press, text_of
from tests.billing.mail import (
    ADDRESS,
    add_member,
    issue_invoice,
    open_with_owner,
    send_waiting,
    start_mailing,
)
from tests.billing.usage import AFTER_MAY, open_account

pytestmark = pytest.mark.django_db

LATER = AFTER_MAY + timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _it_is_after_may(set_clock: Callable[[datetime], None]) -> None:
    set_clock(LATER)
    start_mailing()


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def write_to(account: Account) -> MailMessage:
    issue_invoice(account)
    services.write_due_messages(LATER)
    return MailMessage.objects.get(account=account)


@pytest.mark.parametrize(
    ("columns", "state"),
    [
        ({}, "waiting"),
        ({"claimed_until": LATER + timedelta(seconds=1)}, "sending"),
        ({"claimed_until": LATER, "handed_over_at": LATER}, "unsure"),
        ({"handed_over_at": LATER, "sent_at": LATER}, "sent"),
        ({"given_up_at": LATER}, "given_up"),
        ({"recipient": ""}, "nobody"),
    ],
)
def test_messages_are_found_by_what_became_of_them(
    finance: Client, columns: dict[str, object], state: str
) -> None:
    message = write_to(open_with_owner())
    MailMessage.objects.update(**columns)
    for value in MailMessage.State.values:
        listed = text_of(finance.get(page(MailMessage), {"state": value}))
        assert (f"/{message.pk}/change/" in listed) == (value == state)
    shown = text_of(finance.get(page(MailMessage, message.pk, "change")))
    assert MailMessage.State(state).label in shown
    assert "<div>Your invoice 2026-000001 is ready. 12.00 USD is due.</div>" in shown


def test_a_message_that_was_given_up_is_sent_again(finance: Client) -> None:
    message = write_to(open_with_owner())
    MailMessage.objects.update(given_up_at=LATER, last_error="550 No such person", attempts=1)
    shown = text_of(press(finance, message, "send_again"))
    assert f"It is sent to {ADDRESS} within a minute." in shown
    send_waiting(LATER)
    assert [email.to for email in mail.outbox] == [[ADDRESS]]


def test_messages_to_nobody_say_what_is_missing(finance: Client) -> None:
    first, second = (write_to(open_account(name)) for name in ("Ada", "Bob"))
    add_member(second.account, "bob@example.com")
    shown = act(finance, MailMessage, "send_chosen_again", first.pk, second.pk)
    assert "The account has no address." in shown
    assert "It is sent to bob@example.com within a minute." in shown


def test_who_only_looks_sends_nothing() -> None:
    message = write_to(open_with_owner())
    viewer = admin_pages.viewer()
    assert viewer.get(page(MailMessage, message.pk, "change")).status_code == 200
    assert press(viewer, message, "send_again").status_code == 403
    send_waiting(LATER)
    act(viewer, MailMessage, "send_chosen_again", message.pk)
    message.refresh_from_db()
    assert message.copy == 1
    assert message.sent_at == LATER


def test_nobody_writes_or_changes_messages_by_hand(finance: Client) -> None:
    message = write_to(open_with_owner())
    assert finance.get(page(MailMessage, "add")).status_code == 403
    finance.post(page(MailMessage, message.pk, "change"), {"subject": "Other"})
    message.refresh_from_db()
    assert message.subject == "Invoice 2026-000001: 12.00 USD due"


def test_hostile_names_are_text_in_the_admin(finance: Client) -> None:
    account = open_with_owner('<script>alert("x")</script>')
    message = write_to(account)
    for address in (page(MailMessage), page(MailMessage, message.pk, "change")):
        content = finance.get(address).content.decode()
        assert '<script>alert("x")' not in content
        assert "&lt;script&gt;alert(&quot;x&quot;)" in content


def test_a_budget_is_made_and_changed(finance: Client) -> None:
    account = open_account()
    form = {
        "account": str(account.pk),
        "name": "Sandboxes",
        "amount": "250",
        "thresholds": "100,50,80,50",
        "is_active": "on",
    }
    assert finance.post(page(Budget, "add"), form).status_code == 302
    budget = Budget.objects.get()
    assert (budget.amount, budget.thresholds) == (Decimal(250), [50, 80, 100])
    changed = {**form, "thresholds": "90"}
    assert finance.post(page(Budget, budget.pk, "change"), changed).status_code == 302
    shown = text_of(finance.get(page(Budget)))
    assert "250.00 USD" in shown
    assert "90 %" in shown


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"amount": "0"}, "Use an amount above 0."),
        ({"thresholds": ""}, "This field is required."),
        ({"thresholds": "0,50"}, "Use percentages from 1 to 1000."),
        ({"thresholds": "50,half"}, "Enter a whole number"),
        ({"thresholds": "5000"}, "Use percentages from 1 to 1000."),
    ],
)
def test_a_budget_that_says_nothing_is_refused(
    finance: Client, said: dict[str, str], sentence: str
) -> None:
    form = {
        "account": str(open_account().pk),
        "name": "Sandboxes",
        "amount": "250",
        "thresholds": "50",
        **said,
    }
    shown = text_of(finance.post(page(Budget, "add"), form))
    assert sentence in shown
    assert not Budget.objects.exists()
