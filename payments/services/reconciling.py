"""Comparing both sides, window by window of time, so that a look that was cut off goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.db.models import F, Q
from django.db.models.functions import Least

from payments.models import (
    Collection,
    Difference,
    Payment,
    Reconciliation,
    Refund,
    WebhookEvent,
)
from payments.provider import (
    ProviderBill,
    ProviderError,
    ProviderEvent,
    ProviderPayment,
    ProviderRefund,
)
from payments.services import applying
from payments.services.comparing import OUT_OF_REACH, compare_bill, look_for_bill
from payments.services.comparing_money import (
    compare_payment,
    compare_refund,
    look_for_payment,
    look_for_refund,
)
from payments.services.differences import Found, note_difference
from payments.services.events import apply_event, receive_event
from payments.services.looking_again import look_again, read_open_ones
from payments.services.providing import provider
from payments.services.stuck import push_stuck

logger = logging.getLogger(__name__)

WINDOW = timedelta(hours=1)
"""Of time that is compared at once: a look that is cut off begins with its window again."""
LONG_WINDOW = timedelta(hours=6)
SHORTEST_WINDOW = timedelta(seconds=10)
"""A window that took too long is halved, time and again, but not below."""
MOST_HALVINGS = 12
LONG_AGO = timedelta(days=2)
"""Before then by LONG_WINDOW: a look over a month would ask 3,000 times else."""
EVERY = timedelta(hours=24)
OVERLAP = timedelta(days=1)
"""The next look begins so long before the last one did."""
EVENTS_KEPT = timedelta(days=30)
"""By the provider. Further back only what there is now is compared."""
LEASE = timedelta(minutes=5)
EVENTS_AT_A_TIME = 100
Kind = Difference.Kind
One = TypeVar("One")


@dataclass(frozen=True, slots=True)
class Compared:
    """How many things of a kind were compared, and how many of them were put right."""

    count: int
    healed: int


def begin_reconciliation(*, since: datetime | None, now: datetime) -> Reconciliation:
    """Begin to compare what was made at the provider since then, or go on with it.

    None: since a day before the last whole look began, or 30 days. One that was begun in the last
    24 h and not ended is gone on with. Safe to repeat.
    """
    unfinished = Reconciliation.objects.filter(ended_at__isnull=True)
    going_on = unfinished.filter(started_at__gt=now - EVERY)
    if since:
        going_on = going_on.filter(since=since)
    if row := going_on.first():
        return row
    unfinished.filter(started_at__lte=now - EVERY).update(
        ended_at=now, error="It was not ended within a day; another took its place."
    )
    since = since or _usual_since(now)
    return Reconciliation.objects.create(started_at=now, since=since, reached=min(since, now))


def rehearse_reconciliation(*, since: datetime | None, now: datetime) -> Reconciliation:
    """Return the look that `begin_reconciliation` would return, and store nothing."""
    unfinished = Reconciliation.objects.filter(ended_at__isnull=True, started_at__gt=now - EVERY)
    if since:
        unfinished = unfinished.filter(since=since)
    since = since or _usual_since(now)
    return unfinished.first() or Reconciliation(started_at=now, since=since)


def due_reconciliation(now: datetime) -> int | None:
    """Return the look that is to be gone on with; one begins a day after the last one did."""
    last = Reconciliation.objects.first()
    if last and last.ended_at and last.started_at > now - EVERY:
        return None
    return begin_reconciliation(since=None, now=now).pk


def take_look(reconciliation_id: int, *, now: datetime) -> bool:
    """Compare the next window; return whether there is more, False also when somebody has it.

    Safe to repeat; a worker that dies in it, or is out of time, is followed by another, which
    compares half as much. Raises ProviderError, with which it stands still until the next call.
    """
    free = Q(claimed_until__isnull=True) | Q(claimed_until__lte=now)
    rows = Reconciliation.objects.filter(pk=reconciliation_id, ended_at__isnull=True)
    # Taken back at the end: who does not come to that has found the window too long.
    claimed = {"claimed_until": now + LEASE, "halvings": Least(F("halvings") + 1, MOST_HALVINGS)}
    if not rows.filter(free).update(**claimed):
        return False
    row = rows.get()
    try:
        is_done = _finish(row, now=now) if row.reached >= row.started_at else _go_on(row, now=now)
    except ProviderError as error:
        rows.update(error=str(error), claimed_until=None, halvings=row.halvings - 1)
        raise
    # Twice as much the next time, up to a whole window.
    Reconciliation.objects.filter(pk=row.pk).update(
        error="", claimed_until=None, halvings=max(row.halvings - 2, 0)
    )
    return not is_done


def _usual_since(now: datetime) -> datetime:
    whole = Reconciliation.objects.filter(ended_at__isnull=False, error="").first()
    earliest = now - EVENTS_KEPT
    return max(whole.started_at - OVERLAP, earliest) if whole else earliest


def _go_on(row: Reconciliation, *, now: datetime) -> bool:
    """Compare a window; return whether all is done, which it never is then."""
    start = row.reached
    window = LONG_WINDOW if start < row.started_at - LONG_AGO else WINDOW
    window = max(window / 2 ** (row.halvings - 1), SHORTEST_WINDOW)
    end = min(start + window, row.started_at)
    # The last one has no end: what is made in this moment belongs to it, whatever the clocks say.
    until = end if end < row.started_at else None
    fetched = _fetch_events(start, until, now=now)
    bills = _compare_bills(start, until, now=now)
    payments = _compare_payments(start, until, now=now)
    refunds = _compare_refunds(start, until, now=now)
    healed = bills.healed + payments.healed + refunds.healed
    Reconciliation.objects.filter(pk=row.pk).update(
        reached=end,
        events_fetched=F("events_fetched") + fetched,
        invoices_compared=F("invoices_compared") + bills.count,
        payments_compared=F("payments_compared") + payments.count,
        refunds_compared=F("refunds_compared") + refunds.count,
        healed=F("healed") + healed,
    )
    return False


def _finish(row: Reconciliation, *, now: datetime) -> bool:
    """Push what is stuck, and look again at what was different; return whether that was all."""
    healed = push_stuck(now=now) + read_open_ones(before=row.started_at, now=now)
    Reconciliation.objects.filter(pk=row.pk).update(healed=F("healed") + healed)
    if look_again(row, now=now):
        return False
    is_open = Difference.objects.filter(settled_at__isnull=True)
    Reconciliation.objects.filter(pk=row.pk).update(ended_at=now, differences=is_open.count())
    return True


def _fetch_events(since: datetime, until: datetime | None, *, now: datetime) -> int:
    """Store and apply the events that did not come; return how many there were."""
    since = max(since, now - EVENTS_KEPT)
    if until and until <= since:
        return 0
    fetched, some = 0, list[ProviderEvent]()
    for event in provider().events(since=since, until=until, only_undelivered=False):
        if applying.is_known(event.type):
            some.append(event)
        if len(some) == EVENTS_AT_A_TIME:
            fetched += _take_events(some, now=now)
            some.clear()
    return fetched + _take_events(some, now=now)


def _take_events(told: Iterable[ProviderEvent], *, now: datetime) -> int:
    events = {event.id: event for event in told}
    stored = WebhookEvent.objects.filter(event_id__in=events)
    missing = events.keys() - set(stored.values_list("event_id", flat=True))
    for event_id in missing:
        receive_event(events[event_id], source=WebhookEvent.Source.FETCHED, now=now)
        apply_event(event_id, now=now)
    return len(missing)


def _compare_bills(since: datetime, until: datetime | None, *, now: datetime) -> Compared:
    def compare(bill: ProviderBill) -> bool:
        return compare_bill(bill, now=now)

    told, seen = _each(
        provider().bills(since=since, until=until), compare, Kind.INVOICE_STATE_DIFFERS, now=now
    )
    ours = _between(
        Q(provider_id__isnull=False) & ~Q(provider_id__in=seen), "started_at", since, until
    )
    missing, _ = _each(
        Collection.objects.filter(ours).iterator(),
        lambda one: look_for_bill(one, now=now),
        Kind.INVOICE_STATE_DIFFERS,
        now=now,
    )
    return _sum(told, missing)


def _compare_payments(since: datetime, until: datetime | None, *, now: datetime) -> Compared:
    def compare(payment: ProviderPayment) -> bool:
        return compare_payment(payment, now=now)

    told, seen = _each(
        provider().payments(since=since, until=until), compare, Kind.PAYMENT_ONLY_THERE, now=now
    )
    ours = _between(
        Q(provider_id__isnull=False) & ~Q(provider_id__in=seen), "received_at", since, until
    )
    missing, _ = _each(
        Payment.objects.filter(ours).iterator(),
        lambda one: look_for_payment(one, now=now),
        Kind.PAYMENT_ONLY_HERE,
        now=now,
    )
    return _sum(told, missing)


def _compare_refunds(since: datetime, until: datetime | None, *, now: datetime) -> Compared:
    def compare(refund: ProviderRefund) -> bool:
        return compare_refund(refund, now=now)

    told, seen = _each(
        provider().refunds(since=since, until=until), compare, Kind.REFUND_ONLY_THERE, now=now
    )
    ours = _between(
        Q(provider_id__isnull=False) & ~Q(provider_id__in=seen), "proposed_at", since, until
    )
    missing, _ = _each(
        Refund.objects.filter(ours).select_related("payment").iterator(),
        lambda one: look_for_refund(one, now=now),
        Kind.REFUND_ONLY_HERE,
        now=now,
    )
    return _sum(told, missing)


def _each(
    ones: Iterable[One], compare: Callable[[One], bool], kind: Kind, *, now: datetime
) -> tuple[Compared, list[str]]:
    """Compare each; one that cannot be compared is listed, and stops only itself.

    Returns how many, and their ids at the provider.
    """
    seen, healed = [], 0
    for one in ones:
        subject = str(getattr(one, "provider_id", None) or getattr(one, "id", ""))
        seen.append(subject)
        try:
            healed += compare(one)
        except (SoftTimeLimitExceeded, *OUT_OF_REACH):
            raise
        except Exception as error:
            if not connection.is_usable():
                raise
            logger.exception("it was not compared", extra={"subject": subject})
            found = Found(
                kind=kind,
                subject=subject,
                account_id=getattr(one, "account_id", None),
                ours="It could not be compared",
                theirs=f"{type(error).__name__}: {error}"[:500],
                proposed_action="Look at it there. It is compared again at the next look.",
            )
            note_difference(found, now=now)
    return Compared(len(seen), healed), seen


def _between(condition: Q, column: str, since: datetime, until: datetime | None) -> Q:
    condition &= Q(**{f"{column}__gte": since})
    return condition & Q(**{f"{column}__lt": until}) if until else condition


def _sum(first: Compared, second: Compared) -> Compared:
    return Compared(first.count + second.count, first.healed + second.healed)
