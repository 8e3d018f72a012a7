from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from metering.models.hosts import AccountRegistration, Host

SCOPE_NAMES = ["samples", "collect"]


class MeteringKey(models.Model):
    """A runtime's key to the sample API. The key itself is shown once and not kept."""

    class Scope(models.TextChoices):
        """What a key may be used for."""

        SAMPLES = "samples", "send samples"
        COLLECT = "collect", "ask for a last reading"

    # Its samples go through this host's stream.
    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="metering_keys")
    # Null: it may speak of every account.
    account = models.ForeignKey(
        AccountRegistration,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="metering_keys",
    )
    name = models.CharField(max_length=100)
    scopes = ArrayField(models.CharField(max_length=16, choices=Scope))
    # The first characters, for people to tell keys apart; too few to guess the rest.
    prefix = models.CharField(max_length=20)
    key_hash = models.CharField(max_length=64, editable=False)  # SHA-256, hexadecimal
    created_at = models.DateTimeField()
    # To the minute: a write at every request would cost more than it tells.
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.UniqueConstraint(fields=["key_hash"], name="metering_key_hash_is_unique"),
            models.CheckConstraint(
                condition=Q(scopes__len__gt=0, scopes__contained_by=SCOPE_NAMES),
                name="metering_key_has_scopes_that_exist",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
