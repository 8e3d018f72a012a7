from __future__ import annotations

from decimal import Decimal

import pytest
from django.test import Client

from billing.models import DiscountRule, Plan, PriceBook
from tests.billing import admin_pages
from tests.billing.admin_pages import page, text_of

pytestmark = pytest.mark.django_db

PLAN = {
    "code": "start",
    "name": "Start",
    "currency": "usd",
    "monthly_fee": "9",
    "annual_fee": "",
    "monthly_credits": "5",
    "credit_rollover_periods": "1",
    "trial_days": "14",
    "is_offered": "on",
}


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def test_a_plan_is_added_with_all_its_columns(finance: Client) -> None:
    book = PriceBook.objects.get()
    assert finance.post(page(Plan, "add"), {**PLAN, "price_book": book.pk}).status_code == 302
    plan = Plan.objects.get(code="start")
    assert (plan.currency, plan.annual_fee, plan.credit_rollover_periods) == ("USD", None, 1)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("monthly_fee", "-1", "Use 0 or more for fees and credits."),
        ("monthly_credits", "-1", "Use 0 or more for fees and credits."),
        ("currency", "ABC", "Use a currency of ISO 4217, as in USD."),
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_a_sentence(
    finance: Client, field: str, value: str, sentence: str
) -> None:
    form = {**PLAN, "price_book": PriceBook.objects.get().pk, field: value}
    assert sentence in text_of(finance.post(page(Plan, "add"), form))
    assert not Plan.objects.filter(code="start").exists()


RULE = {
    "name": "Autumn",
    "kind": "volume",
    "scope": "all",
    "currency": "USD",
    "min_amount": "100",
    "min_months": "0",
    "percent": "5",
    "amount": "0",
    "priority": "3",
    "is_active": "on",
    "valid_from": "2026-09-01",
    "valid_to": "2026-12-01",
}


def test_a_discount_rule_is_added_and_listed(finance: Client) -> None:
    assert finance.post(page(DiscountRule, "add"), RULE).status_code == 302
    assert DiscountRule.objects.get(name="Autumn").percent == Decimal(5)
    shown = text_of(finance.get(page(DiscountRule), {"q": "Autumn"}))
    for text in ("volume", "all", "100.00 USD", "5 %", "0.00 USD", "2026-09-01"):
        assert text in shown


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"percent": "101"}, "Use a percent from 0 to 100."),
        ({"percent": "0"}, "Give a percent or an amount above 0"),
        ({"min_amount": "-1"}, "use 0 or more for min_amount"),
        ({"scope": "plan"}, "Name a plan for scope plan, an account for scope account"),
        ({"min_months": "3"}, "Use min_months with commitment rules only."),
        ({"valid_to": "2026-09-01"}, "Let valid_to be later than valid_from."),
        ({"currency": "ABC"}, "Use a currency of ISO 4217, as in USD."),
    ],
)
def test_a_discount_rule_that_cannot_be_is_refused_with_a_sentence(
    finance: Client, said: dict[str, str], sentence: str
) -> None:
    assert sentence in text_of(finance.post(page(DiscountRule, "add"), {**RULE, **said}))
    assert not DiscountRule.objects.filter(name="Autumn").exists()


def test_a_plans_price_book_stays_for_it_would_reprice_the_open_period(finance: Client) -> None:
    team = Plan.objects.get(code="team")
    other = PriceBook.objects.create(code="other", name="Other")
    form = {**PLAN, "code": "renamed", "price_book": other.pk, "monthly_fee": "350"}
    assert finance.post(page(Plan, team.pk, "change"), form).status_code == 302
    team.refresh_from_db()
    assert (team.code, team.price_book.code, team.monthly_fee) == ("team", "default", 350)
