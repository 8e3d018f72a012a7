from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.test import Client

from billing import services
from billing.models import Account, Plan, PriceBook, Subscription
from tests.billing import admin_pages
from tests.billing.admin_pages import act, page, press, text_of
from tests.billing.usage import AFTER_MAY, JUNE, NOON, open_account

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _it_is_after_may(set_clock: Callable[[datetime], None]) -> None:
    set_clock(AFTER_MAY)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def form_of(account: Account, plan_code: str, **said: object) -> dict[str, str]:
    plan = Plan.objects.get(code=plan_code)
    form = {"account": account.pk, "plan": plan.pk, "interval": "monthly", **said}
    return {name: str(value) for name, value in form.items()}


def subscribed(plan_code: str = "professional") -> Subscription:
    return Subscription.objects.get(account=open_account(plan_code=plan_code))


def test_a_subscription_added_here_takes_the_place_of_the_old_one(finance: Client) -> None:
    account = open_account(plan_code="professional")
    assert finance.post(page(Subscription, "add"), form_of(account, "team")).status_code == 302
    assert Subscription.objects.get(expires_at=None).plan.code == "team"
    assert Subscription.objects.count() == 2


def test_agreed_terms_reach_the_subscription(finance: Client) -> None:
    account = open_account()
    book = services.copy_book(
        PriceBook.objects.get().pk, account_id=account.pk, code="ada", name="Ada's", now=NOON
    )
    form = form_of(
        account,
        "enterprise",
        interval="annual",
        fee="5000",
        price_book=book.pk,
        monthly_credits="50",
        trial_days="14",
        commitment_minimum="200",
        commitment_months="12",
    )
    assert finance.post(page(Subscription, "add"), form).status_code == 302
    row = Subscription.objects.get()
    assert (row.interval, row.fee, row.price_book) == ("annual", Decimal(5000), book)
    assert (row.monthly_credits, row.commitment_minimum) == (Decimal(50), Decimal(200))
    assert row.commitment_months == 12
    assert row.trial_ends_at is not None
    assert (row.trial_ends_at - row.started_at).days == 14
    shown = text_of(finance.get(page(Subscription)))
    assert "200.00 USD a period, 12 months" in shown
    assert "trial to 2026-06-15" in shown


@pytest.mark.parametrize(
    ("plan_code", "said", "sentence"),
    [
        ("enterprise", {"commitment_minimum": "7"}, "Give a commitment both a minimum"),
        ("enterprise", {"fee": "77"}, "agree a fee, and give it a price book of the account"),
        ("professional", {"interval": "annual", "fee": "-77"}, "greater than or equal to 0"),
        ("professional", {"trial_days": "-77"}, "greater than or equal to 0"),
        ("professional", {"trial_days": "9999999"}, "less than or equal to 366"),
    ],
)
def test_a_refused_subscription_says_why_and_keeps_what_was_typed(
    finance: Client, plan_code: str, said: dict[str, str], sentence: str
) -> None:
    form = form_of(open_account(), plan_code, **said)
    response = finance.post(page(Subscription, "add"), form)
    assert response.status_code == 200
    shown = text_of(response)
    assert sentence in shown
    assert f'value="{list(said.values())[-1]}"' in shown
    assert not Subscription.objects.exists()


def test_a_plan_in_another_currency_is_refused(finance: Client) -> None:
    account = services.open_account(name="Eve", now=NOON, currency="EUR")
    response = finance.post(page(Subscription, "add"), form_of(account, "team"))
    assert "is priced in USD, the account pays in EUR" in text_of(response)


def test_cancelling_asks_first(finance: Client) -> None:
    row = subscribed()
    for button in ("cancel", "cancel_now", "resume", "change_plan"):
        assert "Back" in text_of(finance.get(page(Subscription, row.pk, button)))
    chosen = {"action": "cancel_chosen", ACTION_CHECKBOX_NAME: [str(row.pk)]}
    asked = text_of(finance.post(page(Subscription), chosen))
    assert "Ada on Professional" in asked
    assert "Until then it can be resumed." in asked
    row.refresh_from_db()
    assert row.expires_at is None


def test_a_subscription_is_cancelled_to_the_end_and_resumed(finance: Client) -> None:
    row = subscribed()
    assert "It ends at 2026-07-01 00:00." in text_of(press(finance, row, "cancel"))
    row.refresh_from_db()
    assert row.expires_at == JUNE.end
    assert "It goes on." in text_of(press(finance, row, "resume"))
    row.refresh_from_db()
    assert row.expires_at is None


def test_a_subscription_is_cancelled_now_and_cannot_be_resumed(finance: Client) -> None:
    row = subscribed()
    assert "It ends at 2026-06-01 00:30." in text_of(press(finance, row, "cancel_now"))
    row.refresh_from_db()
    assert row.ends_period
    assert "Choose a plan instead." in text_of(press(finance, row, "resume"))
    assert "cancelled now" in text_of(finance.get(page(Subscription)))


def test_a_change_of_plan_waits_for_the_end_and_is_shown(finance: Client) -> None:
    row = subscribed("team")
    plan = Plan.objects.get(code="developer")
    said = {"plan": str(plan.pk), "interval": "monthly"}
    assert "Developer follows at 2026-07-01" in text_of(press(finance, row, "change_plan", **said))
    assert Subscription.objects.get(plan=plan).started_at == JUNE.end
    shown = text_of(finance.get(page(Subscription, row.pk, "change")))
    assert "Followed by" in shown
    assert "Developer" in shown
    assert "to come" in text_of(finance.get(page(Subscription)))


def test_a_refused_change_of_plan_says_why(finance: Client) -> None:
    row = subscribed()
    plan = Plan.objects.get(code="enterprise")
    shown = text_of(press(finance, row, "change_plan", plan=str(plan.pk), interval="monthly"))
    assert "agree a fee" in shown
    assert Subscription.objects.count() == 1


def test_what_is_over_is_neither_cancelled_nor_resumed(finance: Client) -> None:
    over = subscribed()
    services.subscribe(over.account_id, plan_code="team", now=NOON)
    for action in ("cancel_chosen", "cancel_chosen_now", "resume_chosen"):
        assert "is over or has not begun" in act(finance, Subscription, action, over.pk)
    assert Subscription.objects.filter(expires_at=None).count() == 1


def test_a_commitment_longer_than_any_is_refused(finance: Client) -> None:
    row = subscribed()
    plan = Plan.objects.get(code="team")
    said = {"plan": str(plan.pk), "interval": "monthly", "commitment_months": "99999"}
    assert "less than or equal to 120" in text_of(press(finance, row, "change_plan", **said))


def test_more_rows_than_one_action_takes_are_refused(
    finance: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.admin.asking.MOST_ROWS", 0)
    row = subscribed()
    assert "Choose 0 rows or fewer" in act(finance, Subscription, "cancel_chosen", row.pk)
    row.refresh_from_db()
    assert row.expires_at is None


def test_one_refusal_does_not_stop_the_others(finance: Client) -> None:
    over = subscribed()
    services.subscribe(over.account_id, plan_code="team", now=NOON)
    rows = Subscription.objects.values_list("pk", flat=True)
    shown = act(finance, Subscription, "cancel_chosen", *rows)
    assert "is over or has not begun" in shown
    assert not Subscription.objects.filter(expires_at=None).exists()
