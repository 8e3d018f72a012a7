from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.models import Invoice
from billing.rating import decimal_text
from billing.serializers.credit_notes import CreditNoteOfInvoiceSerializer
from billing.serializers.fields import AmountField, ExactField, MoneyField, PeriodSerializer
from billing.serializers.invoices import AppliedDiscountSerializer

INTEGER_TEXT = {"type": "string", "pattern": "^-?[0-9]+$"}


@extend_schema_field(
    {
        "type": "object",
        "properties": {
            "exact": {"type": "string", "description": "A whole number or a fraction."},
            "decimal": {"type": "string", "format": "decimal"},
        },
        "examples": [{"exact": "1/3", "decimal": "0.333333333333"}],
    }
)
class RationalField(serializers.Field[Any, Any, dict[str, str], Any]):
    """An exact number as a fraction, and as a decimal to twelve places."""

    def __init__(self, **options: Any) -> None:
        super().__init__(read_only=True, **options)

    def to_representation(self, value: Fraction | Decimal) -> dict[str, str]:
        """Return both texts."""
        exact = Fraction(value)
        return {"exact": str(exact), "decimal": decimal_text(exact)}


@extend_schema_field(INTEGER_TEXT)
class BaseUnitsField(serializers.Field[Any, Any, str, Any]):
    """A whole number of base units, as text: it may be more than a JSON number holds."""

    def __init__(self, **options: Any) -> None:
        super().__init__(read_only=True, **options)

    def to_representation(self, value: int) -> str:
        """Return its digits."""
        return str(value)


class CheckSerializer(serializers.Serializer[Any]):
    """What the parts come to, and what the whole is."""

    name = serializers.CharField(read_only=True)
    parts = RationalField()
    whole = RationalField()
    holds = serializers.BooleanField(read_only=True)


class PriceVersionSerializer(serializers.Serializer[Any]):
    """The version of a price book that was in force."""

    book = serializers.CharField(read_only=True)
    effective_from = serializers.DateTimeField(read_only=True)
    effective_to = serializers.DateTimeField(read_only=True, allow_null=True)


class PartCostSerializer(serializers.Serializer[Any]):
    """A part of the exact cost. At a minimum or maximum, unit_price is that limit."""

    kind = serializers.CharField(read_only=True)
    tier = serializers.IntegerField(read_only=True, allow_null=True)
    quantity = RationalField()
    unit_price = ExactField()
    cost = RationalField()


class ExplainedLifeSerializer(serializers.Serializer[Any]):
    """What one life used, in base units, and the counters and samples it was read from."""

    life_id = serializers.IntegerField(source="life.life_id", read_only=True)
    container_id = serializers.CharField(source="life.container_id", read_only=True)
    started_at = serializers.DateTimeField(source="life.started_at", read_only=True)
    quantity = BaseUnitsField(source="life.quantity")
    opening_counter = BaseUnitsField(source="life.opening", allow_null=True)
    closing_counter = BaseUnitsField(source="life.closing", allow_null=True)
    steps = BaseUnitsField(
        allow_null=True, help_text="The quantity less the difference of the two counters."
    )
    windows = serializers.IntegerField(source="life.record_count", read_only=True)
    first_window = serializers.DateTimeField(source="life.first_window", read_only=True)
    last_window = serializers.DateTimeField(source="life.last_window", read_only=True)
    samples = serializers.IntegerField(source="life.sample_count", read_only=True)
    applied_ms = serializers.IntegerField(source="life.applied_ms", read_only=True)
    measured_ms = serializers.IntegerField(source="life.measured_ms", read_only=True)
    records_hash = serializers.CharField(source="life.records_hash", read_only=True)


class ExplainedSandboxSerializer(serializers.Serializer[Any]):
    """What one sandbox used and bears of the exact cost, by quantity."""

    sandbox_id = serializers.CharField(read_only=True)
    quantity = BaseUnitsField()
    cost = RationalField()
    life_count = serializers.IntegerField(read_only=True)
    lives = ExplainedLifeSerializer(many=True, read_only=True)


class OtherSandboxesSerializer(serializers.Serializer[Any]):
    """What the sandboxes on other pages used and bear together."""

    count = serializers.IntegerField(read_only=True)
    quantity = BaseUnitsField()
    cost = RationalField()


