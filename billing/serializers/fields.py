"""How the API writes things: times in UTC, decimals and money as text, never as JSON numbers."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.money import MOST_DECIMALS, Money
from billing.rating import decimal_text, ratio_text
from metering.meters import UNITS, Meter

DECIMAL_TEXT = {"type": "string", "format": "decimal"}
DECIMAL_TEXT_OR_NULL = {"type": ["string", "null"], "format": "decimal"}


@extend_schema_field(DECIMAL_TEXT)
class ExactField(serializers.Field[Any, Any, str, Any]):
    """An exact quantity, price or cost, to twelve decimals, without trailing zeros."""

    def __init__(self, **options: Any) -> None:
        super().__init__(read_only=True, **options)

    def to_representation(self, value: Fraction | Decimal) -> str:
        """Return the decimal text."""
        return decimal_text(Fraction(value))


@extend_schema_field(DECIMAL_TEXT_OR_NULL)
class ExactOrNullField(ExactField):
    """An exact number where there is one."""


@extend_schema_field(DECIMAL_TEXT)
class MoneyField(serializers.Field[Any, Any, str, Any]):
    """An amount in the document's currency, with the currency's decimals."""

    def __init__(self, **options: Any) -> None:
        super().__init__(read_only=True, **options)

    def to_representation(self, value: Money) -> str:
        """Return the amount's text."""
        return value.text


class AmountField(MoneyField):
    """An amount column of a row that has a currency, or whose invoice has."""

    def get_attribute(self, instance: Any) -> Money | None:
        """Return the column's amount in the row's currency."""
        row = instance if hasattr(instance, "currency") else instance.invoice
        amount: Decimal | None = getattr(instance, self.source_attrs[0])
        return None if amount is None else Money(amount, row.currency)


@extend_schema_field(DECIMAL_TEXT_OR_NULL)
class AmountOrNullField(AmountField):
    """An amount column that may be empty."""


@extend_schema_field(DECIMAL_TEXT)
class AccountAmountField(MoneyField):
    """An amount column of a row in its account's currency, or in that of its budget's account."""

    def get_attribute(self, instance: Any) -> Money:
        """Return the column's amount."""
        row = instance if hasattr(instance, "account") else instance.budget
        return Money(getattr(instance, self.source_attrs[0]), row.account.currency)


# What is read: at most 16 digits before the point and four after it, as the columns have.
@extend_schema_field({"type": "string", "format": "decimal", "pattern": r"^\d{1,16}(\.\d{1,4})?$"})
class AmountTextField(serializers.DecimalField):
    """An amount that a call sends as text: a JSON number may have lost its last digit already."""

    default_error_messages = {"not_text": 'Send the amount as text, as in "12.50".'}

    def __init__(self, **options: Any) -> None:
        super().__init__(max_digits=20, decimal_places=MOST_DECIMALS, **options)

    def to_internal_value(self, data: Any) -> Decimal:
        """Return the amount. Raises ValidationError."""
        if not isinstance(data, str):
            self.fail("not_text")
        return super().to_internal_value(data)


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": DECIMAL_TEXT,
        "examples": [{"cpu_seconds": "3600", "memory_gb_seconds": "7200"}],
    }
)
class UsageField(serializers.Field[Any, Any, dict[str, str], Any]):
    """Stored quantities by meter, shown by unit. A meter that nothing was used of is left out."""

    def to_representation(self, value: Mapping[Meter, int]) -> dict[str, str]:
        """Return each used meter's quantity in its shown unit."""
        return {
            UNITS[meter].shown: ratio_text(quantity, UNITS[meter].size)
            for meter, quantity in value.items()
        }


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": DECIMAL_TEXT,
        "examples": [{"cpu": "0.0432", "memory": "0.0288"}],
    }
)
class CostByMeterField(serializers.Field[Any, Any, dict[str, str], Any]):
    """Exact costs by meter. A meter that nothing is charged for is left out."""

    def to_representation(self, value: Mapping[Meter, Fraction]) -> dict[str, str]:
        """Return each cost's decimal text, in the meters' order."""
        return {meter.value: decimal_text(value[meter]) for meter in Meter if meter in value}


class PeriodSerializer(serializers.Serializer[Any]):
    """`[start, end)`: the end itself is outside."""

    start = serializers.DateTimeField(read_only=True)
    end = serializers.DateTimeField(read_only=True)


class PeriodOfRowSerializer(serializers.Serializer[Any]):
    """The same of a row with columns for both."""

    start = serializers.DateTimeField(source="period_start", read_only=True)
    end = serializers.DateTimeField(source="period_end", read_only=True)
