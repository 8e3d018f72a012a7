from __future__ import annotations

from decimal import Decimal
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.discounts import Discount
from billing.money import Money
from billing.queries import CurrentUsage, Forecast
from billing.rating import Unpriced, UnpricedUsage, decimal_text
from billing.serializers.coverage import CoverageSerializer
from billing.serializers.fields import (
    DECIMAL_TEXT,
    CostByMeterField,
    ExactField,
    MoneyField,
    PeriodSerializer,
    UsageField,
)
from metering.meters import UNITS, Meter


class PlanSerializer(serializers.Serializer[Any]):
    """The plan whose prices hold now."""

    code = serializers.CharField(read_only=True)
    name = serializers.CharField(read_only=True)


class DiscountSerializer(serializers.Serializer[Any]):
    """What one rule takes off: percent of the base and a fixed amount, together rounded once."""

    name = serializers.CharField(read_only=True)
    base_amount = MoneyField(source="base")
    percent = ExactField()
    fixed_amount = serializers.SerializerMethodField()
    amount = MoneyField()

    @extend_schema_field(DECIMAL_TEXT)
    def get_fixed_amount(self, discount: Discount) -> str:
        """Return the rule's own amount, in the currency of its base."""
        fixed: Decimal = discount.fixed
        return Money(fixed, discount.base.currency).text


class CostSerializer(serializers.Serializer[Any]):
    """Costs are exact; usage_fee is the sum of the costs as an invoice rounds them, by line."""

    cpu_cost = ExactField()
    memory_cost = ExactField()
    network_cost = ExactField()
    storage_cost = ExactField()
    gpu_cost = ExactField()
    raw_cost = ExactField()
    usage_fee = MoneyField()
    discounts = DiscountSerializer(many=True, read_only=True)
    total_discount = MoneyField()
    credits_used = MoneyField()
    final_cost = MoneyField()


class UnpricedSerializer(serializers.Serializer[Any]):
    """Usage that is not charged, and why."""

    meter = serializers.ChoiceField(choices=[m.value for m in Meter], read_only=True)
    quantity = serializers.SerializerMethodField()
    unit = serializers.SerializerMethodField()
    reason = serializers.ChoiceField(choices=[r.value for r in Unpriced], read_only=True)
    period = PeriodSerializer(read_only=True)

    @extend_schema_field(DECIMAL_TEXT)
    def get_quantity(self, unpriced: UnpricedUsage) -> str:
        """Return the quantity in `unit`."""
        return decimal_text(UNITS[unpriced.meter].shown_quantity(unpriced.quantity))

    def get_unit(self, unpriced: UnpricedUsage) -> str:
        """Return the unit's name."""
        return UNITS[unpriced.meter].shown


class ForecastSerializer(serializers.Serializer[Forecast]):
    """What the period comes to if it goes on at its own rate so far."""

    usage = UsageField(read_only=True)
    cost_by_meter = CostByMeterField(read_only=True)
    cost = CostSerializer(read_only=True)
    total_amount = MoneyField(help_text="With fees and tax, as the invoice will say.")
    remaining_credits = MoneyField()


class CurrentUsageSerializer(serializers.Serializer[CurrentUsage]):
    """Usage and cost of the billing period so far."""

    period = PeriodSerializer(read_only=True)
    as_of = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="The time of the newest reading counted."
    )
    plan = PlanSerializer(read_only=True)
    currency = serializers.CharField(source="cost.usage_fee.currency", read_only=True)
    usage = UsageField(read_only=True)
    cost_by_meter = CostByMeterField(read_only=True)
    cost = CostSerializer(read_only=True)
    total_amount = MoneyField(help_text="With fees and tax, as an invoice made now would say.")
    remaining_credits = MoneyField(help_text="What is left of the credits that pay usage.")
    remaining_prepaid = MoneyField(help_text="What is left of the credit that was paid for.")
    forecast = ForecastSerializer(read_only=True)
    coverage = CoverageSerializer(read_only=True)
    unpriced = UnpricedSerializer(many=True, read_only=True)
