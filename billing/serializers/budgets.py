from __future__ import annotations

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.api.serializers import StrictSerializer
from billing.models import Budget, BudgetCap, BudgetState
from billing.models.messages import MOST_PERCENT
from billing.money import Money
from billing.serializers.fields import (
    DECIMAL_TEXT,
    AccountAmountField,
    AmountTextField,
    PeriodOfRowSerializer,
)
from billing.services.budget_thresholds import percent_text
from billing.services.caps import enforcement_time, overshoot_bound
from billing.services.own_budgets import LONGEST_NAME, MOST_MARKS


class BudgetStateSerializer(serializers.Serializer[BudgetState]):
    """What the budget's period had cost when it was last looked at, and how fast that grows."""

    period = PeriodOfRowSerializer(source="*", read_only=True)
    cost = AccountAmountField()
    percent = serializers.SerializerMethodField(help_text="Of the amount, to a tenth.")
    burn_rate = AccountAmountField(help_text="Cost an hour, over the last minutes.")
    looked_at = serializers.DateTimeField(read_only=True)
    read_at = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="The newest reading that the cost counts."
    )

    @extend_schema_field(DECIMAL_TEXT)
    def get_percent(self, state: BudgetState) -> str:
        """Return how many percent of the budget are spent."""
        return percent_text(state.cost, state.budget.amount)


class BudgetCapSerializer(serializers.ModelSerializer[BudgetCap]):
    """A time for which the budget's hard cap had the sandboxes stopped, and what went past it."""

    amount = AccountAmountField(help_text="The budget's, when it was reached.")
    period = PeriodOfRowSerializer(source="*", read_only=True)
    cost_at_cap = AccountAmountField()
    cost = AccountAmountField(source="latest_cost")
    overshoot = AccountAmountField(help_text="The cost above the amount. It is billed.")
    overshoot_bound = serializers.SerializerMethodField(
        help_text="What may be used until the platform is asked, at the burn rate of then."
    )
    enforcement_seconds = serializers.SerializerMethodField(
        help_text="From a use to the platform's being asked, while all is well."
    )
    lifted_because = serializers.ChoiceField(
        choices=BudgetCap.Ending.choices, read_only=True, allow_blank=True
    )

    class Meta:
        model = BudgetCap
        fields = (
            "amount",
            "period",
            "capped_at",
            "cost_at_cap",
            "cost",
            "overshoot",
            "overshoot_bound",
            "enforcement_seconds",
            "lifted_at",
            "lifted_because",
        )
        read_only_fields = fields

    @extend_schema_field(DECIMAL_TEXT)
    def get_overshoot_bound(self, cap: BudgetCap) -> str:
        """Return the bound's text."""
        return Money(overshoot_bound(cap.burn_rate), cap.account.currency).text

    def get_enforcement_seconds(self, cap: BudgetCap) -> int:
        """Return the time in whole seconds."""
        del cap
        return enforcement_time() // timedelta(seconds=1)


class BudgetSerializer(serializers.ModelSerializer[Budget]):
    """What the account means to spend in a billing period, and how far it is with it."""

    amount = AccountAmountField(help_text="For a billing period, fees and tax included.")
    currency = serializers.CharField(source="account.currency", read_only=True)
    thresholds = serializers.ListField(
        child=serializers.IntegerField(), read_only=True, help_text="In percent of the amount."
    )
    alert_amounts = serializers.SerializerMethodField(help_text="Amounts that are told of too.")
    state = serializers.SerializerMethodField(help_text="Null: it was not looked at yet.")
    is_capping = serializers.SerializerMethodField(
        help_text="Whether its hard cap has the sandboxes stopped now."
    )
    last_cap = serializers.SerializerMethodField(help_text="Null: it never did.")

    class Meta:
        model = Budget
        fields = (
            "id",
            "name",
            "amount",
            "currency",
            "thresholds",
            "alert_amounts",
            "hard_cap",
            "is_active",
            "is_capping",
            "state",
            "last_cap",
        )
        read_only_fields = fields

    @extend_schema_field({"type": "array", "items": DECIMAL_TEXT})
    def get_alert_amounts(self, budget: Budget) -> list[str]:
        """Return the texts of the amounts."""
        return [Money(amount, budget.account.currency).text for amount in budget.alert_amounts]

    @extend_schema_field(BudgetStateSerializer(allow_null=True))
    def get_state(self, budget: Budget) -> Any:
        """Return the state; null before the first look."""
        state = getattr(budget, "state", None)
        return None if state is None else BudgetStateSerializer(state).data

    def get_is_capping(self, budget: Budget) -> bool:
        """Return whether the newest cap is not lifted."""
        cap = _last_cap(budget)
        return cap is not None and cap.lifted_at is None

    @extend_schema_field(BudgetCapSerializer(allow_null=True))
    def get_last_cap(self, budget: Budget) -> Any:
        """Return the newest cap; null without one."""
        cap = _last_cap(budget)
        return None if cap is None else BudgetCapSerializer(cap).data


class BudgetTermsSerializer(StrictSerializer[Any]):
    """What a call says of a budget. A change says only what is to be different."""

    name = serializers.CharField(max_length=LONGEST_NAME)
    amount = AmountTextField()
    thresholds = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=MOST_PERCENT),
        allow_empty=False,
        max_length=MOST_MARKS,
        required=False,
        help_text="In percent of the amount; 50, 80 and 100 unless said.",
    )
    alert_amounts = serializers.ListField(
        child=AmountTextField(), max_length=MOST_MARKS, required=False
    )
    hard_cap = serializers.BooleanField(required=False)
    is_active = serializers.BooleanField(required=False)


def _last_cap(budget: Budget) -> BudgetCap | None:
    # As the view has prefetched it.
    return next(iter(budget.newest_caps), None)  # type: ignore[attr-defined]  # see billing.api.budgets
