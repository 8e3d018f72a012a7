"""How the API writes things: times in UTC, decimals and money as text, never as JSON numbers."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.models import Invoice, InvoiceLine
from billing.money import Money
from billing.queries import CurrentUsage
from billing.rating import Unpriced, UnpricedUsage, decimal_text
from metering.coverage import MOST_GAPS, MOST_SANDBOXES, AccountCoverage
from metering.meters import UNITS, Meter

MOST_DAYS = 92
"""How many days one answer may be about."""
FIRST_YEAR = 2000
"""Nobody was metered before it, and the first days that a date can name have no time in UTC."""

DECIMAL_TEXT = {"type": "string", "format": "decimal"}


@extend_schema_field(DECIMAL_TEXT)
class ExactField(serializers.Field[Any, Any, str, Any]):
    """An exact quantity or cost, to twelve decimals."""

    def __init__(self, **options: Any) -> None:
        super().__init__(read_only=True, **options)

    def to_representation(self, value: Fraction) -> str:
        """Return the decimal text."""
        return decimal_text(value)


@extend_schema_field(DECIMAL_TEXT)
class MoneyField(serializers.Field[Any, Any, str, Any]):
    """An amount in the document's currency, with the currency's decimals."""

    def __init__(self, **options: Any) -> None:
        super().__init__(read_only=True, **options)

    def to_representation(self, value: Money) -> str:
        """Return the amount's text."""
        return value.text


class AmountField(MoneyField):
    """An amount column of an invoice or of one of its lines."""

    def get_attribute(self, instance: Any) -> Money:
        """Return the column's amount in the invoice's currency."""
        invoice = instance.invoice if isinstance(instance, InvoiceLine) else instance
        amount: Decimal = getattr(instance, self.source_attrs[0])
        return Money(amount, invoice.currency)


class PeriodSerializer(serializers.Serializer[Any]):
    """`[start, end)`: the end itself is outside."""

    start = serializers.DateTimeField(read_only=True)
    end = serializers.DateTimeField(read_only=True)


class PlanSerializer(serializers.Serializer[Any]):
    """The plan whose prices hold now."""

    code = serializers.CharField(read_only=True)
    name = serializers.CharField(read_only=True)


class DiscountSerializer(serializers.Serializer[Any]):
    """What one rule takes off."""

    name = serializers.CharField(read_only=True)
    amount = MoneyField()


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


class CoverageSerializer(serializers.Serializer[Any]):
    """How much of the time that sandboxes ran was measured."""

    running_ms = serializers.IntegerField(read_only=True)
    measured_ms = serializers.IntegerField(read_only=True)
    ratio = serializers.SerializerMethodField()

    @extend_schema_field({"type": ["string", "null"], "format": "decimal"})
    def get_ratio(self, coverage: Any) -> str | None:
        """Return measured time by running time; None when nothing ran."""
        if not coverage.running_ms:
            return None
        return decimal_text(Fraction(coverage.measured_ms, coverage.running_ms))


class DaysSerializer(serializers.Serializer[Any]):
    """The local days from `start` to before `end`."""

    start = serializers.DateField(help_text="The first day, of the account's time zone.")
    end = serializers.DateField(help_text="The day after the last one.")


class DaysQuerySerializer(DaysSerializer):
    """Which days are asked for."""

    def validate(self, asked: dict[str, date]) -> dict[str, date]:
        """Return the days. Raises ValidationError naming the field that is no good."""
        if asked["start"].year < FIRST_YEAR:
            raise serializers.ValidationError({"start": f"It has to be in {FIRST_YEAR} or later."})
        days = (asked["end"] - asked["start"]).days
        if days < 1:
            raise serializers.ValidationError({"end": "It has to be after start."})
        if days > MOST_DAYS:
            raise serializers.ValidationError(
                {"end": f"It is {days} days after start; at most {MOST_DAYS} are given at once."}
            )
        return asked


class DayCoverageSerializer(CoverageSerializer):
    """One local day."""

    day = serializers.DateField(read_only=True)
    sandboxes = serializers.IntegerField(
        read_only=True, help_text="How many sandboxes had usage that day."
    )


class SandboxCoverageSerializer(CoverageSerializer):
    """One sandbox in the days asked for."""

    sandbox_id = serializers.CharField(read_only=True)


