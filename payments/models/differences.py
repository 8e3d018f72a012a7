from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from billing.models import Account


class Reconciliation(models.Model):
    """One comparison of both sides' invoices, payments and refunds."""

    started_at = models.DateTimeField()
    # What happened at the provider from then on was compared.
    since = models.DateTimeField()
    # All of before then was compared; the next look goes on from there.
    reached = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    # Until then it belongs to the worker that has it.
    claimed_until = models.DateTimeField(null=True, blank=True)
    # How often the next window is halved: once for each time that it took too long.
    halvings = models.PositiveSmallIntegerField(default=0, db_default=0)
    events_fetched = models.PositiveIntegerField(default=0)
    invoices_compared = models.PositiveIntegerField(default=0)
    payments_compared = models.PositiveIntegerField(default=0)
    refunds_compared = models.PositiveIntegerField(default=0)
    # What was put right by reading it again.
    healed = models.PositiveIntegerField(default=0)
    # Those open at its end, whenever they were found.
    differences = models.PositiveIntegerField(null=True, blank=True)
    # Why it stands still, or ended early. Empty: it does not, and did not.
    error = models.TextField(blank=True, default="")

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"Reconciliation of {self.started_at:%Y-%m-%d %H:%M}"


class Difference(models.Model):
    """Something that the provider and we do not say alike, until it is gone."""

    class Kind(models.TextChoices):
        # The provider's invoice does not ask for what ours asks for; nothing was paid.
        TOTALS_DIFFER = "totals_differ"
        INVOICE_ONLY_THERE = "invoice_only_there"
        INVOICE_ONLY_HERE = "invoice_only_here"
        INVOICE_STATE_DIFFERS = "invoice_state_differs"
        PAYMENT_ONLY_THERE = "payment_only_there"
        PAYMENT_ONLY_HERE = "payment_only_here"
        PAYMENT_AMOUNT_DIFFERS = "payment_amount_differs"
        REFUND_ONLY_THERE = "refund_only_there"
        REFUND_ONLY_HERE = "refund_only_here"
        REFUND_DIFFERS = "refund_differs"
        SUBSCRIPTION_DIFFERS = "subscription_differs"
        BALANCE_DIFFERS = "balance_differs"

    kind = models.CharField(max_length=32, choices=Kind)
    # What it is about: the provider's id, or our own where it knows nothing.
    subject = models.CharField(max_length=255)
    account = models.ForeignKey(
        Account, on_delete=models.PROTECT, null=True, blank=True, related_name="differences"
    )
    # What each side says, in words with amounts.
    ours = models.TextField()
    theirs = models.TextField()
    proposed_action = models.TextField()
    found_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    # It was gone at a later look, or a person said that it is settled, and why.
    settled_at = models.DateTimeField(null=True, blank=True)
    settled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, editable=False
    )
    settled_reason = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=["kind", "subject"],
                condition=Q(settled_at__isnull=True),
                name="difference_is_open_once",
            ),
        )

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.subject}"