class SandboxesSerializer(serializers.Serializer[Any]):
    """A page of sandboxes, by id. Page, others and without_usage are the line."""

    count = serializers.IntegerField(read_only=True)
    page = ExplainedSandboxSerializer(many=True, read_only=True)
    others = OtherSandboxesSerializer(read_only=True)
    without_usage = RationalField()
    next_after = serializers.CharField(read_only=True, allow_null=True)


class ExplainedCoverageSerializer(serializers.Serializer[Any]):
    """How much of the time in which the meter applied was measured."""

    applied_ms = serializers.IntegerField(read_only=True)
    measured_ms = serializers.IntegerField(read_only=True)


class LateWindowSerializer(serializers.Serializer[Any]):
    """Late usage that an adjustment is for, in base units."""

    sandbox_id = serializers.CharField(read_only=True)
    window_start = serializers.DateTimeField(read_only=True)
    quantity = BaseUnitsField()


class DiscountShareSerializer(serializers.Serializer[Any]):
    """What one rule took off the invoice, and the line's share of it."""

    name = serializers.CharField(read_only=True)
    percent = ExactField()
    fixed_amount = MoneyField()
    base = MoneyField()
    amount = MoneyField()
    share = MoneyField()


class CreditPaidSerializer(serializers.Serializer[Any]):
    """What one grant paid of the invoice."""

    kind = serializers.CharField(read_only=True, help_text="monthly, promotional or prepaid")
    name = serializers.CharField(read_only=True)
    amount = MoneyField()


class ExplanationSerializer(serializers.Serializer[Any]):
    """Where a line comes from, down to the counters. exact_cost + rounding = amount."""

    invoice = serializers.IntegerField(source="invoice_id", read_only=True)
    number = serializers.CharField(read_only=True, allow_null=True)
    currency = serializers.CharField(read_only=True)
    position = serializers.IntegerField(read_only=True)
    kind = serializers.CharField(read_only=True)
    description = serializers.CharField(read_only=True)
    basis = serializers.CharField(read_only=True, help_text="In words; empty on usage.")
    period = PeriodSerializer(read_only=True)
    meter = serializers.CharField(read_only=True)
    charge = serializers.CharField(read_only=True)
    unit = serializers.CharField(read_only=True)
    base_unit = serializers.CharField(read_only=True)
    unit_size = BaseUnitsField(help_text="How many base units are one unit.")
    quantity = BaseUnitsField()
    price_version = PriceVersionSerializer(read_only=True, allow_null=True)
    parts = PartCostSerializer(many=True, read_only=True)
    exact_cost = RationalField(allow_null=True)
    rounding = RationalField(allow_null=True)
    amount = MoneyField()
    evidence_is_kept = serializers.BooleanField(
        source="is_kept",
        read_only=True,
        help_text="False: the sandboxes are what the usage records say now.",
    )
    sandboxes = SandboxesSerializer(read_only=True, allow_null=True)
    coverage = ExplainedCoverageSerializer(read_only=True, allow_null=True)
    late_usage = LateWindowSerializer(many=True, read_only=True)
    discounts = DiscountShareSerializer(many=True, read_only=True)
    discount = MoneyField(help_text="The sum of the shares.")
    credits = CreditPaidSerializer(many=True, read_only=True)
    checks = CheckSerializer(many=True, read_only=True)
    sums = serializers.BooleanField(read_only=True, help_text="Whether every check holds.")