class GapSerializer(serializers.Serializer[Any]):
    """Time in which a sandbox ran and a meter was not measured, and so not charged."""

    sandbox_id = serializers.CharField(read_only=True)
    meter = serializers.CharField(read_only=True)
    reason = serializers.CharField(read_only=True)
    start = serializers.DateTimeField(read_only=True)
    end = serializers.DateTimeField(read_only=True)


class AccountCoverageSerializer(serializers.Serializer[AccountCoverage]):
    """How much of what ran was measured. Days are added up hourly."""

    period = DaysSerializer(source="*", read_only=True)
    time_zone = serializers.CharField(read_only=True)
    total = CoverageSerializer(read_only=True)
    days = DayCoverageSerializer(
        many=True, read_only=True, help_text="Days on which nothing ran are left out."
    )
    sandboxes = SandboxCoverageSerializer(
        many=True,
        read_only=True,
        help_text=f"The longest unmeasured time first, at most {MOST_SANDBOXES}.",
    )
    sandboxes_left_out = serializers.IntegerField(read_only=True)
    gaps = GapSerializer(
        many=True, read_only=True, help_text=f"The newest first, at most {MOST_GAPS}."
    )
    gaps_left_out = serializers.IntegerField(
        read_only=True, help_text="Ask for fewer days to see these."
    )


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


class CurrentUsageSerializer(serializers.Serializer[CurrentUsage]):
    """Usage and cost of the month so far."""

    period = PeriodSerializer(read_only=True)
    as_of = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="The time of the newest reading counted."
    )
    plan = PlanSerializer(read_only=True)
    currency = serializers.CharField(source="cost.usage_fee.currency", read_only=True)
    usage = serializers.SerializerMethodField(
        help_text="By unit, as decimal text. A meter that nothing was used of is left out."
    )
    cost = CostSerializer(read_only=True)
    remaining_credits = MoneyField()
    coverage = CoverageSerializer(read_only=True)
    unpriced = UnpricedSerializer(many=True, read_only=True)

    @extend_schema_field(
        {
            "type": "object",
            "additionalProperties": DECIMAL_TEXT,
            "examples": [{"cpu_seconds": "3600", "memory_gb_seconds": "7200"}],
        }
    )
    def get_usage(self, current: CurrentUsage) -> dict[str, str]:
        """Return each used meter's quantity in its shown unit."""
        return {
            UNITS[meter].shown: decimal_text(UNITS[meter].shown_quantity(quantity))
            for meter, quantity in current.usage.items()
        }


class InvoiceLineSerializer(serializers.ModelSerializer[InvoiceLine]):
    """amount = quantity × unit_price, rounded once."""

    kind = serializers.CharField(read_only=True, help_text="fee or usage")
    quantity = ExactField(source="exact_quantity")
    unit_price = serializers.SerializerMethodField()
    amount = AmountField()
    period = PeriodSerializer(read_only=True)

    class Meta:
        model = InvoiceLine
        fields = (
            "position",
            "kind",
            "description",
            "meter",
            "quantity",
            "unit",
            "unit_price",
            "amount",
            "period",
        )
        read_only_fields = fields

    @extend_schema_field(DECIMAL_TEXT)
    def get_unit_price(self, line: InvoiceLine) -> str:
        """Return the price of one unit, without trailing zeros."""
        return decimal_text(Fraction(line.unit_price))


class InvoiceSerializer(serializers.ModelSerializer[Invoice]):
    """An invoice's figures. A draft's are those known at `computed_at`."""

    period = PeriodSerializer(read_only=True)
    subscription_fee = AmountField()
    usage_fee = AmountField()
    discounts = AmountField()
    credits_used = AmountField()
    adjustments = AmountField()
    tax = AmountField()
    total_amount = AmountField()
    amount_due = AmountField()

    class Meta:
        model = Invoice
        fields: tuple[str, ...] = (
            "id",
            "number",
            "kind",
            "status",
            "period",
            "currency",
            "subscription_fee",
            "usage_fee",
            "discounts",
            "credits_used",
            "adjustments",
            "tax",
            "total_amount",
            "amount_due",
            "computed_at",
            "finalised_at",
            "paid_at",
        )
        read_only_fields: tuple[str, ...] = fields


class InvoiceWithLinesSerializer(InvoiceSerializer):
    """An invoice with its lines."""

    lines = InvoiceLineSerializer(many=True, read_only=True)

    class Meta(InvoiceSerializer.Meta):
        fields = (*InvoiceSerializer.Meta.fields, "lines")
        read_only_fields = fields
