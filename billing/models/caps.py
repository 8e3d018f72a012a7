"""How far budgets are used up, and the accounts that one of them has capped."""

from __future__ import annotations

from decimal import Decimal

from django.db import models
from django.db.models import F, Q

from billing.models.accounts import Account
from billing.models.columns import amount_column
from billing.models.messages import Budget


class BudgetState(models.Model):
    """What a budget's period had cost when it was last looked at, and how fast that grows."""

    # It goes with its budget: it is worked out anew at any time.
    budget = models.OneToOneField(
        Budget, on_delete=models.CASCADE, primary_key=True, related_name="state"
    )
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    # The period's total so far, as `usage/current` has it.
    cost = amount_column()
    looked_at = models.DateTimeField()
    # The newest reading that the cost counts. Empty: there was none.
    read_at = models.DateTimeField(null=True, blank=True)
    # What the rate is counted from, some minutes back.
    earlier_cost = amount_column()
    earlier_at = models.DateTimeField()
    # Cost an hour, over the last minutes.
    burn_rate = amount_column(default=0)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(period_end__gt=F("period_start")),
                name="budget_state_period_ends_after_start",
            ),
        )

    def __str__(self) -> str:
        return f"{self.budget}: {self.cost}"


class BudgetCap(models.Model):
    """An account is capped, because a period's cost reached a budget that is a hard cap.

    The row is what counts: the platform is asked because of it, and again until it has said yes.
    """

    class Ending(models.TextChoices):
        """Why an account is not capped any more."""

        RAISED = "raised"
        REMOVED = "removed"
        # As by credit that was granted.
        COST_FELL = "cost_fell"
        PERIOD_ENDED = "period_ended"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="caps")
    # Empty: it was deleted since. What it said is below.
    budget = models.ForeignKey(Budget, on_delete=models.SET_NULL, null=True, related_name="caps")
    budget_name = models.CharField(max_length=100)
    # The budget's, in the account's currency.
    amount = amount_column()
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    capped_at = models.DateTimeField()
    cost_at_cap = amount_column()
    # Cost an hour when it was capped: what each second until the sandboxes stand still costs.
    burn_rate = amount_column()
    # The cost when it was last looked at. What is above the amount is the overshoot, and billed.
    latest_cost = amount_column()
    latest_at = models.DateTimeField()
    lifted_at = models.DateTimeField(null=True, blank=True)
    lifted_because = models.CharField(max_length=16, choices=Ending, blank=True, default="")

    class Meta:
        ordering = ("-capped_at", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=["budget"],
                condition=Q(lifted_at__isnull=True),
                name="budget_caps_once_at_a_time",
            ),
            models.CheckConstraint(
                condition=Q(lifted_at__isnull=True, lifted_because="")
                | (Q(lifted_at__isnull=False) & ~Q(lifted_because="")),
                name="lifted_cap_says_why",
            ),
            models.CheckConstraint(
                condition=Q(cost_at_cap__gte=F("amount"), amount__gt=0),
                name="cap_was_reached",
            ),
        )
        indexes = (
            models.Index(
                fields=["account"], condition=Q(lifted_at__isnull=True), name="capped_accounts"
            ),
        )

    def __str__(self) -> str:
        return f"{self.account} capped by {self.budget_name}"

    @property
    def overshoot(self) -> Decimal:
        """What was used above the cap, in the account's currency."""
        above: Decimal = self.latest_cost - self.amount
        return max(above, Decimal(0))
