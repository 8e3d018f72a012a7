"""What a host's engine is asked once, and seldom again: who it is, and what it offers."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from metering.models import Host
from metering.source import Source, SourceError

# What a host offers hardly changes; it is asked again after so many passes.
OFFER_EVERY_PASSES = 1000


def claim_engine(host: Host, source: Source) -> None:
    """Make the engine this host's own. Metered as two hosts, each container would bill twice.

    Raises SourceError when another active host has it.
    """
    if host.engine_id or not (engine_id := source.engine_id()):
        return
    try:
        with transaction.atomic():
            Host.objects.filter(pk=host.pk).update(engine_id=engine_id)
    except IntegrityError:
        other = Host.objects.filter(engine_id=engine_id, is_active=True).first()
        raise SourceError(
            f"The engine at {host.endpoint} is metered as host {other} already. Set one of the "
            "two not active."
        ) from None


def ask_offer(host: Host, source: Source) -> None:
    """Have the host's row say what a sandbox without limits may take of it."""
    if host.cpu_micro is not None and host.pass_count % OFFER_EVERY_PASSES:
        return
    offer = source.offer()
    host.cpu_micro, host.memory_bytes = offer.cpu_micro, offer.memory_bytes
    if offer.gpu_count is not None:
        host.gpu_count = offer.gpu_count
    host.save(update_fields=["cpu_micro", "memory_bytes", "gpu_count"])
