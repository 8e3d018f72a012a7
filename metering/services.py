from __future__ import annotations

from datetime import datetime
from uuid import UUID

from metering.models import AccountRegistration, Host, StreamCursor


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


def register_host(*, host_id: UUID, name: str, endpoint: str, now: datetime) -> Host:
    """Meter the sandboxes of this host from now on. Safe to repeat; the endpoint is replaced."""
    host, _ = Host.objects.update_or_create(
        id=host_id,
        defaults={"name": name, "endpoint": endpoint, "is_active": True},
        create_defaults={"name": name, "endpoint": endpoint, "registered_at": now},
    )
    StreamCursor.objects.get_or_create(host=host)
    return host
