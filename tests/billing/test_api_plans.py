from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from billing.models import Plan, Price, PriceBookVersion
from metering.meters import Meter
from tests.billing.price_lists import add_tiered_price, make_book
from tests.billing.usage import NOON

pytestmark = pytest.mark.django_db

QUERIES = 4
"""Plans with their books, versions, prices, tiers."""


def plans() -> list[dict[str, Any]]:
    response = Client().get("/api/v1/plans")
    assert response.status_code == 200
    found: list[dict[str, Any]] = response.json()
    return found


def plan(code: str) -> dict[str, Any]:
    return next(plan for plan in plans() if plan["code"] == code)


def make_plan(code: str = "tiered") -> Plan:
    book = make_book(code, memory="0.000004")
    add_tiered_price(
        book, Meter.CPU, [("100.5", "0.0000125", "10"), (None, "0.00001", "0")], "graduated"
    )
    return Plan.objects.create(
        code=code, name=code.title(), price_book=book, monthly_fee=Decimal(5)
    )


def test_anybody_sees_the_plans_by_fee_the_custom_one_last() -> None:
    assert [(p["code"], p["monthly_fee"], p["monthly_credits"]) for p in plans()] == [
        ("developer", "0.00", "0.00"),
        ("professional", "99.00", "100.00"),
        ("team", "299.00", "300.00"),
        ("enterprise", None, "0.00"),
    ]
    enterprise = plan("enterprise")
    assert (enterprise["annual_fee"], enterprise["is_custom"]) == (None, True)
    assert plan("developer")["is_custom"] is False


def test_a_plan_comes_with_its_prices_in_the_meters_order() -> None:
    developer = plan("developer")
    prices = developer.pop("prices")
    assert developer == {
        "code": "developer",
        "name": "Developer",
        "currency": "USD",
        "monthly_fee": "0.00",
        "annual_fee": developer["annual_fee"],
        "monthly_credits": "0.00",
        "credit_rollover_periods": 0,
        "trial_days": 0,
        "is_custom": False,
    }
    assert [price["meter"] for price in prices] == [
        "cpu",
        "memory",
        "network_egress",
        "storage",
        "gpu",
    ]
    assert prices[0] == {
        "meter": "cpu",
        "unit": "cpu_seconds",
        "currency": "USD",
        "charge": "per_unit",
        "unit_price": "0.000012",
        "package_size": None,
        "percent": None,
        "fee_per_event": None,
        "maximum": None,
        "free_units": "0",
        "minimum": "0.00",
        "tiers": [],
    }


def test_tiers_are_shown_in_order_without_trailing_zeros() -> None:
    made = make_plan()
    price = plan(made.code)["prices"][0]
    assert (price["charge"], price["unit_price"]) == ("graduated", None)
    assert price["tiers"] == [
        {"up_to": "100.5", "unit_price": "0.0000125", "flat_fee": "10.00"},
        {"up_to": None, "unit_price": "0.00001", "flat_fee": "0.00"},
    ]


def test_a_percentage_shows_its_fee_and_limits() -> None:
    made = make_plan()
    Price.objects.create(
        version=made.price_book.versions.get(),
        meter=Meter.NETWORK_EGRESS,
        charge="percentage",
        percent=Decimal("2.5"),
        fee_per_event=Decimal("0.3"),
        maximum=Decimal(20),
        minimum=Decimal(1),
    )
    price = plan(made.code)["prices"][-1]
    assert {name: price[name] for name in ("percent", "fee_per_event", "maximum", "minimum")} == {
        "percent": "2.5",
        "fee_per_event": "0.3",
        "maximum": "20.00",
        "minimum": "1.00",
    }


def test_only_the_version_in_force_is_shown() -> None:
    made = make_plan()
    old = made.price_book.versions.get()
    PriceBookVersion.objects.filter(pk=old.pk).update(effective_to=NOON)
    new = PriceBookVersion.objects.create(book=made.price_book, effective_from=NOON)
    Price.objects.create(version=new, meter=Meter.GPU, unit_price=Decimal("0.0006"))
    far = NOON + timedelta(days=365 * 50)
    PriceBookVersion.objects.filter(pk=new.pk).update(effective_to=far)
    PriceBookVersion.objects.create(book=made.price_book, effective_from=far)
    assert [price["meter"] for price in plan(made.code)["prices"]] == ["gpu"]


def test_a_plan_that_is_not_offered_is_not_shown() -> None:
    made = make_plan()
    Plan.objects.filter(pk=made.pk).update(is_offered=False)
    assert made.code not in [plan["code"] for plan in plans()]


def test_more_plans_and_prices_are_no_more_queries(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    for number in range(5):
        make_plan(f"plan-{number}")
    with django_assert_num_queries(QUERIES):
        plans()


def test_a_key_that_is_no_good_does_not_hide_the_plans() -> None:
    response = Client().get("/api/v1/plans", headers={"Authorization": "Bearer nonsense"})
    assert response.status_code == 200
    assert Client().post("/api/v1/plans").status_code == 405
