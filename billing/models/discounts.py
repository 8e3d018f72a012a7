from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from billing.discounts import RuleKind
from billing.models.accounts import Account
from billing.models.columns import (
    amount_column,
    currency_column,
    has_known_currency,
    percent_column,
)
from billing.models.plans import Plan


class DiscountRule(models.Model):
    """A discount that finance gives: for what, how much, to whom and when."""

    class Scope(models.TextChoices):
        ALL = "all"
        PLAN = "plan"
        ACCOUNT = "account"

    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=16, choices=[(k.value, k.value) for k in RuleKind])
    scope = models.CharField(max_length=16, choices=Scope, default=Scope.ALL)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, null=True, blank=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, null=True, blank=True)
    # Accounts that pay in another have no part in it.
    currency = currency_column(default="USD")
    # The usage fee that has to be reached; of a commitment rule, the committed minimum.
    min_amount = amount_column(default=0)
    # Commitment rules: the term that has to be committed to.
    min_months = models.PositiveSmallIntegerField(default=0)
    percent = percent_column(default=0)
    amount = amount_column(default=0)
    # The lower comes first on the invoice.
    priority = models.IntegerField(default=0)
    is_active = models.BooleanField(default=True)
    # It holds for the periods that start on a local day in [valid_from, valid_to).
    valid_from = models.DateField(null=True, blank=True)
    valid_to = models.DateField(null=True, blank=True)

    class Meta:
        ordering = ("priority", "name")
        constraints = (
            has_known_currency("discount_currency_is_one_of_iso_4217"),
            models.CheckConstraint(
                condition=Q(percent__gte=0, percent__lte=100),
                name="discount_percent_is_from_0_to_100",
                violation_error_message="Use a percent from 0 to 100.",
            ),
            models.CheckConstraint(
                condition=Q(amount__gte=0, min_amount__gte=0)
                & (Q(percent__gt=0) | Q(amount__gt=0)),
                name="discount_takes_a_percent_or_an_amount_off",
                violation_error_message=(
                    "Give a percent or an amount above 0, and use 0 or more for min_amount."
                ),
            ),
            models.CheckConstraint(
                condition=Q(scope="all", plan__isnull=True, account__isnull=True)
                | Q(scope="plan", plan__isnull=False, account__isnull=True)
                | Q(scope="account", plan__isnull=True, account__isnull=False),
                name="discount_names_what_its_scope_says",
                violation_error_message=(
                    "Name a plan for scope plan, an account for scope account, nothing for all."
                ),
            ),
            models.CheckConstraint(
                condition=Q(kind="commitment") | Q(min_months=0),
                name="discount_term_is_for_commitments",
                violation_error_message="Use min_months with commitment rules only.",
            ),
            models.CheckConstraint(
                condition=Q(valid_from__isnull=True)
                | Q(valid_to__isnull=True)
                | Q(valid_to__gt=F("valid_from")),
                name="discount_ends_after_start",
                violation_error_message="Let valid_to be later than valid_from.",
            ),
        )

    def __str__(self) -> str:
        return self.name
