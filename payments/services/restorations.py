"""Whether the database was put back to an earlier state, and since when."""

from __future__ import annotations

from datetime import datetime

from payments.models import Restoration


def note_restoration(now: datetime) -> None:
    """Write down that the database was put back to an earlier state."""
    Restoration.objects.create(restored_at=now)


def was_restored_after(moment: datetime) -> bool:
    """Return whether what is as old as `moment` may be forgotten here, and known there."""
    return Restoration.objects.filter(restored_at__gt=moment).exists()
