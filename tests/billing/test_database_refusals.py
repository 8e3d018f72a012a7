"""Configuration that is no good, given to PostgreSQL past every form and service."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, models, transaction

from billing.models import (
    Account,
    DiscountRule,
    Plan,
    Price,
    PriceBook,
    PriceBookVersion,
    PriceTier,
    Subscription,
)
from tests.billing.usage import NOON, OPENED, open_account

pytestmark = pytest.mark.django_db


def version(**columns: Any) -> PriceBookVersion:
    book = PriceBook.objects.get(code="default")
    return PriceBookVersion(book=book, effective_from=NOON, **columns)


def price(**columns: Any) -> Price:
    book, _ = PriceBook.objects.get_or_create(code="other", name="Other")
    of, _ = PriceBookVersion.objects.get_or_create(book=book, effective_from=OPENED)
    return Price(version=of, **{"meter": "cpu", "unit_price": Decimal(1), **columns})


def rule(**columns: Any) -> DiscountRule:
    return DiscountRule(**{"name": "Rule", "kind": "volume", "percent": Decimal(5), **columns})


def subscription(**columns: Any) -> Subscription:
    plan = Plan.objects.get(code="team")
    terms = {"fee": 299, "monthly_credits": 300, "recorded_at": NOON, "started_at": NOON}
    return Subscription(account=open_account(), plan=plan, **{**terms, **columns})


def account(**columns: Any) -> Account:
    opened = open_account()
    for name, value in columns.items():
        setattr(opened, name, value)
    return opened


REFUSED: list[tuple[Callable[[], models.Model], str, str]] = [
    (version, "versions_of_a_price_book_do_not_overlap", "End it first"),
    (
        lambda: version(effective_to=NOON - timedelta(days=1)),
        "price_book_version_ends_after_start",
        "later than effective_from",
    ),
    (
        lambda: price(unit_price=Decimal("-0.01")),
        "price_is_not_negative_nor_its_maximum_below_its_minimum",
        "Use 0 or more for every price",
    ),
    (
        lambda: price(free_units=Decimal(-1)),
        "price_is_not_negative_nor_its_maximum_below_its_minimum",
        "Use 0 or more for every price",
    ),
    (
        lambda: price(currency="XTS"),
        "price_currency_is_one_of_iso_4217",
        "Use a currency of ISO 4217",
    ),
    (
        lambda: price(charge="percentage", unit_price=None, percent=Decimal(101)),
        "price_percent_is_from_0_to_100",
        "Use a percent from 0 to 100",
    ),
    (
        lambda: price(charge="package"),
        "price_has_the_columns_of_its_charge_and_no_others",
        "package needs unit_price and package_size",
    ),
    (
        lambda: price(charge="graduated"),
        "price_has_the_columns_of_its_charge_and_no_others",
        "need tiers",
    ),
    (
        lambda: account(currency="usd"),
        "account_currency_is_one_of_iso_4217",
        "Use a currency of ISO 4217",
    ),
    (lambda: account(time_zone="Mars/Olympus"), "account_time_zone_is_known", "Use an IANA time"),
    (lambda: account(time_zone="EDT"), "account_time_zone_is_known", "Use an IANA time zone"),
    (lambda: account(time_zone="<x>-3"), "account_time_zone_is_known", "Use an IANA time zone"),
    (lambda: account(anchor_day=32), "account_anchor_day_is_a_day_of_a_month", "1 to 31"),
    (lambda: account(tax_rate=Decimal(1)), "account_tax_rate_is_a_fraction", "0.19 for 19 %"),
    (
        lambda: account(top_up_threshold=Decimal(5)),
        "account_top_up_has_a_threshold_and_an_amount",
        "both a threshold",
    ),
    (lambda: rule(percent=Decimal(101)), "discount_percent_is_from_0_to_100", "from 0 to 100"),
    (
        lambda: rule(percent=Decimal(0)),
        "discount_takes_a_percent_or_an_amount_off",
        "Give a percent or an amount",
    ),
    (lambda: rule(scope="plan"), "discount_names_what_its_scope_says", "Name a plan"),
    (lambda: rule(min_months=3), "discount_term_is_for_commitments", "commitment rules only"),
    (
        lambda: rule(valid_from=NOON.date(), valid_to=NOON.date()),
        "discount_ends_after_start",
        "later than valid_from",
    ),
    (lambda: rule(currency="XTS"), "discount_currency_is_one_of_iso_4217", "ISO 4217"),
    (
        lambda: subscription(commitment_minimum=Decimal(100)),
        "commitment_has_a_minimum_and_a_term",
        "a term of months",
    ),
    (lambda: subscription(fee=-1), "subscription_fee_and_credits_are_not_negative", "0 or more"),
    (
        lambda: Plan(
            code="x", name="X", monthly_fee=-1, price_book=PriceBook.objects.get(code="default")
        ),
        "plan_fees_and_credits_are_not_negative",
        "Use 0 or more",
    ),
]


@pytest.mark.parametrize(("make", "constraint", "sentence"), REFUSED)
def test_the_database_and_the_form_refuse_it_and_say_what_to_change(
    make: Callable[[], models.Model], constraint: str, sentence: str
) -> None:
    with transaction.atomic(), pytest.raises(ValidationError, match=sentence):
        make().full_clean()
    with transaction.atomic():
        made = make()
        with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
            made.save()


def save_tiers(charge: str, *tiers: str | None) -> None:
    """Write a price with tiers up to these units, and look at them as a commit would."""
    made = price(charge=charge, unit_price=None if charge != "per_unit" else Decimal(1))
    made.save()
    for position, up_to in enumerate(tiers, start=1):
        PriceTier.objects.create(
            price=made, position=position, up_to=up_to and Decimal(up_to), unit_price=Decimal(1)
        )
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


@pytest.mark.parametrize(
    ("charge", "tiers", "sentence"),
    [
        ("graduated", ["100", "50", None], "Let every up_to be more than the one before"),
        ("volume", ["100", "100", None], "Let every up_to be more than the one before"),
        ("graduated", ["100", "200"], "Leave up_to empty in the last tier"),
        ("graduated", [None, "100"], "Leave up_to empty in the last tier"),
        ("graduated", [None, None], "Leave up_to empty in the last tier"),
        ("graduated", [], "needs tiers"),
        ("per_unit", [None], "has no tiers"),
    ],
)
def test_tiers_that_are_no_good_are_refused_at_the_commit(
    charge: str, tiers: list[str | None], sentence: str
) -> None:
    with pytest.raises(IntegrityError, match=sentence):
        save_tiers(charge, *tiers)


def test_tiers_in_order_are_taken() -> None:
    save_tiers("graduated", "0.5", "100", None)
    assert PriceTier.objects.count() == 3


def test_a_tier_cannot_be_taken_away_from_the_end() -> None:
    save_tiers("volume", "100", None)
    with pytest.raises(IntegrityError, match="Leave up_to empty in the last tier"):
        PriceTier.objects.get(up_to=None).delete()


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Etc/GMT+5", "America/Argentina/Salta"])
def test_zones_of_the_iana_data_base_are_taken(zone: str) -> None:
    account(time_zone=zone).save(update_fields=["time_zone"])
    assert Account.objects.get().time_zone == zone
