"""Columns and conditions that several tables share."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import DateTimeRangeField
from django.db import models
from django.db.models import Func, Q

from billing.money import DECIMALS, MOST_DECIMALS

UNKNOWN_CURRENCY = "Use a currency of ISO 4217, as in USD."
UNIT_DECIMALS = 6
"""Bounds of tiers, allowances and packages have no more, so that base units stay exact."""


def has_known_currency(name: str) -> models.CheckConstraint:
    """Return the constraint that `currency` is a code of ISO 4217."""
    return models.CheckConstraint(
        condition=Q(currency__in=sorted(DECIMALS)),
        name=name,
        violation_error_message=UNKNOWN_CURRENCY,
    )


class IsTimeZone(Func):
    """Whether PostgreSQL knows a column's value as a time zone; the function is our own."""

    function = "billing_is_time_zone"
    output_field = models.BooleanField()


class TsTzRange(Func):
    """PostgreSQL's range of two moments, for exclusion constraints."""

    function = "TSTZRANGE"
    output_field = DateTimeRangeField()


def amount_column(**options: Any) -> models.DecimalField[Any, Any]:
    """Return a column for an amount in the currency that its row names."""
    return models.DecimalField(max_digits=20, decimal_places=MOST_DECIMALS, **options)


def currency_column(**options: Any) -> models.CharField[Any, Any]:
    """Return a column for an ISO 4217 code; the table's constraint knows them all."""
    return models.CharField(max_length=3, **options)


def unit_price_column(**options: Any) -> models.DecimalField[Any, Any]:
    """Return a column for the price of one shown unit, far below the smallest coin."""
    return models.DecimalField(max_digits=24, decimal_places=12, **options)


def units_column(**options: Any) -> models.DecimalField[Any, Any]:
    """Return a column for a number of shown units, as tiers and allowances are stated in."""
    return models.DecimalField(max_digits=30, decimal_places=UNIT_DECIMALS, **options)


def percent_column(**options: Any) -> models.DecimalField[Any, Any]:
    """Return a column for a percentage: 5 is 5 %."""
    return models.DecimalField(max_digits=7, decimal_places=4, **options)
