"""Asking for money: one invoice at the provider, the tries to have it paid, what was said."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from billing.models import Account, Invoice, TopUp
from billing.models.columns import amount_column, currency_column, has_known_currency

LIVE_COLLECTION = Q(status__in=["preparing", "open"])
LIVE_ATTEMPT = Q(status__in=["pending", "unknown", "processing"])


class Collection(models.Model):
    """What one invoice at the provider asks an account for: invoices of ours, or a top-up.

    Mostly one invoice. One below the provider's smallest charge waits, and is asked for with the
    next. The id is part of the idempotency keys of every call that makes it.
    """

    class Status(models.TextChoices):
        # Not all of it is at the provider yet.
        PREPARING = "preparing"
        # Final at the provider, and asks for exactly what we ask for.
        OPEN = "open"
        PAID = "paid"
        # Taken back at the provider: what it asked for changed, or is not owed any more.
        VOID = "void"
        # The provider does not ask for what we ask for, or would not have it: nothing was paid.
        # Its parts stay live, so that nothing is collected until a person has looked.
        REFUSED = "refused"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="collections")
    status = models.CharField(max_length=16, choices=Status, default=Status.PREPARING)
    amount = amount_column()
    currency = currency_column()
    # The provider's invoice, its number there, and the page where the customer can pay it.
    provider_id = models.CharField(max_length=100, null=True, blank=True, unique=True)
    provider_number = models.CharField(max_length=64, blank=True, default="")
    hosted_url = models.TextField(blank=True, default="")
    started_at = models.DateTimeField()
    opened_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    # It is to be taken back at the provider, and why.
    void_reason = models.CharField(max_length=200, blank=True, default="")
    # The provider was told that nobody expects the money any more; it may be paid all the same.
    written_off_at = models.DateTimeField(null=True, blank=True)
    # Until then it belongs to the worker that has it.
    claimed_until = models.DateTimeField(null=True, blank=True)
    # Its next step is due then; later after each failure that is not the customer's. Empty:
    # nothing is to be done until something changes.
    try_at = models.DateTimeField(null=True, blank=True)
    failures = models.PositiveSmallIntegerField(default=0)
    # What stands in the way, in words.
    waiting_for = models.TextField(blank=True, default="")

    class Meta:
        ordering = ("-started_at",)
        constraints = (
            models.CheckConstraint(condition=Q(amount__gt=0), name="collection_asks_for_something"),
            models.CheckConstraint(
                condition=Q(status__in=["preparing", "void", "refused"])
                | Q(provider_id__isnull=False, opened_at__isnull=False),
                name="open_collection_is_known_at_the_provider",
            ),
            models.CheckConstraint(
                condition=(LIVE_COLLECTION & Q(ended_at__isnull=True))
                | (~LIVE_COLLECTION & Q(ended_at__isnull=False)),
                name="ended_collection_says_when",
            ),
            has_known_currency("collection_currency_is_one_of_iso_4217"),
        )
        indexes = (
            models.Index(
                fields=["try_at"],
                condition=LIVE_COLLECTION & Q(try_at__isnull=False),
                name="collections_by_turn",
            ),
            # Few of all: what a monitor counts.
            models.Index(
                fields=["status"],
                condition=Q(status__in=["preparing", "open", "refused"]),
                name="collections_that_are_not_over",
            ),
        )

    def __str__(self) -> str:
        return self.provider_number or f"Collection {str(self.pk)[:8]}"


class CollectionPart(models.Model):
    """An invoice or a top-up that a collection asks for, and how much of it."""

    collection = models.ForeignKey(Collection, on_delete=models.PROTECT, related_name="parts")
    position = models.PositiveSmallIntegerField()
    invoice = models.ForeignKey(
        Invoice, on_delete=models.PROTECT, null=True, blank=True, related_name="collection_parts"
    )
    top_up = models.ForeignKey(
        TopUp, on_delete=models.PROTECT, null=True, blank=True, related_name="collection_parts"
    )
    amount = amount_column()
    # Whether its collection is still to be paid.
    is_live = models.BooleanField(default=True)

    class Meta:
        ordering = ("position",)
        constraints = (
            models.UniqueConstraint(
                fields=["invoice"],
                condition=Q(is_live=True),
                name="invoice_is_collected_once_at_a_time",
            ),
            models.UniqueConstraint(
                fields=["top_up"],
                condition=Q(is_live=True),
                name="top_up_is_collected_once_at_a_time",
            ),
            models.UniqueConstraint(
                fields=["collection", "position"], name="parts_of_a_collection_have_an_order"
            ),
            models.CheckConstraint(
                condition=Q(invoice__isnull=False, top_up__isnull=True)
                | Q(invoice__isnull=True, top_up__isnull=False),
                name="collection_part_is_an_invoice_or_a_top_up",
            ),
            models.CheckConstraint(
                condition=Q(amount__gt=0), name="collection_part_asks_for_something"
            ),
        )

    def __str__(self) -> str:
        return str(self.invoice or f"Top-up {self.top_up_id}")


class PaymentAttempt(models.Model):
    """One try to have a collection paid. Its number is part of the payment's idempotency key."""

    class Status(models.TextChoices):
        # Nothing was asked yet.
        PENDING = "pending"
        # It was asked, and no answer came: looked up before anything else happens.
        UNKNOWN = "unknown"
        # The provider has it, and will say.
        PROCESSING = "processing"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        # The customer has to confirm it, on the provider's page.
        ACTION_REQUIRED = "action_required"
        # Its collection was taken back first.
        ABANDONED = "abandoned"

    class Trigger(models.TextChoices):
        """Why it was made."""

        FINALISED = "finalised"
        SCHEDULE = "schedule"
        STAFF = "staff"
        CUSTOMER = "customer"
        NEW_CARD = "new_card"
        TOP_UP = "top_up"

    collection = models.ForeignKey(Collection, on_delete=models.PROTECT, related_name="attempts")
    number = models.PositiveSmallIntegerField()
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    trigger = models.CharField(max_length=16, choices=Trigger)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, editable=False
    )
    # What was to be charged, as the provider names it. Empty: the customer had nothing.
    method_id = models.CharField(max_length=100, blank=True, default="")
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    # Why it failed, as the provider says: `card_declined`, and `insufficient_funds`.
    failure_code = models.CharField(max_length=64, blank=True, default="")
    decline_code = models.CharField(max_length=64, blank=True, default="")
    failure_message = models.TextField(blank=True, default="")

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=["collection"],
                condition=LIVE_ATTEMPT,
                name="collection_has_one_live_attempt",
            ),
            models.UniqueConstraint(
                fields=["collection", "number"], name="attempts_of_a_collection_are_numbered"
            ),
            models.CheckConstraint(
                condition=(LIVE_ATTEMPT & Q(ended_at__isnull=True))
                | (~LIVE_ATTEMPT & Q(ended_at__isnull=False)),
                name="ended_attempt_says_when",
            ),
        )
        indexes = (
            # A monitor asks for the last 30 days each time.
            models.Index(
                fields=["ended_at"],
                condition=Q(ended_at__isnull=False),
                include=["status"],
                name="attempts_by_end",
            ),
        )

    def __str__(self) -> str:
        return f"{self.collection}, attempt {self.number}"


