from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.test import Client

from billing import services
from billing.credits import CreditKind
from billing.models import Account, CreditEntry, CreditGrant, TopUp
from tests.billing import admin_pages
from tests.billing.admin_pages import act, moment, page, press, text_of
from tests.billing.usage import AFTER_MAY, NOON, open_account

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _it_is_after_may(set_clock: Callable[[datetime], None]) -> None:
    set_clock(AFTER_MAY)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


@pytest.fixture
def account() -> Account:
    return open_account()


def gift_form(account: Account, **said: str) -> dict[str, str]:
    return {
        "account": str(account.pk),
        "kind": "promotional",
        "amount": "25",
        "reason": "Apology",
        "reference": "INC-7",
        "priority": "0",
        **said,
    }


def grant(account: Account) -> CreditGrant:
    gift = services.Gift(CreditKind.PREPAID, Decimal(10), "Bank transfer", "BT-1")
    return services.grant_credit(account.pk, gift, now=NOON)


def test_credit_is_granted_once_under_a_reference(finance: Client, account: Account) -> None:
    expiry = moment("expires_at", AFTER_MAY + timedelta(days=30))
    for _ in range(2):
        response = finance.post(page(CreditGrant, "add"), {**gift_form(account), **expiry})
        assert response.status_code == 302
    granted = CreditGrant.objects.get()
    assert (granted.kind, granted.effective_at) == ("promotional", AFTER_MAY)
    assert granted.expires_at == AFTER_MAY + timedelta(days=30)
    assert granted.granted_by is not None
    assert granted.granted_by.username == "finance"
    assert CreditEntry.objects.get().amount == Decimal(25)
    shown = text_of(finance.get(page(CreditGrant), {"kind__exact": "promotional"}))
    assert "25.00 USD" in shown
    assert "Apology" in shown


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"amount": "0.001"}, "Use whole cents, above 0."),
        ({"amount": "0"}, "Use whole cents, above 0."),
        ({"amount": "-1"}, "greater than or equal to 0"),
        ({"kind": "monthly"}, "Select a valid choice"),
        ({"reason": ""}, "This field is required."),
        (moment("expires_at", NOON), "Use a time after"),
        (
            {**moment("effective_at", AFTER_MAY), **moment("expires_at", NOON)},
            "Let expires_at be later than effective_at.",
        ),
    ],
)
def test_refused_credit_says_why_and_keeps_what_was_typed(
    finance: Client, account: Account, said: dict[str, str], sentence: str
) -> None:
    response = finance.post(page(CreditGrant, "add"), gift_form(account, **said))
    assert response.status_code == 200
    shown = text_of(response)
    assert sentence in shown
    assert 'value="INC-7"' in shown
    assert not CreditGrant.objects.exists()


@pytest.mark.parametrize("reference", ["invoice:7:remainder", "top-up:7", "correction:7:credit"])
def test_a_reference_that_the_system_uses_is_refused(
    finance: Client, account: Account, reference: str
) -> None:
    said = gift_form(account, reference=reference)
    assert "made by themselves" in text_of(finance.post(page(CreditGrant, "add"), said))
    assert not CreditGrant.objects.exists()


def test_another_amount_under_a_reference_is_refused(finance: Client, account: Account) -> None:
    finance.post(page(CreditGrant, "add"), gift_form(account))
    response = finance.post(page(CreditGrant, "add"), gift_form(account, amount="30"))
    assert "Use another reference for another credit." in text_of(response)


def test_credit_is_revoked_with_a_reason(finance: Client, account: Account) -> None:
    granted = grant(account)
    assert "This field is required." in text_of(press(finance, granted, "revoke", reason=""))
    assert not CreditEntry.objects.filter(kind="revoke").exists()
    press(finance, granted, "revoke", reason="A mistake")
    press(finance, granted, "revoke", reason="Again")
    revoked = CreditEntry.objects.get(kind="revoke")
    assert (revoked.amount, revoked.reason) == (Decimal(-10), "A mistake")
    assert revoked.recorded_by is not None
    history = text_of(finance.get(page(CreditGrant, granted.pk, "history")))
    assert "What was left is taken back." in history


def test_chosen_credits_are_revoked_once_somebody_said_why(
    finance: Client, account: Account
) -> None:
    granted = grant(account)
    assert "This field is required." in act(finance, CreditGrant, "revoke_chosen", granted.pk)
    assert "taken back" in act(
        finance, CreditGrant, "revoke_chosen", granted.pk, reason="A mistake"
    )
    assert CreditEntry.objects.get(kind="revoke").reason == "A mistake"


def test_a_top_up_is_asked_for_and_granted_once(finance: Client, account: Account) -> None:
    form = {"account": str(account.pk), "amount": "50"}
    assert finance.post(page(TopUp, "add"), form).status_code == 302
    top_up = TopUp.objects.get()
    for _ in range(2):
        assert "50.00 USD" in text_of(press(finance, top_up, "money_is_here"))
    assert CreditEntry.objects.get().amount == Decimal(50)
    assert "stays" in text_of(press(finance, top_up, "give_up"))
    assert "paid" in text_of(finance.get(page(TopUp)))


@pytest.mark.parametrize(
    ("amount", "sentence"),
    [("0", "Use an amount above 0."), ("1.005", "amount is 1.005. Use whole cents.")],
)
def test_a_top_up_of_no_amount_is_refused(
    finance: Client, account: Account, amount: str, sentence: str
) -> None:
    form = {"account": str(account.pk), "amount": amount}
    assert sentence in text_of(finance.post(page(TopUp, "add"), form))
    assert not TopUp.objects.exists()


def test_a_top_up_that_was_given_up_is_not_granted(finance: Client, account: Account) -> None:
    top_up = services.request_top_up(account.pk, Decimal(50), now=NOON)
    assert "It is given up." in act(finance, TopUp, "give_up_chosen", top_up.pk)
    assert "was given up at" in text_of(press(finance, top_up, "money_is_here"))
    assert "was given up at" in act(finance, TopUp, "grant_chosen", top_up.pk)
    assert not CreditEntry.objects.exists()
