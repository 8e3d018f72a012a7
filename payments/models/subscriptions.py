from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from billing.models import Account


class FeeSubscription(models.Model):
    """A subscription at the provider, which collects an account's flat fee in advance.

    It stays through changes of the plan. Its id is in the idempotency keys of what is asked.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="fee_subscriptions")
    # Empty: not made there yet.
    provider_id = models.CharField(max_length=100, null=True, blank=True, unique=True)
    # What was asked for last: another price or end at the provider is not ours.
    asked_price_id = models.CharField(max_length=100)
    asked_to_end = models.BooleanField(default=False)
    # How it stood at the provider at the last look: its own word for it, and its item's period.
    status = models.CharField(max_length=32, blank=True, default="")
    period_start = models.DateTimeField(null=True, blank=True)
    period_end = models.DateTimeField(null=True, blank=True)
    # The price that the period was paid at.
    paid_price_id = models.CharField(max_length=100, blank=True, default="")
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    looked_at = models.DateTimeField(null=True, blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True)
    # Not before; later after each failure.
    try_at = models.DateTimeField()
    failures = models.PositiveSmallIntegerField(default=0)
    waiting_for = models.TextField(blank=True, default="")

    class Meta:
        ordering = ("-started_at",)
        constraints = (
            models.UniqueConstraint(
                fields=["account"],
                condition=Q(ended_at__isnull=True),
                name="account_has_one_fee_subscription_at_the_provider",
            ),
            models.CheckConstraint(
                condition=Q(period_start__isnull=True, period_end__isnull=True)
                | Q(period_start__isnull=False, period_end__isnull=False),
                name="fee_subscription_has_a_whole_period",
            ),
        )
        indexes = (
            models.Index(
                fields=["try_at"],
                condition=Q(ended_at__isnull=True),
                name="fee_subscriptions_by_turn",
            ),
        )

    def __str__(self) -> str:
        return self.provider_id or f"Fee subscription {str(self.pk)[:8]}"
