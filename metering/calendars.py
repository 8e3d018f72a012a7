"""The calendars of accounts, as their time zones were registered and changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC
from uuid import UUID
from zoneinfo import ZoneInfo

from metering.days import Calendar
from metering.models import AccountRegistration, FormerTimeZone


def calendars_of(account_ids: Iterable[UUID]) -> dict[UUID, Calendar]:
    """Return the calendars of those of these accounts that are registered.

    Raises ZoneInfoNotFoundError where one of them has a zone that nobody knows.
    """
    # The zones of now first: one that changes in between is then the former one all the time,
    # as it was a moment ago, and not the new one for days long past.
    now = dict(
        AccountRegistration.objects.filter(pk__in=list(account_ids)).values_list("pk", "time_zone")
    )
    former: dict[UUID, list[FormerTimeZone]] = defaultdict(list)
    for row in FormerTimeZone.objects.filter(account__in=list(now)).order_by("until"):
        former[row.account_id].append(row)
    return {
        account_id: Calendar(
            tuple(ZoneInfo(name) for name in (*(f.time_zone for f in former[account_id]), zone)),
            tuple(f.until.astimezone(UTC) for f in former[account_id]),
        )
        for account_id, zone in now.items()
    }


def calendar_of(account_id: UUID) -> Calendar:
    """Return the calendar of one account. Raises AccountRegistration.DoesNotExist."""
    found = calendars_of([account_id])
    if account_id not in found:
        raise AccountRegistration.DoesNotExist(f"Account {account_id} is not registered.")
    return found[account_id]
