from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError

from billing import services
from billing.models import CreditEntry, CreditGrant, Plan, PriceBook, Subscription
from billing.money import Money
from tests.billing.usage import AFTER_MAY, MAY, NOON, OPENED, credits_left, open_account

pytestmark = pytest.mark.django_db

MIDDLE = datetime(2026, 5, 17, tzinfo=UTC)


def entries() -> list[tuple[str, str]]:
    return [(entry.kind, f"{entry.amount:.2f}") for entry in CreditEntry.objects.all()]


def test_the_plans_are_those_of_the_price_list() -> None:
    plans = Plan.objects.values_list("name", "monthly_fee", "monthly_credits", "currency")
    assert set(plans) == {
        ("Developer", 0, 0, "USD"),
        ("Professional", 99, 100, "USD"),
        ("Team", 299, 300, "USD"),
        ("Enterprise", None, 0, "USD"),
    }


def test_a_full_month_brings_all_credits() -> None:
    account = open_account(plan_code="professional")
    assert entries() == [("grant", "100.00")]
    assert credits_left(account, MAY) == Money(Decimal(100), "USD")


def test_a_start_inside_the_month_brings_the_fraction_by_seconds() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="professional", now=MIDDLE)
    assert entries() == [("grant", "48.39")]


def test_subscribing_twice_changes_nothing() -> None:
    account = open_account(plan_code="professional")
    again = services.subscribe(account.pk, plan_code="professional", now=NOON)
    assert again == Subscription.objects.get()
    assert again.expires_at is None
    assert entries() == [("grant", "100.00")]


def test_granting_twice_changes_nothing() -> None:
    account = open_account(plan_code="professional")
    services.grant_monthly_credits(account.pk, now=NOON)
    services.grant_monthly_credits(account.pk, now=NOON)
    assert entries() == [("grant", "100.00")]


def test_each_month_brings_its_own_credits() -> None:
    account = open_account(plan_code="professional")
    services.grant_monthly_credits(account.pk, now=AFTER_MAY)
    assert entries() == [("grant", "100.00"), ("grant", "100.00")]
    assert credits_left(account, MAY) == Money(Decimal(100), "USD")


def test_an_upgrade_takes_back_the_old_plans_part_and_brings_the_new_ones() -> None:
    account = open_account(plan_code="professional")
    services.subscribe(account.pk, plan_code="team", now=MIDDLE)
    # 16 of 31 days of 100, then 15 of 31 days of 300.
    assert entries() == [
        ("grant", "100.00"),
        ("revoke", "-48.39"),
        ("grant", "145.16"),
    ]
    old, new = Subscription.objects.order_by("started_at")
    assert (old.expires_at, new.started_at, new.expires_at) == (MIDDLE, MIDDLE, None)


def test_fees_are_by_the_second() -> None:
    account = open_account()
    now = MIDDLE + timedelta(microseconds=999_999)
    assert services.subscribe(account.pk, plan_code="team", now=now).started_at == MIDDLE


def test_a_plans_new_fee_is_for_new_subscriptions() -> None:
    open_account(plan_code="team")
    Plan.objects.filter(code="team").update(monthly_fee=500)
    assert Subscription.objects.get().fee == 299


def test_a_plan_without_a_fee_needs_an_agreed_one() -> None:
    account = open_account()
    with pytest.raises(services.SubscriptionRefusedError, match="agree a fee"):
        services.subscribe(account.pk, plan_code="enterprise", now=OPENED)
    without_book = services.AgreedTerms(fee=Decimal(5000))
    with pytest.raises(services.SubscriptionRefusedError, match="price book"):
        services.subscribe(account.pk, plan_code="enterprise", now=OPENED, agreed=without_book)
    book = PriceBook.objects.create(code="ada", name="Ada's", account=account)
    terms = services.AgreedTerms(fee=Decimal(5000), price_book=book)
    agreed = services.subscribe(account.pk, plan_code="enterprise", now=OPENED, agreed=terms)
    assert (agreed.fee, agreed.price_book) == (5000, book)


def test_the_price_book_of_another_account_is_refused() -> None:
    account, other = open_account(), open_account("Bob")
    book = PriceBook.objects.create(code="bob", name="Bob's", account=other)
    terms = services.AgreedTerms(fee=Decimal(5000), price_book=book)
    with pytest.raises(services.SubscriptionRefusedError, match="no price book of this account"):
        services.subscribe(account.pk, plan_code="enterprise", now=OPENED, agreed=terms)


def test_a_plan_in_another_currency_is_refused() -> None:
    account = services.open_account(name="Ada", now=OPENED, currency="EUR")
    with pytest.raises(services.SubscriptionRefusedError, match="pays in EUR"):
        services.subscribe(account.pk, plan_code="team", now=OPENED)


def test_a_start_in_a_closed_period_is_refused() -> None:
    account = open_account()
    with pytest.raises(services.SubscriptionRefusedError, match="closed"):
        services.subscribe(account.pk, plan_code="team", now=OPENED - timedelta(seconds=1))


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_change_no_later_than_the_start_is_refused(earlier: int) -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="team", now=NOON)
    with pytest.raises(services.SubscriptionRefusedError, match="not before"):
        services.subscribe(
            account.pk, plan_code="professional", now=NOON - timedelta(seconds=earlier)
        )


def test_the_table_refuses_a_second_active_subscription() -> None:
    active = open_account(plan_code="team").subscriptions.get()
    with pytest.raises(IntegrityError):
        Subscription.objects.create(
            account=active.account,
            plan=active.plan,
            fee=0,
            recorded_at=NOON,
            monthly_credits=0,
            started_at=NOON,
        )


def test_the_table_refuses_a_second_grant_for_a_period() -> None:
    grant = CreditGrant.objects.get(account=open_account(plan_code="team"))
    with pytest.raises(IntegrityError, match="subscription_brings_credit_once_a_period"):
        CreditGrant.objects.create(
            account=grant.account,
            kind="monthly",
            subscription=grant.subscription,
            period_start=MAY.start,
            period_end=MAY.end,
            effective_at=MAY.start,
            granted_at=MAY.start,
        )
