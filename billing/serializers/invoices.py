from __future__ import annotations

from rest_framework import serializers

from billing.models import Invoice, InvoiceDiscount, InvoiceLine, InvoiceLinePart
from billing.serializers.credit_notes import CreditNoteOfInvoiceSerializer
from billing.serializers.fields import (
    AmountField,
    ExactField,
    ExactOrNullField,
    PeriodSerializer,
)


class InvoiceLinePartSerializer(serializers.ModelSerializer[InvoiceLinePart]):
    """How a part of a line's amount came about: quantity × unit_price, before rounding.

    At a minimum or maximum, unit_price is that limit, which the other parts are brought to.
    """

    kind = serializers.CharField(
        read_only=True,
        help_text="free, units, flat_fee, packages, percent, events, maximum or minimum",
    )
    quantity = ExactField(source="exact_quantity")
    unit_price = ExactField()

    class Meta:
        model = InvoiceLinePart
        fields = ("kind", "tier", "quantity", "unit_price")
        read_only_fields = fields


class InvoiceLineSerializer(serializers.ModelSerializer[InvoiceLine]):
    """amount = quantity × unit_price, rounded once; without a unit price, the parts say how."""

    kind = serializers.CharField(
        read_only=True, help_text="fee, unused_fee, fee_discount, true_up or usage"
    )
    meter = serializers.CharField(read_only=True, help_text="As in usage; empty on fees.")
    charge = serializers.CharField(
        read_only=True,
        help_text="per_unit, graduated, volume, package or percentage; empty on fees",
    )
    quantity = ExactField(source="exact_quantity")
    unit_price = ExactOrNullField()
    amount = AmountField()
    discount = AmountField(help_text="Its share of the discounts on usage, not taken off amount.")
    period = PeriodSerializer(read_only=True)
    parts = InvoiceLinePartSerializer(many=True, read_only=True)

    class Meta:
        model = InvoiceLine
        fields = (
            "position",
            "kind",
            "description",
            "meter",
            "charge",
            "quantity",
            "unit",
            "unit_price",
            "amount",
            "discount",
            "period",
            "parts",
        )
        read_only_fields = fields


class AppliedDiscountSerializer(serializers.ModelSerializer[InvoiceDiscount]):
    """What one rule took off: percent of the base and a fixed amount, together rounded once."""

    base = serializers.CharField(read_only=True, help_text="usage_fee or annual_fee")
    base_amount = AmountField()
    percent = ExactField()
    fixed_amount = AmountField()
    amount = AmountField()

    class Meta:
        model = InvoiceDiscount
        fields = ("name", "base", "base_amount", "percent", "fixed_amount", "amount")
        read_only_fields = fields


class InvoiceSerializer(serializers.ModelSerializer[Invoice]):
    """An invoice's figures. A draft's are those known at `computed_at`."""

    period = PeriodSerializer(read_only=True)
    tax_rate = ExactField(help_text="A fraction, 0.19 for 19 %.")
    subscription_fee = AmountField()
    usage_fee = AmountField()
    discounts = AmountField()
    credits_used = AmountField()
    adjustments = AmountField()
    tax = AmountField()
    credited = AmountField(help_text="What a remainder below zero became: prepaid credit.")
    total_amount = AmountField()
    prepaid_used = AmountField()
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
            "tax_rate",
            "tax_is_inclusive",
            "subscription_fee",
            "usage_fee",
            "discounts",
            "credits_used",
            "adjustments",
            "tax",
            "credited",
            "total_amount",
            "prepaid_used",
            "amount_due",
            "computed_at",
            "finalised_at",
            "paid_at",
        )
        read_only_fields: tuple[str, ...] = fields


class InvoiceWithLinesSerializer(InvoiceSerializer):
    """An invoice with its lines, the discounts that were applied, and its credit notes."""

    lines = InvoiceLineSerializer(many=True, read_only=True)
    applied_discounts = AppliedDiscountSerializer(many=True, read_only=True)
    credit_notes = CreditNoteOfInvoiceSerializer(many=True, read_only=True)

    class Meta(InvoiceSerializer.Meta):
        fields = (*InvoiceSerializer.Meta.fields, "lines", "applied_discounts", "credit_notes")
        read_only_fields = fields
