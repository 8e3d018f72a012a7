from __future__ import annotations

from django.db import models
from django.db.models import Q

from billing.models.accounts import Account

LONGEST_KEY = 255


class IdempotentCall(models.Model):
    """A POST that was sent with an Idempotency-Key, and what it was answered.

    Kept for a day: a call that is sent again is answered from here and not done again.
    """

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="idempotent_calls")
    key = models.CharField(max_length=LONGEST_KEY)
    # SHA-256 of method, path, query and body, hexadecimal.
    fingerprint = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    # Until then whoever began it is thought to be at it. Null: it was answered.
    claimed_until = models.DateTimeField(null=True, blank=True)
    status = models.PositiveSmallIntegerField(null=True, blank=True)
    # The answer's JSON, without what is shown once only.
    answer = models.TextField(blank=True, default="")

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["account", "key"], name="idempotency_key_is_used_once_by_an_account"
            ),
            models.CheckConstraint(
                condition=Q(claimed_until__isnull=False, status__isnull=True)
                | Q(claimed_until__isnull=True, status__isnull=False),
                name="idempotent_call_is_claimed_or_answered",
            ),
        )
        indexes = (models.Index(fields=["created_at"], name="idempotent_calls_by_age"),)

    def __str__(self) -> str:
        return self.key
