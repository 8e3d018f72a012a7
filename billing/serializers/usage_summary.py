from __future__ import annotations

from rest_framework import serializers

from billing.models import Invoice
from billing.serializers.fields import (
    CostByMeterField,
    ExactField,
    MoneyField,
    PeriodSerializer,
    UsageField,
)
from billing.usage_summary import PeriodSummary


class InvoiceOfPeriodSerializer(serializers.Serializer[Invoice]):
    """Which invoice says it."""

    id = serializers.IntegerField(read_only=True)
    number = serializers.CharField(read_only=True)
    status = serializers.CharField(read_only=True)


class PeriodSummarySerializer(serializers.Serializer[PeriodSummary]):
    """What a billing period came to, or comes to so far."""

    period = PeriodSerializer(read_only=True)
    currency = serializers.CharField(read_only=True)
    invoice = InvoiceOfPeriodSerializer(
        read_only=True, allow_null=True, help_text="null: there is no final one yet."
    )
    usage = UsageField(read_only=True)
    cost_by_meter = CostByMeterField(read_only=True)
    raw_cost = ExactField(help_text="What the usage cost exactly, before it was rounded by line.")
    subscription_fee = MoneyField()
    usage_fee = MoneyField()
    discounts = MoneyField()
    credits_used = MoneyField()
    adjustments = MoneyField(help_text="Of earlier periods.")
    tax = MoneyField()
    total_amount = MoneyField()
    prepaid_used = MoneyField()
    amount_due = MoneyField()
