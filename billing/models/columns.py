"""Columns and conditions that several tables share."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import DateTimeRangeField
from django.db import models
from django.db.models import Func, Q

from billing.money import MOST_DECIMALS

IS_CURRENCY_CODE = Q(currency__regex=r"^[A-Z]{3}$")


class TsTzRange(Func):
    """PostgreSQL's range of two moments, for exclusion constraints."""

    function = "TSTZRANGE"
    output_field = DateTimeRangeField()


def amount_column(**options: Any) -> models.DecimalField[Any, Any]:
    """Return a column for an amount in the currency that its row names."""
    return models.DecimalField(max_digits=20, decimal_places=MOST_DECIMALS, **options)


def currency_column(**options: Any) -> models.CharField[Any, Any]:
    """Return a column for an ISO 4217 code; the table's constraint checks its form."""
    return models.CharField(max_length=3, **options)


def unit_price_column(**options: Any) -> models.DecimalField[Any, Any]:
    """Return a column for the price of one shown unit, far below the smallest coin."""
    return models.DecimalField(max_digits=24, decimal_places=12, **options)
