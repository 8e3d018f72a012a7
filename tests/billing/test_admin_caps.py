from __future__ import annotations

from decimal import Decimal

import pytest
from django.test import Client

from billing.models import Budget, BudgetCap
from tests.billing import admin_pages
from tests.billing.admin_pages import page, text_of
from tests.billing.test_caps import capped_account, look
from tests.billing.usage import open_account

pytestmark = pytest.mark.django_db

FORM = {
    "name": "Sandboxes",
    "amount": "250",
    "thresholds": "50",
    "alert_amounts": "",
    "is_active": "on",
}


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def test_capped_accounts_are_shown_with_what_was_used_above(finance: Client) -> None:
    account, budget = capped_account(120)
    cap = BudgetCap.objects.get()
    for said, is_found in (
        ({"state": "holds"}, True),
        ({"state": "lifted"}, False),
        ({"account__id__exact": str(account.pk)}, True),
        ({"account__id__exact": str(open_account("Bob").pk)}, False),
    ):
        listed = text_of(finance.get(page(BudgetCap), said))
        assert (f"/{cap.pk}/change/" in listed) == is_found, said
    shown = text_of(finance.get(page(BudgetCap, cap.pk, "change")))
    for words in ("1.00 USD", "1.20 USD", "0.20 USD", "Raise the budget", page(Budget, budget.pk)):
        assert words in shown


def test_a_cap_outlives_its_budget_on_the_page(finance: Client) -> None:
    _, budget = capped_account()
    budget.delete()
    cap = BudgetCap.objects.get()
    shown = text_of(finance.get(page(BudgetCap, cap.pk, "change")))
    assert "Sandboxes" in shown


def test_a_hard_cap_that_is_switched_off_by_staff_is_lifted(finance: Client) -> None:
    account, budget = capped_account()
    form = {**FORM, "account": str(account.pk), "amount": "1"}
    assert finance.post(page(Budget, budget.pk, "change"), form).status_code == 302
    budget.refresh_from_db()
    assert not budget.hard_cap
    look(15)
    assert BudgetCap.objects.get().lifted_because == "removed"


def test_a_hard_cap_and_amounts_are_made_by_staff(finance: Client) -> None:
    form = {**FORM, "account": str(open_account().pk), "hard_cap": "on"}
    answer = finance.post(page(Budget, "add"), {**form, "alert_amounts": "300,100.50,300"})
    assert answer.status_code == 302
    budget = Budget.objects.get()
    assert (budget.hard_cap, budget.alert_amounts) == (True, [Decimal("100.5"), Decimal(300)])
    shown = text_of(finance.get(page(Budget)))
    assert "50 %, 100.50 USD, 300.00 USD" in shown


@pytest.mark.parametrize(
    ("amounts", "sentence"),
    [("0,5", "Use amounts above 0."), ("-1", "Use amounts above 0."), ("many", "Enter a number")],
)
def test_amounts_that_no_cost_reaches_are_refused(
    finance: Client, amounts: str, sentence: str
) -> None:
    form = {**FORM, "account": str(open_account().pk), "alert_amounts": amounts}
    assert sentence in text_of(finance.post(page(Budget, "add"), form))
    assert not Budget.objects.exists()
