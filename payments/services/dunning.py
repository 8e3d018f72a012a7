"""Where an account stands whose payments fail: its cases, and what follows from them.

Everything here is worked out anew from the account's invoices, so it may be called at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from billing.history import BILLING_A_PERIOD
from billing.lifecycle import InvoiceStatus
from billing.models import Account, Invoice
from billing.services import lock_account
from payments.dunning_queries import current_schedule, done_step
from payments.dunning_schedule import Schedule
from payments.models import Customer, DunningCase, PlatformRequest
from payments.services.capping import is_capped
from payments.services.customers import customer_of
from payments.services.notices import tell_of_paid, tell_of_suspension
from payments.services.platform_requests import ask_platform

IN_ARREARS = (InvoiceStatus.PAYMENT_FAILED, InvoiceStatus.PENDING_RETRY)
"""An invoice in one of these has a case."""
OLD_NEWS = timedelta(days=1)
"""A failure from before this is counted from now: there was no schedule, and nobody was told."""
Ending = DunningCase.Ending
Standing = Customer.Standing
_ENDINGS = {
    InvoiceStatus.PAID: Ending.PAID,
    InvoiceStatus.UNCOLLECTIBLE: Ending.WRITTEN_OFF,
    InvoiceStatus.VOID: Ending.VOID,
}
HOLDING = Q(suspended_at__isnull=False) & (
    Q(closed_at__isnull=True)
    | Q(ending=Ending.WRITTEN_OFF, invoice__status=InvoiceStatus.UNCOLLECTIBLE)
)
"""Cases that keep an account suspended: open, or written off and not paid since."""


def refresh_account(account_id: UUID, *, now: datetime) -> None:
    """Bring an account's cases, its standing and what the platform is asked up to date.

    Safe to repeat. An invoice whose payment failed has a case until it is paid, void or written
    off. Raises Account.DoesNotExist.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        if not _may_be_in_arrears(account):
            return
        closed = _close_cases(account, now=now)
        _open_cases(account, now=now)
        _take_standing(account, closed, now=now)


def suspend(case: DunningCase, *, now: datetime) -> None:
    """Suspend the case's account until all that is in arrears now is paid. Safe to repeat.

    The caller has locked the account.
    """
    account = case.invoice.account
    _open_cases_of(account).filter(suspended_at__isnull=True).update(suspended_at=now)
    _take_standing(account, [], now=now)


def plan(case: DunningCase, schedule: Schedule) -> None:
    """Write down when the case's next step is due by this schedule."""
    case.planned_by = schedule.name
    case.next_at = schedule.next_at(done_step(case), opened_at=case.opened_at)
    case.save(update_fields=["planned_by", "next_at"])


def _may_be_in_arrears(account: Account) -> bool:
    """Return whether there is anything to bring up to date. Of most accounts there is not."""
    here = {"account": OuterRef("pk")}
    cases = DunningCase.objects.filter(Q(closed_at__isnull=True) | HOLDING)
    return Account.objects.filter(
        Exists(Invoice.objects.filter(**here, status__in=IN_ARREARS))
        | Exists(cases.filter(invoice__account=OuterRef("pk")))
        | Exists(Customer.objects.filter(~Q(standing=Standing.ACTIVE), **here)),
        pk=account.pk,
    ).exists()


def _open_cases_of(account: Account) -> QuerySet[DunningCase]:
    return DunningCase.objects.filter(invoice__account=account, closed_at__isnull=True)


def _close_cases(account: Account, *, now: datetime) -> list[DunningCase]:
    """Close the cases that are over, and return them."""
    closed = []
    over = _open_cases_of(account).exclude(invoice__status__in=IN_ARREARS)
    for case in over.select_related("invoice"):
        case.ending = _ENDINGS[InvoiceStatus(case.invoice.status)]
        case.closed_at, case.next_at = now, None
        case.save(update_fields=["ending", "closed_at", "next_at"])
        closed.append(case)
    return closed


def _open_cases(account: Account, *, now: datetime) -> None:
    failed = (
        account.invoices.filter(kind__in=BILLING_A_PERIOD, status__in=IN_ARREARS)
        .exclude(dunning_cases__in=_open_cases_of(account))
        .order_by("pk")
    )
    invoices = list(failed)
    if not invoices:
        return
    schedule = current_schedule()
    is_held = DunningCase.objects.filter(HOLDING, invoice__account=account).exists()
    for invoice in invoices:
        case = DunningCase.objects.create(
            invoice=invoice,
            opened_at=_first_failure(invoice, now=now),
            suspended_at=now if is_held else None,
        )
        plan(case, schedule)


def _first_failure(invoice: Invoice, *, now: datetime) -> datetime:
    """Return when the invoice's payment first failed, from when its schedule counts."""
    first = (
        invoice.transitions.filter(to_status=InvoiceStatus.PAYMENT_FAILED)
        .order_by("pk")
        .values_list("at", flat=True)
        .first()
    )
    return first if first and now - first <= OLD_NEWS else now


def _take_standing(account: Account, closed: Sequence[DunningCase], *, now: datetime) -> None:
    customer = customer_of(account, now=now)
    before = Standing(customer.standing)
    if DunningCase.objects.filter(HOLDING, invoice__account=account).exists():
        after = Standing.SUSPENDED
    elif _open_cases_of(account).exists():
        after = Standing.PAST_DUE
    else:
        after = Standing.ACTIVE
    if after is not before:
        Customer.objects.filter(pk=account.pk).update(standing=after, standing_since=now)
    is_asked = Standing.SUSPENDED in {before, after} and after is not before
    if is_asked and after is not Standing.SUSPENDED and is_capped(account.pk):
        # A hard cap still holds. When it is lifted, the platform is asked to resume.
        is_asked = False
    if is_asked:
        tell_of_suspension(_ask_platform(account, after, now=now), now=now)
    else:
        tell_of_paid([case for case in closed if case.ending == Ending.PAID], now=now)


def _ask_platform(account: Account, standing: Standing, *, now: datetime) -> PlatformRequest:
    if standing is Standing.SUSPENDED:
        reason = "An invoice was not paid after several tries."
        return ask_platform(account, PlatformRequest.Action.STOP, reason=reason, now=now)
    reason = "What was owed is paid."
    return ask_platform(account, PlatformRequest.Action.RESUME, reason=reason, now=now)
