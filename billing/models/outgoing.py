"""What customers' own programs are told: events, where they are sent, and what became of it."""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from billing.models.accounts import Account

LONGEST_URL = 2048
LONGEST_EXCERPT = 1000
"""Characters of an answer that are kept."""
WAITING = Q(delivered_at__isnull=True, given_up_at__isnull=True)
ENABLED = Q(disabled_at__isnull=True, removed_at__isnull=True)


class EventType(models.TextChoices):
    """What events tell of. docs/webhooks.md says what each carries."""

    INVOICE_FINALIZED = "invoice.finalized", "invoice.finalized"
    INVOICE_PAID = "invoice.paid", "invoice.paid"
    INVOICE_PAYMENT_FAILED = "invoice.payment_failed", "invoice.payment_failed"
    SUBSCRIPTION_CHANGED = "subscription.changed", "subscription.changed"
    USAGE_THRESHOLD = "usage.threshold", "usage.threshold"
    BUDGET_REACHED = "budget.reached", "budget.reached"
    BUDGET_CAPPED = "budget.capped", "budget.capped"
    BUDGET_CAP_LIFTED = "budget.cap_lifted", "budget.cap_lifted"
    # A customer's own try of an endpoint.
    PING = "ping", "ping"


class Event(models.Model):
    """Something that happened to an account, as it was then. Written once and never changed.

    The application's database role may not update a row; the sweep of old ones deletes them.
    """

    # Made from type and subject: whoever writes it again meets the same id.
    id = models.UUIDField(primary_key=True, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="events")
    type = models.CharField(max_length=32, choices=EventType)
    # What it tells of, among events of its type: an invoice's transition, a budget's threshold.
    subject_key = models.CharField(max_length=200)
    created_at = models.DateTimeField()
    # Amounts in it are text, with a currency beside them.
    data = models.JSONField()

    class Meta:
        ordering = ("-created_at", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=["type", "subject_key"], name="event_is_written_once_about_a_subject"
            ),
        )
        indexes = (
            models.Index(fields=["account", "-created_at", "-id"], name="events_of_an_account"),
            models.Index(fields=["created_at"], name="events_by_age"),
        )

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class WebhookEndpoint(models.Model):
    """An address of a customer's that events are sent to, signed.

    Its secrets are not in the table: they are made from a seed and SECRET_KEY, and the check says
    with which one.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="webhook_endpoints")
    url = models.CharField(max_length=LONGEST_URL)
    description = models.CharField(max_length=200, blank=True, default="")
    # Empty: every type.
    event_types = ArrayField(
        models.CharField(max_length=32, choices=EventType), blank=True, default=list
    )
    secret_seed = models.CharField(max_length=64, editable=False)
    secret_check = models.CharField(max_length=64, editable=False)  # SHA-256, hexadecimal
    # The secret before a rotation is valid beside the new one until then.
    old_secret_seed = models.CharField(max_length=64, blank=True, default="", editable=False)
    old_secret_check = models.CharField(max_length=64, blank=True, default="", editable=False)
    old_secret_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    # Nothing has been taken since. Empty: the last delivery was taken, or there was none.
    failing_since = models.DateTimeField(null=True, blank=True)
    # How long the last answer took.
    last_took_ms = models.PositiveIntegerField(default=0)
    # Until then a worker sends to it, and no other does.
    claimed_until = models.DateTimeField(null=True, blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    disabled_reason = models.CharField(max_length=200, blank=True, default="")
    # The customer took it away. The row goes with its last delivery.
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at", "-id")
        constraints = (
            models.CheckConstraint(
                condition=Q(disabled_at__isnull=True, disabled_reason="")
                | (Q(disabled_at__isnull=False) & ~Q(disabled_reason="")),
                name="disabled_endpoint_says_why",
            ),
            models.CheckConstraint(
                condition=Q(old_secret_seed="", old_secret_until__isnull=True)
                | (~Q(old_secret_seed="") & Q(old_secret_until__isnull=False)),
                name="old_secret_says_until_when",
            ),
        )

    def __str__(self) -> str:
        return self.url


class Delivery(models.Model):
    """An event on its way to an endpoint. The table is the work list of those who send."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    event = models.ForeignKey(Event, on_delete=models.PROTECT, related_name="deliveries")
    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.PROTECT, related_name="deliveries"
    )
    created_at = models.DateTimeField()
    # Since it was written, or asked for again.
    attempts = models.PositiveSmallIntegerField(default=0)
    # Not before; later after each failure.
    try_at = models.DateTimeField()
    tried_at = models.DateTimeField(null=True, blank=True)
    delivered_at = models.DateTimeField(null=True, blank=True)
    given_up_at = models.DateTimeField(null=True, blank=True)
    # Of the last try. Empty: there was no answer, and last_error says why.
    response_status = models.PositiveSmallIntegerField(null=True, blank=True)
    response_excerpt = models.CharField(max_length=LONGEST_EXCERPT, blank=True, default="")
    last_error = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        ordering = ("-created_at", "-id")
        verbose_name_plural = "deliveries"
        constraints = (
            models.UniqueConstraint(
                fields=["event", "endpoint"], name="event_has_one_delivery_to_an_endpoint"
            ),
            models.CheckConstraint(
                condition=Q(delivered_at__isnull=True) | Q(given_up_at__isnull=True),
                name="delivered_event_is_not_given_up",
            ),
        )
        indexes = (
            models.Index(
                fields=["endpoint", "try_at"], condition=WAITING, name="deliveries_by_turn"
            ),
            models.Index(fields=["endpoint", "-created_at", "-id"], name="deliveries_of_endpoint"),
        )

    def __str__(self) -> str:
        return f"{self.event} to {self.endpoint}"
