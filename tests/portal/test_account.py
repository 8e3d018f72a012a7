"""The account's own page, and closing it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from billing.credits import CreditKind
from billing.models import Account, AccountClosing, AuditEntry, Membership
from billing.services import Gift, change_cycle, grant_credit
from tests.billing.usage import NOON, bill, open_account, record_usage
from tests.portal.conftest import SetClock
from tests.portal.members import add_member, signed_in, words_of

pytestmark = pytest.mark.django_db

SAID = {
    "name": "Ada Ltd",
    "address": "1 Row\r\nLondon",
    "tax_id": "GB1",
    "billing_email": "books@example.com",
    "time_zone": "UTC",
    "threshold": "",
    "top_up": "",
}


@pytest.fixture
def account(set_clock: SetClock) -> Account:
    set_clock(NOON)
    return open_account("Ada")


@pytest.fixture
def owner(account: Account) -> Client:
    return signed_in(add_member(account, "ada"))


def test_an_owner_changes_what_invoices_print(account: Account, owner: Client) -> None:
    assert owner.post("/account", SAID)["Location"] == "/account"
    account.refresh_from_db()
    assert (account.name, account.address, account.tax_id) == ("Ada Ltd", "1 Row\nLondon", "GB1")
    assert (account.billing_email, account.top_up_amount) == ("books@example.com", None)
    page = words_of(owner.get("/account"))
    assert "1 Row\nLondon</textarea>" in page
    assert 'value="books@example.com"' in page
    entry = AuditEntry.objects.filter(table_name="billing_account").latest("id")
    assert entry.actor == User.objects.get(username="ada")


def test_credit_buys_itself_and_no_longer(account: Account, owner: Client) -> None:
    owner.post("/account", SAID | {"threshold": "20", "top_up": "100"})
    account.refresh_from_db()
    assert (account.top_up_threshold, account.top_up_amount) == (20, 100)
    assert 'value="100.00"' in words_of(owner.get("/account"))
    owner.post("/account", SAID)
    account.refresh_from_db()
    assert account.top_up_amount is None


def test_another_zone_counts_from_the_next_period_on(account: Account, owner: Client) -> None:
    change_cycle(account.pk, anchor_day=5, now=NOON)
    # Left alone, what waits stays as it is.
    owner.post("/account", SAID)
    account.refresh_from_db()
    assert account.next_anchor_day == 5
    owner.post("/account", SAID | {"time_zone": "Europe/London"})
    account.refresh_from_db()
    assert (account.time_zone, account.next_time_zone) == ("UTC", "Europe/London")
    assert "periods are cut in Europe/London" in words_of(owner.get("/account"))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"name": " "}, "This field is required."),
        ({"address": "\n".join("x" * 11)}, "Use at most 10 lines."),
        ({"billing_email": "nobody"}, "Enter a valid email address."),
        ({"time_zone": "Mars/Olympus"}, "Select a valid choice."),
        ({"threshold": "5"}, "Give a threshold of 0 or more and an amount above 0"),
        ({"threshold": "5", "top_up": "1.001"}, "Use whole cents."),
    ],
)
def test_what_is_no_good_is_said_and_nothing_is_kept(
    owner: Client, said: dict[str, Any], words: str
) -> None:
    before = Account.objects.values().get()
    answer = owner.post("/account", SAID | {"tax_id": "GB2"} | said)
    assert words in words_of(answer)
    assert Account.objects.values().get() == before


def test_nothing_but_what_the_form_has_is_changed(account: Account, owner: Client) -> None:
    more = {"currency": "EUR", "tax_rate": "0.5", "closed_at": "2026-05-10", "parked_reason": "x"}
    owner.post("/account", SAID | more)
    changed = Account.objects.get(pk=account.pk)
    assert (changed.currency, changed.parked_reason) == ("USD", "")
    assert changed.tax_rate == 0
    assert changed.closed_at is None


def test_an_account_is_closed_by_its_name(account: Account, owner: Client) -> None:
    gift = Gift(CreditKind.PREPAID, Decimal(7), "Top-up", "1")
    grant_credit(account.pk, gift, now=NOON)
    assert "of 7.00 USD now, goes back" in words_of(owner.get("/account/close"))
    refused = words_of(owner.post("/account/close", {"name": "Eve"}))
    assert "This is not the account's name." in refused
    assert not AccountClosing.objects.exists()
    closed = owner.post("/account/close", {"name": "Ada", "reason": "Done"}, follow=True)
    assert "nothing new begins in it" in words_of(closed)
    closing = AccountClosing.objects.get()
    assert (closing.reason, closing.asked_by) == ("Done", User.objects.get(username="ada"))
    assert "10 May 2026, 12:15" in words_of(owner.get("/account"))
    again = owner.get("/account/close", follow=True)
    assert "The account is being closed already." in words_of(again)
    # What the final invoice prints may be put right, and no more.
    owner.post("/account", SAID)
    account.refresh_from_db()
    assert account.tax_id == "GB1"
    zone = owner.post("/account", SAID | {"time_zone": "Europe/London", "tax_id": "GB2"})
    assert "neither zone nor credit changes" in words_of(zone)


def test_what_is_in_the_way_of_closing_is_said(account: Account, owner: Client) -> None:
    record_usage(account.pk, NOON, cpu_s=3_000_000)
    assert "Sandboxes run: sbx-1." in words_of(owner.post("/account/close", {"name": "Ada"}))
    invoice = bill(account)
    said = words_of(owner.post("/account/close", {"name": "Ada", "stop_sandboxes": "on"}))
    assert f"Not paid: {invoice.number}. Pay first." in said
    assert not AccountClosing.objects.exists()


def test_an_open_account_is_looked_at_before_a_closed_one(account: Account) -> None:
    closed_at = NOON - timedelta(days=1)
    Account.objects.filter(pk=account.pk).update(
        closing_at=closed_at, ends_at=closed_at, closed_at=closed_at
    )
    user = add_member(account, "both")
    for name in ("Zoe", "Yan"):
        Membership.objects.create(user=user, account=open_account(name), role=Membership.Role.OWNER)
    client = signed_in(user)
    assert client.get("/invoices").context["account"].name == "Yan"
    client.post("/account-switch", {"account": str(account.pk)})
    assert "The account was closed on 9 May 2026" in words_of(client.get("/invoices"))
