"""What the reports of a month share: its invoices, account by account, and whose plan it was."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, datetime
from itertools import islice
from typing import TypeVar
from uuid import UUID

from django.db.models import Q
from django.db.models.query import QuerySet

from billing.facts import DEFAULT_PLAN
from billing.lifecycle import NOT_FINAL
from billing.models import Account, Invoice, Subscription
from billing.reports.month import Month
from metering.calendars import calendars_of
from metering.days import Calendar
from metering.period import Period

CHUNK = 500
"""So many accounts or invoices are held at once."""

T = TypeVar("T")


def in_chunks(rows: Iterable[T]) -> Iterator[list[T]]:
    """Yield the rows in lists of at most CHUNK."""
    left = iter(rows)
    while chunk := list(islice(left, CHUNK)):
        yield chunk


def invoices_starting_in(month: Month) -> QuerySet[Invoice]:
    """Return final invoices that may be of the month: those of all time zones."""
    around = month.around
    return (
        Invoice.objects.filter(period_start__gte=around.start, period_start__lt=around.end)
        .exclude(status__in=NOT_FINAL)
        .select_related("account")
    )


def final_invoices(month: Month) -> Iterator[list[Invoice]]:
    """Yield the final invoices of the month in chunks, by account.

    An invoice is of the month in which its period starts on the account's calendar of then.
    """
    ordered = invoices_starting_in(month).order_by("account__name", "account_id", "pk")
    for chunk in in_chunks(ordered.iterator(chunk_size=CHUNK)):
        days = Days({invoice.account for invoice in chunk})
        yield [i for i in chunk if month.holds(days.of(i.account_id, i.period_start))]


class Days:
    """The local days of some accounts, as their time zones were at each time."""

    def __init__(self, accounts: Collection[Account]) -> None:
        calendars = calendars_of(account.pk for account in accounts)
        self._calendars = {
            account.pk: calendars.get(account.pk) or Calendar((account.cycle.zone,))
            for account in accounts
        }

    def of(self, account_id: UUID, moment: datetime) -> date:
        """Return the account's local day that a moment belonged to."""
        return self._calendars[account_id].day_of(moment)


class Plans:
    """Which plans some accounts were on, and when."""

    def __init__(self, account_ids: Collection[UUID], span: Period) -> None:
        rows = (
            Subscription.objects.filter(account__in=account_ids, started_at__lt=span.end)
            .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=span.start))
            .order_by("started_at")
            .values_list("account_id", "started_at", "expires_at", "plan__code")
        )
        spans: defaultdict[UUID, list[tuple[datetime, datetime | None, str]]] = defaultdict(list)
        for account_id, start, end, code in rows:
            spans[account_id].append((start, end, code))
        self._spans: Mapping[UUID, list[tuple[datetime, datetime | None, str]]] = spans

    def at(self, account_id: UUID, moment: datetime) -> str:
        """Return the code of the plan whose prices held at a moment."""
        spans = self._spans.get(account_id, [])
        at = bisect_right(spans, moment, key=lambda span: span[0]) - 1
        if at >= 0:
            _, end, code = spans[at]
            if end is None or end > moment:
                return code
        return DEFAULT_PLAN

    def within(self, account_id: UUID, period: Period) -> str:
        """Return the codes of the period's plans, in order."""
        codes = [
            code
            for start, end, code in self._spans.get(account_id, [])
            if start < period.end and (end is None or end > period.start)
        ]
        return "; ".join(dict.fromkeys(codes)) or DEFAULT_PLAN
