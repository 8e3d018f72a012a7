from __future__ import annotations

from typing import Any

from rest_framework import serializers

from billing.api.serializers import StrictSerializer
from billing.fees import Interval
from billing.models import Subscription
from billing.money import Money
from billing.serializers.fields import MoneyField, PeriodSerializer
from billing.serializers.usage import PlanSerializer
from billing.services.plan_preview import PlanChange


class TermsSerializer(serializers.ModelSerializer[Subscription]):
    """A plan that the account is on for a time, `[started_at, expires_at)`, on its terms then."""

    plan = PlanSerializer(read_only=True)
    currency = serializers.CharField(source="plan.currency", read_only=True)
    fee = serializers.SerializerMethodField(help_text="For a month, or a year of annual billing.")
    monthly_credits = serializers.SerializerMethodField()
    commitment_minimum = serializers.SerializerMethodField(allow_null=True)

    class Meta:
        model = Subscription
        fields = (
            "plan",
            "currency",
            "interval",
            "fee",
            "monthly_credits",
            "started_at",
            "expires_at",
            "trial_ends_at",
            "commitment_minimum",
            "commitment_months",
        )
        read_only_fields = fields

    def get_fee(self, terms: Subscription) -> str:
        """Return the fee's text."""
        return Money(terms.fee, terms.plan.currency).text

    def get_monthly_credits(self, terms: Subscription) -> str:
        """Return the text of what is granted each period."""
        return Money(terms.monthly_credits, terms.plan.currency).text

    def get_commitment_minimum(self, terms: Subscription) -> str | None:
        """Return the text of what is spent at least each period; null without a commitment."""
        if terms.commitment_minimum is None:
            return None
        return Money(terms.commitment_minimum, terms.plan.currency).text


class SubscriptionSerializer(serializers.Serializer[Any]):
    """What the account is on, and what it is to be on next; null: the free plan, or the same."""

    current = TermsSerializer(read_only=True, allow_null=True)
    following = TermsSerializer(read_only=True, allow_null=True)
    period = PeriodSerializer(read_only=True, help_text="The running billing period.")


class ChoiceSerializer(StrictSerializer[Any]):
    """Which plan to be on, or what that would cost."""

    plan = serializers.CharField(max_length=50, help_text="Its code, as `plans` tells.")
    interval = serializers.ChoiceField(
        [interval.value for interval in Interval],
        required=False,
        help_text="How often the fee is asked for. Left out: as now.",
    )
    preview = serializers.BooleanField(
        default=False, help_text="true changes nothing, and tells what the change would cost."
    )


class CancellationSerializer(StrictSerializer[Any]):
    """When the plan is to end."""

    now = serializers.BooleanField(
        default=False, help_text="true ends it, and the billing period, at once."
    )


class ProrationLineSerializer(serializers.Serializer[Any]):
    """By how much the change moves what is asked for a plan; below zero is given back."""

    kind = serializers.CharField(read_only=True)
    plan = serializers.CharField(read_only=True)
    period = PeriodSerializer(read_only=True)
    amount = MoneyField()


class ExpectedSerializer(serializers.Serializer[Any]):
    """What the running period comes to."""

    subscription_fee = MoneyField()
    total_amount = MoneyField()
    amount_due = MoneyField()
    monthly_credits = MoneyField()
    forecast_total = MoneyField()
    forecast_due = MoneyField()


class PlanChangeSerializer(serializers.Serializer[PlanChange]):
    """What a change of plan costs, and from when. Nothing was changed."""

    plan = PlanSerializer(read_only=True)
    currency = serializers.CharField(source="next_fee.currency", read_only=True)
    interval = serializers.CharField(read_only=True)
    effective_at = serializers.DateTimeField(read_only=True)
    is_now = serializers.BooleanField(read_only=True)
    provider_collects = serializers.BooleanField(read_only=True)
    period = PeriodSerializer(read_only=True)
    lines = ProrationLineSerializer(many=True, read_only=True)
    difference = MoneyField(help_text="By how much the running period's fee changes.")
    before = ExpectedSerializer(read_only=True)
    after = ExpectedSerializer(read_only=True)
    next_period = PeriodSerializer(read_only=True)
    next_fee = MoneyField()
    next_monthly_credits = MoneyField()


class SubscriptionOrChangeSerializer(serializers.Serializer[Any]):
    """The subscription after the change; or, with `preview`, what the change would cost."""

    subscription = SubscriptionSerializer(read_only=True, allow_null=True)
    preview = PlanChangeSerializer(read_only=True, allow_null=True)
