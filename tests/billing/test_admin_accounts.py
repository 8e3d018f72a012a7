from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import pytest
from django.test import Client

from billing import services
from billing.credits import CreditKind
from billing.models import Account, CreditEntry, PriceBookVersion
from metering.models import AccountRegistration
from tests.billing import admin_pages
from tests.billing.admin_pages import act, formset, page, press, text_of
from tests.billing.usage import AFTER_MAY, JUNE, MAY, NOON, open_account, record_usage

pytestmark = pytest.mark.django_db

ADA = {
    "name": "Ada",
    "currency": "usd",
    "time_zone": "Europe/Berlin",
    "anchor_day": "15",
    "tax_rate": "0.19",
    "tax_is_inclusive": "on",
    **formset("memberships"),
}


@pytest.fixture(autouse=True)
def _it_is_after_may(set_clock: Callable[[datetime], None]) -> None:
    set_clock(AFTER_MAY)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def test_an_account_added_here_is_known_to_metering(finance: Client) -> None:
    response = finance.post(page(Account, "add"), ADA)
    assert response.status_code == 302, response.context["adminform"].form.errors
    account = Account.objects.get()
    assert (account.name, account.currency, account.anchor_day) == ("Ada", "USD", 15)
    assert (account.tax_rate, account.tax_is_inclusive) == (Decimal("0.19"), True)
    assert AccountRegistration.objects.get().account_id == account.pk


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("time_zone", "Mars/Olympus", "Not an IANA time zone, as in Europe/Berlin."),
        ("currency", "1ST", "Use a currency of ISO 4217, as in USD."),
        ("currency", "€", "Use a currency of ISO 4217, as in USD."),
        ("anchor_day", "32", "Use a day of the month, 1 to 31."),
        ("tax_rate", "19", "Ensure that there are no more than 1 digit"),
        ("tax_rate", "1", "Use a fraction, as in 0.19 for 19 %."),
        ("tax_rate", "-0.1", "Use a fraction, as in 0.19 for 19 %."),
    ],
)
def test_an_account_that_cannot_be_is_refused_with_a_sentence(
    finance: Client, field: str, value: str, sentence: str
) -> None:
    response = finance.post(page(Account, "add"), {**ADA, field: value})
    assert response.status_code == 200
    assert sentence in text_of(response)
    assert not Account.objects.exists()


def test_of_an_open_account_name_and_tax_can_be_changed(finance: Client) -> None:
    account = open_account()
    form = {"name": "Ada Labs", "tax_rate": "0.07", "time_zone": "Asia/Tokyo", "anchor_day": "9"}
    for rows in ("memberships", "subscriptions", "unpriced_usage", "api_keys"):
        form |= formset(rows)
    response = finance.post(page(Account, account.pk, "change"), form)
    assert response.status_code == 302
    account.refresh_from_db()
    assert (account.name, account.tax_rate) == ("Ada Labs", Decimal("0.07"))
    assert (account.time_zone, account.anchor_day) == ("UTC", 1)


def test_zone_and_anchor_day_change_where_the_period_ends(finance: Client) -> None:
    account = services.open_account(name="Ada", now=AFTER_MAY)
    asked = text_of(finance.get(page(Account, account.pk, "change_cycle")))
    assert "They take effect at 2026-07-01 00:00 UTC" in asked
    said = {"time_zone": "Asia/Tokyo", "anchor_day": "9"}
    assert "takes effect at 2026-07-01" in text_of(press(finance, account, "change_cycle", **said))
    account.refresh_from_db()
    assert (account.next_time_zone, account.next_anchor_day) == ("Asia/Tokyo", 9)
    assert account.cycle_changes_at == JUNE.end
    said = {"time_zone": "UTC", "anchor_day": "1"}
    assert "stay as they are" in text_of(press(finance, account, "change_cycle", **said))
    account.refresh_from_db()
    assert account.next_anchor_day is None


@pytest.mark.parametrize(
    ("zone", "day", "sentence"),
    [
        ("Mars/Olympus", "1", "Use an IANA time zone, as in Europe/Berlin."),
        ("UTC", "32", "Use a day of the month, 1 to 31."),
    ],
)
def test_a_refused_change_of_zone_says_why_and_keeps_what_was_typed(
    finance: Client, zone: str, day: str, sentence: str
) -> None:
    account = open_account()
    shown = text_of(press(finance, account, "change_cycle", time_zone=zone, anchor_day=day))
    assert sentence in shown
    assert f'value="{zone}"' in shown
    account.refresh_from_db()
    assert account.cycle_changes_at is None


