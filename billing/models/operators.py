from __future__ import annotations

from django.db import models


class OperatorKey(models.Model):
    """An operator's key to the routes under /admin/. The key itself is shown once and not kept."""

    name = models.CharField(max_length=100)
    # The first characters, for people to tell keys apart; too few to guess the rest.
    prefix = models.CharField(max_length=20)
    key_hash = models.CharField(max_length=64, editable=False)  # SHA-256, hexadecimal
    created_at = models.DateTimeField()
    # To the minute: a write at every request would cost more than it tells.
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at",)
        constraints = (
            models.UniqueConstraint(fields=["key_hash"], name="operator_key_hash_is_unique"),
            # Who did it is told by the name, so no two keys in use share one.
            models.UniqueConstraint(
                fields=["name"],
                condition=models.Q(revoked_at__isnull=True),
                name="operator_keys_in_use_differ_in_name",
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