class ProviderCall(models.Model):
    """A call that changes something at the provider, written down before it is made.

    Its key is the call's idempotency key. Secrets are not kept.
    """

    class Outcome(models.TextChoices):
        # Not answered: the provider may have done it, or may be about to.
        OPEN = "open"
        # Answered with a failure of the provider's own: it may have done it, and is at its end.
        BROKEN = "broken"
        DONE = "done"
        # The provider said no, and did nothing.
        REFUSED = "refused"

    key = models.CharField(max_length=200, unique=True)
    operation = models.CharField(max_length=64)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="provider_calls")
    # Empty: it is about neither.
    collection = models.ForeignKey(
        Collection, on_delete=models.PROTECT, null=True, blank=True, related_name="calls"
    )
    attempt = models.ForeignKey(
        PaymentAttempt, on_delete=models.PROTECT, null=True, blank=True, related_name="calls"
    )
    refund = models.ForeignKey(
        "payments.Refund", on_delete=models.PROTECT, null=True, blank=True, related_name="calls"
    )
    outcome = models.CharField(max_length=16, choices=Outcome, default=Outcome.OPEN)
    # How often it was made under this key.
    times = models.PositiveSmallIntegerField(default=0)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    answered_at = models.DateTimeField(null=True, blank=True)
    # What was asked and answered, for people to read; nothing is computed from it.
    asked = models.JSONField(default=dict, blank=True)
    answered = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ("-id",)
        indexes = (models.Index(fields=["outcome", "last_at"], name="calls_by_outcome"),)

    def __str__(self) -> str:
        return f"{self.operation} ({self.outcome})"
