from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from metering.models import AccountRegistration, Host, StreamCursor

ENDPOINT_SCHEMES = ("unix", "tcp", "http", "https", "simulator", "api")
PUSHED = "api:"
"""How the endpoint of a host begins whose samples are sent: nobody collects there."""


def register_account(*, account_id: UUID, time_zone: str, registered_at: datetime) -> None:
    """Let sandboxes of this account be metered. Safe to repeat; a later time zone replaces."""
    AccountRegistration.objects.update_or_create(
        account_id=account_id,
        defaults={"time_zone": time_zone},
        create_defaults={"time_zone": time_zone, "registered_at": registered_at},
    )


def freeze_account(account_id: UUID, *, until: datetime) -> None:
    """Let no growth into windows before `until` any more; it becomes late usage.

    Call it inside a transaction: the row stays locked until that ends, and every aggregation
    that had begun has committed when this returns. A freeze never moves back.
    Raises AccountRegistration.DoesNotExist.
    """
    account = AccountRegistration.objects.select_for_update().get(pk=account_id)
    if account.frozen_until is None or account.frozen_until < until:
        account.frozen_until = until
        account.save(update_fields=["frozen_until"])


class HostRefusedError(ValueError):
    """The host cannot be registered like this; the message names the field and the way out."""


def register_host(*, host_id: UUID, name: str, endpoint: str, now: datetime) -> Host:
    """Meter the sandboxes of this host from now on. Safe to repeat; the endpoint is replaced.

    Raises HostRefusedError.
    """
    scheme = endpoint.partition(":")[0]
    if scheme not in ENDPOINT_SCHEMES:
        raise HostRefusedError(
            f"endpoint {endpoint!r}: it has to begin with one of {', '.join(ENDPOINT_SCHEMES)}."
        )
    if Host.objects.filter(name=name).exclude(pk=host_id).exists():
        raise HostRefusedError(f"name {name!r}: another host has it. Take another name.")
    with transaction.atomic():
        host, _ = Host.objects.get_or_create(
            pk=host_id, defaults={"name": name, "endpoint": endpoint, "registered_at": now}
        )
        if host.endpoint != endpoint:
            host.engine_id = ""  # The next pass asks the engine that is there.
        host.name, host.endpoint, host.is_active = name, endpoint, True
        host.save(update_fields=["name", "endpoint", "is_active", "engine_id"])
        StreamCursor.objects.get_or_create(host=host)
    return host


def note_fold_problem(host_id: UUID, problem: str) -> None:
    """Leave on a host's cursor why its stream could not be folded."""
    StreamCursor.objects.filter(host_id=host_id).update(problem=problem[:500])
