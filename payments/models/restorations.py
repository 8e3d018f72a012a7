from __future__ import annotations

from django.db import models


class Restoration(models.Model):
    """That the database was put back to an earlier state, by a backup or to a point in time.

    What is older than this may have been asked of the provider without our knowing of it.
    """

    restored_at = models.DateTimeField()

    class Meta:
        ordering = ("-restored_at",)
        default_permissions = ()

    def __str__(self) -> str:
        return f"Restored {self.restored_at:%Y-%m-%d %H:%M}"
