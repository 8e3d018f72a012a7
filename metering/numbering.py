"""The numbers of a host's batches, which do not come again whatever became of Redis.

A Redis that was killed, or whose disk was cut off, comes up without its newest batches and without
their numbers. Were these given again, nobody would see that batches are missing: what still runs
catches up, but lives that ended in them would lose their last time without a gap.
"""

from __future__ import annotations

from django.db.models import F
from django.db.models.functions import Greatest

from metering import stream
from metering.models import Host
from metering.samples import Batch


def append(host: Host, batch: Batch) -> None:
    """Append a batch, numbered above all that the host is known to have, and remember its number.

    Raises StreamUnavailableError.
    """
    entry = stream.append(host.pk, batch, after=host.appended_sequence)
    host.appended_sequence = entry.sequence


def appended(host: Host) -> dict[str, Greatest]:
    """Return what to update the host's row with, so that its numbers stay known."""
    return {"appended_sequence": Greatest(F("appended_sequence"), host.appended_sequence)}