def test_automatic_top_up_is_set_and_taken_back(finance: Client) -> None:
    account = open_account()
    shown = text_of(press(finance, account, "set_top_up", threshold="20", amount="100"))
    assert "100.00 USD below 20.00 USD" in shown
    account.refresh_from_db()
    assert (account.top_up_threshold, account.top_up_amount) == (Decimal(20), Decimal(100))
    press(finance, account, "set_top_up", threshold="", amount="")
    account.refresh_from_db()
    assert account.top_up_threshold is None


def test_half_an_automatic_top_up_is_refused(finance: Client) -> None:
    account = open_account()
    shown = text_of(press(finance, account, "set_top_up", threshold="20", amount=""))
    assert "Give a threshold of 0 or more and an amount above 0, or neither." in shown
    shown = text_of(press(finance, account, "set_top_up", threshold="20", amount="1.005"))
    assert "amount is 1.005. Use whole cents." in shown


def test_credit_can_be_used_by_hand_once(finance: Client) -> None:
    account = open_account()
    gift = services.Gift(CreditKind.PREPAID, Decimal(10), "Bank transfer", "BT-1")
    services.grant_credit(account.pk, gift, now=NOON)
    said = {"amount": "4", "reference": "workshop", "reason": "A workshop"}
    for _ in range(2):
        assert "4.00 USD of prepaid credit" in text_of(
            press(finance, account, "use_credit", **said)
        )
    used = CreditEntry.objects.get(kind="use")
    assert (used.amount, used.reason) == (Decimal(-4), "A workshop")
    assert used.recorded_by is not None
    assert "6.00 USD" in text_of(finance.get(page(Account, account.pk, "change")))


@pytest.mark.parametrize(
    ("amount", "reference", "sentence"),
    [
        ("7", "another", "amount is 7.00 USD, and 6.00 USD of credit are left."),
        ("1.005", "another", "Use whole cents, above 0."),
        ("5", "workshop", "is for 4.00 USD already. Use another reference for another use."),
    ],
)
def test_credit_that_cannot_be_used_is_refused_with_a_sentence(
    finance: Client, amount: str, reference: str, sentence: str
) -> None:
    account = open_account()
    gift = services.Gift(CreditKind.PREPAID, Decimal(10), "Bank transfer", "BT-1")
    services.grant_credit(account.pk, gift, now=NOON)
    by = services.ByHand(reason="A workshop", reference="workshop")
    services.use_credit(account.pk, Decimal(4), by=by, now=NOON)
    said = {"amount": amount, "reference": reference, "reason": "Another"}
    assert sentence in text_of(press(finance, account, "use_credit", **said))
    assert CreditEntry.objects.filter(kind="use").count() == 1


def test_a_parked_account_can_be_unparked(finance: Client) -> None:
    account = open_account()
    services.park_account(account.pk, reason="under review", now=NOON)
    act(finance, Account, "unpark", account.pk)
    account.refresh_from_db()
    assert account.parked_reason == ""


def test_the_preview_shows_how_the_period_comes_about(finance: Client) -> None:
    account = services.open_account(name="Ada", now=MAY.end)
    services.subscribe(account.pk, plan_code="professional", now=MAY.end)
    version = PriceBookVersion.objects.get()
    version.prices.filter(meter="cpu").update(free_units=Decimal(600))
    gift = services.Gift(CreditKind.PREPAID, Decimal(10), "Bank transfer", "BT-1")
    services.grant_credit(account.pk, gift, now=AFTER_MAY)
    record_usage(account.pk, MAY.end, cpu_s=100_000_600, ingress_bytes=2**30)
    shown = text_of(finance.get(page(Account, account.pk, "preview")))
    for text in (
        "Professional plan",
        "99.00 USD",
        "units: 100000000 × 0.000012 = 1200",
        "free: 600",
        "Volume 500",
        "60.00 USD",
        "1 network_ingress_gb",
        "meter not charged",
        "prepaid",
        "If it goes on like this",
    ):
        assert text in shown


def test_the_preview_of_an_account_without_anything_is_empty(finance: Client) -> None:
    account = services.open_account(name="Ada", now=AFTER_MAY)
    assert "Nothing was measured yet." in text_of(finance.get(page(Account, account.pk, "preview")))
