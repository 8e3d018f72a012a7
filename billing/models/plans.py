from __future__ import annotations

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import RangeBoundary, RangeOperators
from django.db import models
from django.db.models import F, Q

from billing.fees import Interval
from billing.models.accounts import Account
from billing.models.columns import (
    TsTzRange,
    amount_column,
    currency_column,
    has_known_currency,
)
from billing.models.prices import PriceBook

INTERVALS = [(interval.value, interval.value) for interval in Interval]


class Plan(models.Model):
    """What is on offer: prices, a fee, and the credits that come with it.

    Without any fee it is custom: fee and prices are agreed with each customer.
    """

    code = models.SlugField(unique=True)
    name = models.CharField(max_length=100)
    price_book = models.ForeignKey(PriceBook, on_delete=models.PROTECT, related_name="plans")
    currency = currency_column(default="USD")
    # Empty, both: agreed with each customer. Empty, one: not offered that way.
    monthly_fee = amount_column(null=True, blank=True)
    annual_fee = amount_column(null=True, blank=True)
    monthly_credits = amount_column(default=0)
    # For how many more periods a monthly credit may be used. 0: its own only.
    credit_rollover_periods = models.PositiveSmallIntegerField(default=0)
    trial_days = models.PositiveSmallIntegerField(default=0)
    # Whether customers see it and may choose it.
    is_offered = models.BooleanField(default=True)
    # The price whose monthly fee Stripe collects in advance. Empty: the fee is on our invoices.
    stripe_price_id = models.CharField(max_length=100, blank=True, default="")

    class Meta:
        ordering = (F("monthly_fee").asc(nulls_last=True), "name")
        constraints = (
            has_known_currency("plan_currency_is_one_of_iso_4217"),
            models.CheckConstraint(
                condition=(Q(monthly_fee__isnull=True) | Q(monthly_fee__gte=0))
                & (Q(annual_fee__isnull=True) | Q(annual_fee__gte=0))
                & Q(monthly_credits__gte=0),
                name="plan_fees_and_credits_are_not_negative",
                violation_error_message="Use 0 or more for fees and credits.",
            ),
            models.CheckConstraint(
                condition=Q(stripe_price_id="") | Q(monthly_fee__isnull=False, monthly_fee__gt=0),
                name="plan_that_a_provider_collects_for_has_a_monthly_fee",
                violation_error_message="A price id is for a plan with a monthly fee above 0.",
            ),
            models.UniqueConstraint(
                fields=["stripe_price_id"],
                condition=~Q(stripe_price_id=""),
                name="providers_price_is_of_one_plan",
                violation_error_message="Another plan has this price id.",
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def is_custom(self) -> bool:
        """Whether fee and prices are agreed with each customer."""
        return self.monthly_fee is None and self.annual_fee is None


class Subscription(models.Model):
    """An account on a plan for a span of time, `[started_at, expires_at)`.

    The terms are copied when it starts: a plan's new fee is for new subscriptions. One that
    starts later is a change that was put off to the end of a period or term.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="subscriptions")
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="subscriptions")
    # The account's own prices. Empty: the plan's.
    price_book = models.ForeignKey(
        PriceBook, on_delete=models.PROTECT, null=True, blank=True, related_name="subscriptions"
    )
    interval = models.CharField(max_length=16, choices=INTERVALS, default=Interval.MONTHLY.value)
    # For a period, or a year of annual billing.
    fee = amount_column()
    monthly_credits = amount_column()
    # The payment provider's price, where the provider collects the fee in advance and invoices it
    # by itself. Empty: the fee is on our invoices.
    provider_price_id = models.CharField(max_length=100, blank=True, default="")
    credit_rollover_periods = models.PositiveSmallIntegerField(default=0)
    # The account's when it started: its years and its commitment are counted in its days.
    time_zone = models.CharField(max_length=64, blank=True, default="")
    # When it was decided. One that starts later may be dropped until then.
    recorded_at = models.DateTimeField()
    # Whole seconds, because fees are shared out by the second.
    started_at = models.DateTimeField()
    # May lie ahead: it was cancelled to then, or another takes over. Empty: open.
    expires_at = models.DateTimeField(null=True, blank=True)
    # No fee before this.
    trial_ends_at = models.DateTimeField(null=True, blank=True)
    # Cancelled at once: the billing period ends with it.
    ends_period = models.BooleanField(default=False)
    # At least this much is spent in each period, for so many months from the start.
    commitment_minimum = amount_column(null=True, blank=True)
    commitment_months = models.PositiveSmallIntegerField(null=True, blank=True)

    class Meta:
        ordering = ("-started_at",)
        constraints = (
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("started_at")),
                name="subscription_ends_after_start",
                violation_error_message="Let expires_at be later than started_at.",
            ),
            models.CheckConstraint(
                condition=Q(fee__gte=0, monthly_credits__gte=0),
                name="subscription_fee_and_credits_are_not_negative",
                violation_error_message="Use 0 or more for fee and credits.",
            ),
            # A comparison with NULL is NULL, and a check that comes to NULL passes; hence isnull.
            models.CheckConstraint(
                condition=Q(commitment_minimum__isnull=True, commitment_months__isnull=True)
                | Q(
                    commitment_minimum__isnull=False,
                    commitment_minimum__gt=0,
                    commitment_months__isnull=False,
                    commitment_months__gt=0,
                ),
                name="commitment_has_a_minimum_and_a_term",
                violation_error_message=(
                    "Give a commitment both a minimum above 0 and a term of months, or neither."
                ),
            ),
            models.CheckConstraint(
                condition=Q(provider_price_id="")
                | Q(
                    interval="monthly",
                    fee__gt=0,
                    price_book__isnull=True,
                    commitment_minimum__isnull=True,
                ),
                name="provider_collects_a_plans_own_monthly_fee_only",
            ),
            models.CheckConstraint(
                condition=Q(ends_period=False) | Q(expires_at__isnull=False),
                name="subscription_ends_a_period_only_where_it_ends",
            ),
            models.UniqueConstraint(
                fields=["account"],
                condition=Q(expires_at__isnull=True),
                name="account_has_one_open_subscription",
            ),
            ExclusionConstraint(
                name="subscriptions_of_an_account_do_not_overlap",
                expressions=[
                    (
                        TsTzRange("started_at", "expires_at", RangeBoundary()),
                        RangeOperators.OVERLAPS,
                    ),
                    ("account", RangeOperators.EQUAL),
                ],
                violation_error_message="The account is on a plan in that time.",
            ),
        )

    def __str__(self) -> str:
        return f"{self.account} on {self.plan}"

    @property
    def provider_collects(self) -> bool:
        """Whether the fee is collected by the payment provider, and so on no invoice of ours."""
        return bool(self.provider_price_id)
