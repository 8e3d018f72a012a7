from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID
from zoneinfo import available_timezones

from django.db import connection, transaction

from metering.log_lines import log_committed
from metering.models import AccountRegistration, FormerTimeZone, Host, StreamCursor
from metering.period import window_start
from metering.summaries import touch_days_since

logger = logging.getLogger(__name__)

ENDPOINT_SCHEMES = ("unix", "tcp", "http", "https", "simulator", "api")
PUSHED = "api:"
"""How the endpoint of a host begins whose samples are sent: nobody collects there."""


def register_account(*, account_id: UUID, time_zone: str, registered_at: datetime) -> None:
    """Let sandboxes of this account be metered. Safe to repeat: what it finds stays as it is.

    Another time zone needs `change_time_zone`, since days are summarised by the first.
    """
    AccountRegistration.objects.get_or_create(
        account_id=account_id, defaults={"time_zone": time_zone, "registered_at": registered_at}
    )


def close_account(account_id: UUID, *, now: datetime) -> None:
    """Record no life of the account that starts from now on. Safe to repeat: the first time stays.

    What runs is metered to its end.
    """
    AccountRegistration.objects.filter(pk=account_id, closes_from=None).update(closes_from=now)


class TimeZoneRefusedError(ValueError):
    """There is no such time zone; the message names it."""


@transaction.atomic
def change_time_zone(account_id: UUID, *, time_zone: str, now: datetime) -> None:
    """Let an account's local days be those of another time zone, from the window of `now` on.

    Days that are over stay as they were; `days.Calendar` has the rule. Summaries of days since
    then follow with the next hourly run. Safe to repeat: the zone an account has is no change.
    Raises TimeZoneRefusedError, AccountRegistration.DoesNotExist.
    """
    if time_zone not in available_timezones():
        raise TimeZoneRefusedError(f"time_zone {time_zone!r} is not an IANA time zone.")
    account = _lock(account_id)
    if account.time_zone == time_zone:
        return
    last = account.former_time_zones.order_by("until").last()
    # Never before the last change: another worker's clock may be ahead of this one's.
    since = max(window_start(now), last.until) if last else window_start(now)
    FormerTimeZone.objects.get_or_create(
        account=account, until=since, defaults={"time_zone": account.time_zone}
    )
    account.time_zone = time_zone
    account.save(update_fields=["time_zone"])
    touch_days_since(account_id, since)


def freeze_account(account_id: UUID, *, until: datetime) -> None:
    """Let no growth into windows before `until` any more; it becomes late usage.

    Call it inside a transaction: the row stays locked until that ends, and every aggregation
    that had begun has committed when this returns. A freeze never moves back.
    Raises AccountRegistration.DoesNotExist.
    """
    freeze_accounts({account_id: until})


def freeze_accounts(until: Mapping[UUID, datetime]) -> None:
    """Freeze each account as `freeze_account` does, up to its own moment."""
    accounts = list(
        AccountRegistration.objects.select_for_update(no_key=True)
        .filter(pk__in=until)
        # In one order for everybody, so that two that freeze do not wait for each other.
        .order_by("pk")
    )
    if missing := until.keys() - {account.pk for account in accounts}:
        raise AccountRegistration.DoesNotExist(f"Account {min(missing)} is not registered.")
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE metering_accountregistration account SET frozen_until = wanted.until
              FROM unnest(%s::uuid[], %s::timestamptz[]) AS wanted (account_id, until)
             WHERE account.account_id = wanted.account_id
               AND (account.frozen_until IS NULL OR account.frozen_until < wanted.until)
            """,
            [list(until), list(until.values())],
        )


def _lock(account_id: UUID) -> AccountRegistration:
    # Folds and summaries share this lock, so it waits for them. Rows that only refer to the
    # account, as a new sandbox does, are written meanwhile.
    return AccountRegistration.objects.select_for_update(no_key=True).get(pk=account_id)


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
    for what, text, longest in (("name", name, 64), ("endpoint", endpoint, 500)):
        if not (text.strip() and text.isprintable() and len(text) <= longest):
            raise HostRefusedError(f"{what}: give it 1 to {longest} printable characters.")
    if Host.objects.filter(name=name).exclude(pk=host_id).exists():
        raise HostRefusedError(f"name {name!r}: another host has it. Take another name.")
    with transaction.atomic():
        host, is_new = Host.objects.get_or_create(
            pk=host_id, defaults={"name": name, "endpoint": endpoint, "registered_at": now}
        )
        if host.endpoint != endpoint:
            host.engine_id = ""  # The next pass asks the engine that is there.
        host.name, host.endpoint, host.is_active = name, endpoint, True
        host.save(update_fields=["name", "endpoint", "is_active", "engine_id"])
        StreamCursor.objects.get_or_create(host=host)
        if is_new:
            log_committed(logger, "host added", host_id=host.pk, host=host.name)
    return host


def note_fold_problem(host_id: UUID, problem: str) -> None:
    """Leave on a host's cursor why its stream could not be folded."""
    StreamCursor.objects.filter(host_id=host_id).update(problem=problem[:500])
