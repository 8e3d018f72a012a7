from __future__ import annotations

from datetime import datetime

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import RangeBoundary, RangeOperators
from django.db import models
from django.db.models import F, Q

from billing.models.accounts import Account
from billing.models.columns import (
    IS_CURRENCY_CODE,
    TsTzRange,
    amount_column,
    currency_column,
)
from billing.models.prices import PriceBook
from metering.period import Period


class Plan(models.Model):
    """What is on offer: prices, a monthly fee, and the credits that come with it."""

    code = models.SlugField(unique=True)
    name = models.CharField(max_length=100)
    price_book = models.ForeignKey(PriceBook, on_delete=models.PROTECT, related_name="plans")
    currency = currency_column(default="USD")
    # Empty: agreed with each customer, and kept on the subscription.
    monthly_fee = amount_column(null=True, blank=True)
    monthly_credits = amount_column(default=0)

    class Meta:
        ordering = ("monthly_fee", "name")
        constraints = (
            models.CheckConstraint(condition=IS_CURRENCY_CODE, name="plan_has_a_currency_code"),
            models.CheckConstraint(
                condition=Q(monthly_fee__gte=0), name="plan_fee_is_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(monthly_credits__gte=0), name="plan_credits_are_not_negative"
            ),
        )

    def __str__(self) -> str:
        return self.name


class Subscription(models.Model):
    """An account on a plan for a span of time, `[started_at, ended_at)`.

    Fee and credits are copied when it starts: a plan's new fee is for new subscriptions.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="subscriptions")
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="subscriptions")
    monthly_fee = amount_column()
    monthly_credits = amount_column()
    # Whole seconds, because fees are shared out by the second.
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-started_at",)
        constraints = (
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True) | Q(ended_at__gt=F("started_at")),
                name="subscription_ends_after_start",
            ),
            models.CheckConstraint(
                condition=Q(monthly_fee__gte=0, monthly_credits__gte=0),
                name="subscription_fee_and_credits_are_not_negative",
            ),
            models.UniqueConstraint(
                fields=["account"],
                condition=Q(ended_at__isnull=True),
                name="account_has_one_active_subscription",
            ),
            ExclusionConstraint(
                name="subscriptions_of_an_account_do_not_overlap",
                expressions=[
                    (
                        TsTzRange("started_at", "ended_at", RangeBoundary()),
                        RangeOperators.OVERLAPS,
                    ),
                    ("account", RangeOperators.EQUAL),
                ],
            ),
        )

    def __str__(self) -> str:
        return f"{self.account} on {self.plan}"

    def part_of(self, period: Period) -> Period | None:
        """Return the part of `period` that the subscription covers, or None."""
        ended_at: datetime = self.ended_at or max(period.end, self.started_at)
        if ended_at <= self.started_at:
            return None
        return Period(self.started_at, ended_at).overlap(period)
