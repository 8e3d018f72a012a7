from __future__ import annotations

from django.db import models
from django.db.models import Q


class WebhookEvent(models.Model):
    """Something that the provider says happened. Stored once, answered, and applied after.

    What it holds only names the object; the object itself is read again when it is applied.
    """

    class Status(models.TextChoices):
        RECEIVED = "received"
        APPLIED = "applied"
        # Of a kind that changes nothing here, or about nothing of ours.
        IGNORED = "ignored"
        # It was tried often enough; a person has to look.
        FAILED = "failed"

    class Source(models.TextChoices):
        WEBHOOK = "webhook"
        # Asked for, because it was not delivered.
        FETCHED = "fetched"

    event_id = models.CharField(max_length=255, unique=True)
    type = models.CharField(max_length=100)
    # What it is about: `invoice` and `in_...`.
    object_type = models.CharField(max_length=64, blank=True, default="")
    object_id = models.CharField(max_length=255, blank=True, default="")
    api_version = models.CharField(max_length=32, blank=True, default="")
    is_live_mode = models.BooleanField()
    source = models.CharField(max_length=16, choices=Source)
    # When it happened, as the provider says; and when we learned it.
    happened_at = models.DateTimeField()
    received_at = models.DateTimeField()
    # As it came, for people to read.
    body = models.JSONField()
    status = models.CharField(max_length=16, choices=Status, default=Status.RECEIVED)
    # What became of it, in words.
    result = models.TextField(blank=True, default="")
    applied_at = models.DateTimeField(null=True, blank=True)
    tries = models.PositiveSmallIntegerField(default=0)
    try_at = models.DateTimeField()
    claimed_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-received_at", "-id")
        permissions = (("replay_webhookevent", "Can apply webhook event again"),)
        constraints = (
            models.CheckConstraint(
                condition=Q(status="applied", applied_at__isnull=False)
                | (~Q(status="applied") & Q(applied_at__isnull=True)),
                name="applied_event_says_when",
            ),
        )
        indexes = (
            models.Index(fields=["try_at"], condition=Q(status="received"), name="events_by_turn"),
            # Few of all: what a monitor counts.
            models.Index(
                fields=["status"],
                condition=Q(status__in=["received", "failed"]),
                name="events_that_wait_or_failed",
            ),
            models.Index(fields=["object_id"], name="events_by_object"),
            models.Index(fields=["-received_at"], name="events_by_arrival"),
        )

    def __str__(self) -> str:
        return f"{self.type} {self.event_id}"
