"""What the clock does about invoices whose payment failed: retry, suspend, write off."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from django.db import transaction
from django.db.models import F, OuterRef, Q, QuerySet, Subquery

from billing.history import BILLING_A_PERIOD
from billing.lifecycle import InvoiceStatus
from billing.models import Invoice
from billing.services import Because, lock_account, retry_payment
from payments.dunning_queries import current_schedule, done_step, last_attempt
from payments.dunning_schedule import RETRY, SUSPEND, Schedule, Step
from payments.models import (
    Customer,
    DunningCase,
    PaymentAttempt,
    PaymentMethod,
)
from payments.services.collections import Asked, begin_collecting
from payments.services.dunning import HOLDING, IN_ARREARS, plan, refresh_account, suspend
from payments.services.notices import tell_of_write_off
from payments.services.one_by_one import try_each
from payments.services.providing import is_set_up
from payments.services.writing_off import write_off_invoice

ACCOUNTS_A_SWEEP = 500
CASES_A_SWEEP = 500
NEW_CARD_TRIES_A_DAY = 5
"""Of an invoice: who tries stolen cards has many."""
NEW_CARD = Because("Another payment method was added")
Trigger = PaymentAttempt.Trigger


def refresh_out_of_step(now: datetime) -> int:
    """Bring up to date what follows from invoices that changed; return how many accounts.

    Whoever changes an invoice does so at once as well; this finds what was missed. Safe to repeat.
    """
    open_cases = DunningCase.objects.filter(closed_at__isnull=True)
    in_arrears = Invoice.objects.filter(kind__in=BILLING_A_PERIOD, status__in=IN_ARREARS)
    without_case = in_arrears.exclude(dunning_cases__in=open_cases)
    over = open_cases.exclude(invoice__status__in=IN_ARREARS)
    held = DunningCase.objects.filter(HOLDING)
    standing = Customer.objects.exclude(standing=Customer.Standing.ACTIVE).exclude(
        account__in=held.values("invoice__account")
    )
    not_due = standing.exclude(account__in=open_cases.values("invoice__account"))
    found = {
        *without_case.order_by("pk").values_list("account", flat=True)[:ACCOUNTS_A_SWEEP],
        *over.order_by("pk").values_list("invoice__account", flat=True)[:ACCOUNTS_A_SWEEP],
        *not_due.order_by("pk").values_list("pk", flat=True)[:ACCOUNTS_A_SWEEP],
    }
    return try_each(sorted(found), partial(refresh_account, now=now))


def take_due_steps(now: datetime) -> int:
    """Take the schedule's steps that are due; return of how many cases.

    Without a provider none is: nobody could pay. An invoice that is being tried waits with its
    next step until it is known what became of it. Safe to repeat, and at once with others.
    """
    if not is_set_up():
        return 0
    schedule = current_schedule()
    _plan_anew(schedule)
    due = _waiting().filter(next_at__lte=now).order_by("next_at", "pk")
    cases = list(due.values_list("pk", flat=True)[:CASES_A_SWEEP])
    return try_each(cases, partial(_take_steps, schedule=schedule, now=now))


def retry_on_new_cards(now: datetime, *, account_id: UUID | None = None) -> int:
    """Retry at once what failed on another payment method than the default.

    Of one account, or of all. Returns how many were looked at. Safe to repeat: what was tried with
    today's default is left to the schedule.
    """
    if not is_set_up():
        return 0
    cases = _with_new_cards()
    if account_id is not None:
        cases = cases.filter(invoice__account=account_id)
    due = list(cases.order_by("pk").values_list("pk", flat=True)[:CASES_A_SWEEP])
    return try_each(due, partial(_retry_on_new_card, now=now))


def _retry_on_new_card(case_id: int, *, now: datetime) -> None:
    with transaction.atomic():
        lock_account(_account_of(case_id))
        # Another worker may have been quicker, and then it is not among them any more.
        case = _with_new_cards().filter(pk=case_id).first()
        if case and _has_tries(case.invoice, now=now):
            _retry(case.invoice, NEW_CARD, Trigger.NEW_CARD, now=now)


def _account_of(case_id: int) -> UUID:
    return DunningCase.objects.values_list("invoice__account", flat=True).get(pk=case_id)


def _waiting() -> QuerySet[DunningCase]:
    """Return the open cases about which something may be done: nobody tries them, or looks."""
    return DunningCase.objects.filter(
        closed_at__isnull=True,
        invoice__status=InvoiceStatus.PAYMENT_FAILED,
        invoice__account__parked_reason="",
    )


def _plan_anew(schedule: Schedule) -> None:
    """Find the next step of cases that were planned by another schedule."""
    others = DunningCase.objects.filter(closed_at__isnull=True).exclude(planned_by=schedule.name)
    for case in others.order_by("pk").select_related("invoice")[:CASES_A_SWEEP]:
        with transaction.atomic():
            lock_account(case.invoice.account_id)
            case.refresh_from_db()
            if case.closed_at is None:
                plan(case, schedule)


def _take_steps(case_id: int, *, schedule: Schedule, now: datetime) -> None:
    """Take what is due of one case until it has to wait."""
    with transaction.atomic():
        lock_account(_account_of(case_id))
        while case := _waiting().select_related("invoice__account").filter(pk=case_id).first():
            step = schedule.step_due(done_step(case), opened_at=case.opened_at, now=now)
            if step is None:
                return
            case.done_days, case.done_action = step.after_days, step.action
            case.save(update_fields=["done_days", "done_action"])
            plan(case, schedule)
            _take(case, step, now=now)


def _take(case: DunningCase, step: Step, *, now: datetime) -> None:
    because = Because(f"{step.after_days} days after the first failure")
    if step.action == RETRY:
        last = last_attempt(case.invoice)
        # Another card, or finance, may have been quicker.
        if last is None or last.started_at < step.due_at(case.opened_at):
            _retry(case.invoice, because, Trigger.SCHEDULE, now=now)
    elif step.action == SUSPEND:
        suspend(case, now=now)
    else:
        tell_of_write_off(case, now=now)
        write_off_invoice(case.invoice_id, because=because, now=now)


def _retry(invoice: Invoice, because: Because, trigger: Trigger, *, now: datetime) -> None:
    retry_payment(invoice.pk, because=because, now=now)
    begin_collecting(invoice.pk, Asked(trigger), now=now)


def _with_new_cards() -> QuerySet[DunningCase]:
    """Return the waiting cases that were last tried with another method than today's default."""
    tried = PaymentAttempt.objects.filter(collection__parts__invoice=OuterRef("invoice")).order_by(
        "-pk"
    )
    default = PaymentMethod.objects.filter(account=OuterRef("invoice__account"), is_default=True)
    return (
        _waiting()
        .annotate(
            tried=Subquery(tried.values("method_id")[:1]),
            default=Subquery(default.values("provider_id")[:1]),
        )
        .filter(tried__isnull=False, default__isnull=False)
        .filter(~Q(tried=F("default")))
        .select_related("invoice")
    )


def _has_tries(invoice: Invoice, *, now: datetime) -> bool:
    tries = PaymentAttempt.objects.filter(
        collection__parts__invoice=invoice,
        trigger=Trigger.NEW_CARD,
        started_at__gt=now - timedelta(days=1),
    )
    return tries.count() < NEW_CARD_TRIES_A_DAY