class ExplainedLineSerializer(serializers.Serializer[Any]):
    """A line: exact_cost + rounding = amount. Its sandboxes are in its own explanation."""

    position = serializers.IntegerField(source="line.position", read_only=True)
    kind = serializers.CharField(source="line.kind", read_only=True)
    description = serializers.CharField(source="line.description", read_only=True)
    basis = serializers.CharField(read_only=True, help_text="In words; empty on usage.")
    meter = serializers.CharField(source="line.meter", read_only=True)
    charge = serializers.CharField(source="line.charge", read_only=True)
    period = PeriodSerializer(source="line.period", read_only=True)
    unit = serializers.CharField(source="line.unit", read_only=True)
    base_unit = serializers.CharField(source="line.base_unit", read_only=True)
    unit_size = BaseUnitsField(source="line.unit_size")
    quantity = BaseUnitsField(source="line.quantity", help_text="In base units.")
    parts = PartCostSerializer(many=True, read_only=True)
    exact_cost = RationalField(allow_null=True)
    rounding = RationalField(allow_null=True)
    amount = MoneyField()
    discount = MoneyField(help_text="Its share of the discounts, not taken off amount.")
    lives = serializers.IntegerField(
        read_only=True, allow_null=True, help_text="How many starts of sandboxes it rests on."
    )
    coverage = ExplainedCoverageSerializer(read_only=True, allow_null=True)
    checks = CheckSerializer(many=True, read_only=True)
    sums = serializers.BooleanField(read_only=True, help_text="Whether every check holds.")


class TotalsSerializer(serializers.ModelSerializer[Invoice]):
    """The figures of an invoice, from its fees to what is due."""

    tax_rate = ExactField()
    subscription_fee = AmountField()
    usage_fee = AmountField()
    discounts = AmountField()
    credits_used = AmountField()
    adjustments = AmountField()
    tax = AmountField()
    credited = AmountField()
    top_up = AmountField()
    total_amount = AmountField()
    prepaid_used = AmountField()
    amount_due = AmountField()

    class Meta:
        model = Invoice
        fields = (
            "subscription_fee",
            "usage_fee",
            "discounts",
            "credits_used",
            "adjustments",
            "tax_rate",
            "tax_is_inclusive",
            "tax",
            "credited",
            "top_up",
            "total_amount",
            "prepaid_used",
            "amount_due",
        )
        read_only_fields = fields


class InvoiceExplanationSerializer(serializers.Serializer[Any]):
    """Where an invoice comes from: its lines, and each sum from there to what is due."""

    invoice = serializers.IntegerField(source="invoice.pk", read_only=True)
    number = serializers.CharField(source="invoice.number", read_only=True, allow_null=True)
    kind = serializers.CharField(source="invoice.kind", read_only=True)
    status = serializers.CharField(source="invoice.status", read_only=True)
    period = PeriodSerializer(source="invoice.period", read_only=True)
    currency = serializers.CharField(source="invoice.currency", read_only=True)
    evidence_is_kept = serializers.BooleanField(
        source="is_kept",
        read_only=True,
        help_text="False, as of a draft: what the lives used is not looked at here.",
    )
    lines = ExplainedLineSerializer(many=True, read_only=True, help_text="The first 500.")
    line_count = serializers.IntegerField(read_only=True)
    applied_discounts = AppliedDiscountSerializer(source="discounts", many=True, read_only=True)
    credits = CreditPaidSerializer(many=True, read_only=True)
    totals = TotalsSerializer(source="invoice", read_only=True)
    credit_notes = CreditNoteOfInvoiceSerializer(many=True, read_only=True)
    checks = CheckSerializer(many=True, read_only=True)
    sums = serializers.BooleanField(
        read_only=True, help_text="Whether every check holds, and those of every line."
    )


class ExplainQuerySerializer(serializers.Serializer[Any]):
    """Which page of the line's sandboxes is asked for."""

    after = serializers.CharField(
        required=False, default="", max_length=128, help_text="The page after this sandbox id."
    )


class WindowsQuerySerializer(serializers.Serializer[Any]):
    """Which page of a life's windows is asked for."""

    after = serializers.DateTimeField(
        required=False, default=None, help_text="The windows that start after this time."
    )


class LifeWindowSerializer(serializers.Serializer[Any]):
    """What a life used in one window, in base units."""

    window_start = serializers.DateTimeField(read_only=True)
    interface = serializers.CharField(read_only=True, help_text="Of network; else empty.")
    quantity = BaseUnitsField()
    opening_counter = BaseUnitsField(source="opening", allow_null=True)
    closing_counter = BaseUnitsField(source="closing", allow_null=True)
    samples = serializers.IntegerField(source="sample_count", read_only=True)
    applied_ms = serializers.IntegerField(read_only=True)
    measured_ms = serializers.IntegerField(read_only=True)
