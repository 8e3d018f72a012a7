"""What was different before: read again, and settled where it is gone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial

from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection

from payments.models import (
    Collection,
    Difference,
    Dispute,
    FeeSubscription,
    Payment,
    Reconciliation,
    Refund,
)
from payments.provider import NotFoundError
from payments.services.comparing import OUT_OF_REACH, compare_bill, look_for_bill
from payments.services.comparing_money import (
    compare_payment,
    compare_refund,
    look_for_payment,
    look_for_refund,
)
from payments.services.disputes import take_dispute
from payments.services.one_by_one import try_each
from payments.services.provider_subscriptions import take_subscription
from payments.services.providing import provider
from payments.services.refunding import take_refunds

logger = logging.getLogger(__name__)

AT_A_TIME = 200
Kind = Difference.Kind
NOT_OURS = (Kind.SUBSCRIPTION_DIFFERS, Kind.BALANCE_DIFFERS)
"""What found these sees by itself when they are gone."""


def read_open_ones(*, before: datetime, now: datetime) -> int:
    """Read again what is not decided yet at the provider; return how much of it was read.

    Disputes, and subscriptions that were not looked at since `before`. Repeatable.
    """
    open_ones = Dispute.objects.filter(status__in=[Dispute.Status.OPEN, Dispute.Status.INQUIRY])
    disputes = list(open_ones.values_list("provider_id", flat=True)[:AT_A_TIME])
    fees = FeeSubscription.objects.filter(
        provider_id__isnull=False, ended_at__isnull=True, looked_at__lt=before
    )
    subscriptions = [str(one) for one in fees.values_list("provider_id", flat=True)[:AT_A_TIME]]
    try_each(disputes, partial(take_dispute, now=now))
    try_each(subscriptions, partial(take_subscription, now=now))
    still_open = open_ones.filter(provider_id__in=disputes).count()
    return len(disputes) - still_open


def look_again(row: Reconciliation, *, now: datetime) -> bool:
    """Settle differences that are gone at this look; return whether there are more to look at.

    Of what was seen in it already nothing is done. Safe to repeat. Raises ProviderError.
    """
    unseen = Difference.objects.filter(
        settled_at__isnull=True, last_seen_at__lt=row.started_at
    ).exclude(kind__in=NOT_OURS)
    for difference in unseen.order_by("pk")[:AT_A_TIME]:
        this = unseen.filter(pk=difference.pk)
        if _is_readable(difference, now=now):
            gone = f"Gone at the look of {row.started_at:%Y-%m-%d %H:%M} UTC"
            # Where it is there still, it was seen at `now`, and is not among the unseen.
            this.update(settled_at=now, settled_reason=gone)
        else:
            this.update(last_seen_at=now)
    return unseen.exists()


def _is_readable(difference: Difference, *, now: datetime) -> bool:
    """Read what a difference is about; return False where that failed, and says nothing."""
    try:
        _read(difference, now=now)
    except (SoftTimeLimitExceeded, *OUT_OF_REACH):
        raise
    except Exception:
        if not connection.is_usable():
            raise
        logger.exception("difference was not read", extra={"subject": difference.subject})
        return False
    return True


def _read(difference: Difference, *, now: datetime) -> None:
    """Compare once more what a difference is about, so that it is listed again if it is there."""
    subject = difference.subject
    if collection := Collection.objects.filter(provider_id=subject).first():
        look_for_bill(collection, now=now)
    elif payment := Payment.objects.filter(provider_id=subject).first():
        look_for_payment(payment, now=now)
        _unless_unknown(partial(take_refunds, subject, now=now))
    elif refund := Refund.objects.filter(provider_id=subject).first():
        look_for_refund(refund, now=now)
    elif read := _READ.get(Kind(difference.kind)):
        _unless_unknown(partial(read, subject, now))


def _unless_unknown(read: Callable[[], object]) -> None:
    try:
        read()
    except NotFoundError:
        # What the provider does not know any more is no difference.
        return


def _read_bill(subject: str, now: datetime) -> None:
    compare_bill(provider().bill(subject), now=now)


def _read_payment(subject: str, now: datetime) -> None:
    compare_payment(provider().payment(subject), now=now)


def _read_refund(subject: str, now: datetime) -> None:
    compare_refund(provider().refund(subject), now=now)


_READ = {
    Kind.INVOICE_ONLY_THERE: _read_bill,
    Kind.INVOICE_STATE_DIFFERS: _read_bill,
    Kind.TOTALS_DIFFER: _read_bill,
    Kind.PAYMENT_ONLY_THERE: _read_payment,
    Kind.REFUND_ONLY_THERE: _read_refund,
}
