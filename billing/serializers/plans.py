from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.models import Plan, Price, PriceTier
from billing.money import Money
from billing.serializers.fields import (
    DECIMAL_TEXT,
    AmountField,
    AmountOrNullField,
    ExactField,
    ExactOrNullField,
)
from metering.meters import Meter

_PLACE_OF_METER = {meter.value: place for place, meter in enumerate(Meter)}


class TierSerializer(serializers.ModelSerializer[PriceTier]):
    """Units up to and with number `up_to`; null is the last tier, without end."""

    up_to = ExactOrNullField()
    unit_price = ExactField()
    flat_fee = serializers.SerializerMethodField()

    class Meta:
        model = PriceTier
        fields = ("up_to", "unit_price", "flat_fee")
        read_only_fields = fields

    @extend_schema_field(DECIMAL_TEXT)
    def get_flat_fee(self, tier: PriceTier) -> str:
        """Return what entering the tier costs, in the price's currency."""
        return Money(tier.flat_fee, tier.price.currency).text


class PriceSerializer(serializers.ModelSerializer[Price]):
    """How a meter is charged for. What is null or empty does not belong to the charge."""

    meter = serializers.CharField(read_only=True)
    unit = serializers.CharField(
        source="get_meter_display", read_only=True, help_text="What prices and tiers count."
    )
    charge = serializers.CharField(
        read_only=True, help_text="per_unit, graduated, volume, package or percentage"
    )
    unit_price = ExactOrNullField(help_text="Of one unit, or of one package.")
    package_size = ExactOrNullField()
    percent = ExactOrNullField()
    fee_per_event = ExactOrNullField(help_text="For each sandbox started.")
    maximum = AmountOrNullField()
    free_units = ExactField()
    minimum = AmountField()
    tiers = TierSerializer(many=True, read_only=True)

    class Meta:
        model = Price
        fields = (
            "meter",
            "unit",
            "currency",
            "charge",
            "unit_price",
            "package_size",
            "percent",
            "fee_per_event",
            "maximum",
            "free_units",
            "minimum",
            "tiers",
        )
        read_only_fields = fields


class OfferedPlanSerializer(serializers.ModelSerializer[Plan]):
    """A plan on offer. Without any fee it is custom: agreed with each customer."""

    monthly_fee = AmountOrNullField()
    annual_fee = AmountOrNullField()
    monthly_credits = AmountField()
    is_custom = serializers.BooleanField(read_only=True)
    prices = serializers.SerializerMethodField(help_text="The prices in force now.")

    class Meta:
        model = Plan
        fields = (
            "code",
            "name",
            "currency",
            "monthly_fee",
            "annual_fee",
            "monthly_credits",
            "credit_rollover_periods",
            "trial_days",
            "is_custom",
            "prices",
        )
        read_only_fields = fields

    @extend_schema_field(PriceSerializer(many=True))
    def get_prices(self, plan: Plan) -> Any:
        """Return the prices of the book's version in force, in the meters' order."""
        # offered_plans() left the versions in force here, so that no row is asked for again.
        versions = getattr(plan.price_book, "current_versions", ())
        prices = sorted(
            (price for version in versions for price in version.prices.all()),
            key=lambda price: (_PLACE_OF_METER[price.meter], price.currency),
        )
        return PriceSerializer(prices, many=True).data
