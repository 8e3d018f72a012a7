"""The billing run: drafts the periods that are over and finalises the drafts that are ready.

The tables are the work list. A batch of accounts is claimed by locking their rows, and done in
one transaction: a worker that dies lets go of them at once, one that stands still after a while
(docs/adr/0009), and the next one finds them undone.
An account that fails is parked, and the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import OperationalError, connection, transaction
from django.db.models import F, Q, QuerySet

from billing.caching import forget_of
from billing.copying import update_rows
from billing.due import undrafted
from billing.facts import AccountPeriod, facts_of
from billing.models import Account, Invoice
from billing.money import Money
from billing.services.conserving import SomeFailedError
from billing.services.finalising import (
    Closing,
    InvoiceNotReadyError,
    close_periods,
)
from billing.services.invoices import BILLING_RUN, draft_invoice, finalise_invoice
from billing.services.lifecycle import Because
from billing.services.run_reports import EVERYTHING, RunReport, Scope
from billing.services.statements import new_draft, note_unpriced_of, write_new_statements
from billing.services.trying import park, try_account
from billing.statement import Statement, state_period

ACCOUNTS_A_BATCH = 500
BATCHES_A_SWEEP = 40
"""About a minute's work for one worker. The next sweep goes on."""

logger = logging.getLogger(__name__)


def draft_due_invoices(now: datetime, *, has_time: Callable[[], bool] = lambda: True) -> int:
    """Draft the invoice of each account whose open period is over; return how many.

    After the first, no batch begins when there is no time. Safe to repeat.
    """
    return _run(partial(_draft_batch, EVERYTHING, now), has_time=has_time).drafted


def finalise_due_invoices(now: datetime, *, has_time: Callable[[], bool] = lambda: True) -> int:
    """Finalise each draft whose grace is over and whose usage is complete.

    Returns how many periods were closed. A draft that must wait keeps in `waiting_for` what it
    waits for. After the first, no batch begins when there is no time. Safe to repeat.
    """
    return _run(partial(_finalise_batch, EVERYTHING, now), has_time=has_time).closed


def generate_invoices(
    scope: Scope,
    *,
    now: datetime,
    because: Because = BILLING_RUN,
    batches: int | None = BATCHES_A_SWEEP,
    watch: Callable[[int], None] = lambda _: None,
) -> RunReport:
    """Draft and finalise what is due in `scope`, as the sweeps do; so many batches of each.

    None: until nothing is left. `watch` is told how many more periods were closed. Safe to
    repeat, and to be repeated while the report has more.
    """
    drafted = _run(partial(_draft_batch, scope, now), batches)
    finalised = _run(partial(_finalise_batch, scope, now, because=because), batches, watch)
    return RunReport.of([drafted, finalised])


def rehearse_invoices(scope: Scope, *, now: datetime, batches: int | None = None) -> RunReport:
    """Return what drafting in `scope` would come to now. It writes nothing.

    Of so many batches of accounts, where that is given; the report says whether there are more.
    """
    report = RunReport()
    due = _due(scope, now).order_by("pk")
    accounts = list(due[:ACCOUNTS_A_BATCH])
    done = 0
    while accounts and done != batches:
        failed: list[tuple[UUID, Exception]] = []
        for _, statement in _state(accounts, failed, now=now):
            report.drafted += 1
            report.add_total(statement.totals.total_amount)
        for account_id, error in failed:
            report.add_parked(account_id, f"{type(error).__name__}: {error}")
        accounts = list(due.filter(pk__gt=accounts[-1].pk)[:ACCOUNTS_A_BATCH])
        done += 1
    report.has_more = bool(accounts)
    return report


def count_due(scope: Scope, *, now: datetime) -> int:
    """Return how many periods in `scope` are to be closed now, drafted already or not."""
    drafts = scope.drafts().filter(finalise_after__lte=now)
    return _due(scope, now).count() + drafts.count()


def _run(
    batch: Callable[[RunReport], bool],
    batches: int | None = BATCHES_A_SWEEP,
    watch: Callable[[int], None] = lambda _: None,
    has_time: Callable[[], bool] = lambda: True,
) -> RunReport:
    """Do batches until nothing is left to claim, or enough is done for one sweep."""
    report = RunReport(has_more=True)
    done = 0
    while report.has_more and done != batches and (not done or has_time()):
        closed = report.closed
        report.has_more = batch(report)
        watch(report.closed - closed)
        done += 1
    return report


def _draft_batch(scope: Scope, now: datetime, report: RunReport) -> bool:
    """Draft a batch of accounts; return whether there may be another."""
    claimed: list[Account] = []
    failed: list[tuple[UUID, Exception]] = []
    try:
        with transaction.atomic():
            claimed += _claim_accounts(scope, report, now)
            drafts = _state(claimed, failed, now=now)
            write_new_statements(drafts, now=now)
            note_unpriced_of([(i.account, i.period, s.rating) for i, s in drafts], now=now)
    except Exception as error:  # noqa: BLE001 - whatever it is, each account is tried alone
        if not _is_of_an_account(error):
            return False
        for account in claimed:
            work = partial(draft_invoice, account.pk, period=account.open_period, now=now)
            report.drafted += try_account(account.pk, work, report, now=now)
        return True
    report.drafted += len(drafts)
    for account_id, failure in failed:
        park(account_id, failure, report, now=now)
    return not report.is_through


def _finalise_batch(
    scope: Scope, now: datetime, report: RunReport, *, because: Because = BILLING_RUN
) -> bool:
    """Finalise a batch of drafts; return whether there may be another."""
    claimed: list[Closing] = []
    try:
        with transaction.atomic():
            claimed += _claim_drafts(scope, report.tried, now)
            outcome = close_periods(claimed, because=because, now=now)
            _note_waiting(outcome.waiting, now=now)
            # The others are done again without these: nothing of a failed account stays.
            outcome.refuse_failed()
    except SomeFailedError as some:
        for account_id, failure in some.failed:
            park(account_id, failure, report, now=now)
        return True
    except Exception as error:  # noqa: BLE001 - whatever it is, each account is tried alone
        if not _is_of_an_account(error):
            return False
        for closing in claimed:
            report.tried.add(closing.draft.pk)
            _finalise_one(closing, report, because=because, now=now)
        return bool(claimed)
    report.finalised += len(outcome.final)
    report.empty += len(outcome.empty)
    for invoice in outcome.final:
        report.add_total(Money(invoice.total_amount, invoice.currency))
    for draft, reason in outcome.waiting:
        report.add_waiting(draft.account_id, str(reason))
        report.tried.add(draft.pk)
    return bool(claimed)


def _finalise_one(closing: Closing, report: RunReport, *, because: Because, now: datetime) -> None:
    def finalise() -> None:
        invoice = finalise_invoice(closing.draft.pk, because=because, now=now)
        if invoice is None:
            report.empty += 1
        else:
            report.finalised += 1
            report.add_total(Money(invoice.total_amount, invoice.currency))

    try:
        try_account(closing.account.pk, finalise, report, now=now)
    except InvoiceNotReadyError as reason:
        report.add_waiting(closing.account.pk, str(reason))
        _note_waiting([(closing.draft, reason)], now=now)


def _is_of_an_account(error: Exception) -> bool:
    """Return whether one of a batch's accounts may be what failed. Raises what ends the run."""
    if isinstance(error, SoftTimeLimitExceeded):
        raise error
    if isinstance(error, OperationalError):
        # A lost connection or a lock held too long says nothing about the accounts.
        if not connection.is_usable():
            raise error
        logger.warning("accounts are busy", exc_info=error)
        return False
    logger.warning("a batch is done account by account", exc_info=error)
    return True


def _due(scope: Scope, now: datetime) -> QuerySet[Account]:
    return undrafted(scope.accounts(), now=now)


def _claim_accounts(scope: Scope, report: RunReport, now: datetime) -> list[Account]:
    """Lock accounts that nobody holds and whose open period is over and has no draft.

    A run goes through them once: those it has passed are drafted by now, or another's.
    """
    due = _due(scope, now)
    if report.passed:
        ended_at, key = report.passed
        due = due.filter(
            Q(open_period_end__gt=ended_at) | Q(open_period_end=ended_at, pk__gt=key),
            open_period_end__gte=ended_at,
        )
    accounts = list(
        due.order_by("open_period_end", "pk").select_for_update(skip_locked=True, of=("self",))[
            :ACCOUNTS_A_BATCH
        ]
    )
    if accounts:
        report.passed = accounts[-1].open_period_end, accounts[-1].pk
    else:
        report.is_through = True
    forget_of(account.pk for account in accounts)
    # Looked at again under the locks: another worker may have been quicker.
    undrafted = _due(scope, now).filter(pk__in=[account.pk for account in accounts])
    keys = set(undrafted.values_list("pk", flat=True))
    return [account for account in accounts if account.pk in keys]


def _claim_drafts(scope: Scope, tried: set[int], now: datetime) -> list[Closing]:
    """Lock the accounts of drafts that are due; those left alone longest come first.

    A run tries a draft that must wait once.
    """
    due = (
        scope.drafts()
        .filter(finalise_after__lte=now)
        .exclude(pk__in=tried)
        .order_by(F("tried_at").asc(nulls_first=True), "finalise_after", "pk")
    )
    claimed = due.select_related("account").only("id", "account__id")
    locked = claimed.select_for_update(skip_locked=True, of=("account",))[:ACCOUNTS_A_BATCH]
    # Read under the locks: another worker may have been quicker.
    drafts = Invoice.objects.filter(
        pk__in=[draft.pk for draft in locked], status=Invoice.Status.DRAFT
    ).select_related("account")
    closings = [Closing(draft.account, draft) for draft in drafts]
    forget_of(closing.account.pk for closing in closings)
    return closings


def _state(
    accounts: Sequence[Account], failed: list[tuple[UUID, Exception]], *, now: datetime
) -> list[tuple[Invoice, Statement]]:
    """Return each account's draft and what it says; add those that cannot be stated to `failed`."""
    drafts = []
    found = facts_of([AccountPeriod(account, account.open_period) for account in accounts])
    for account, facts in zip(accounts, found, strict=True):
        if isinstance(facts, Exception):
            failed.append((account.pk, facts))
            continue
        try:
            statement = state_period(facts)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this account's alone
            failed.append((account.pk, error))
        else:
            drafts.append((new_draft(account, facts.period, facts.schedule, now=now), statement))
    return drafts


def _note_waiting(
    waiting: Sequence[tuple[Invoice, InvoiceNotReadyError]], *, now: datetime
) -> None:
    drafts = []
    for draft, reason in waiting:
        if draft.waiting_for != str(reason):
            logger.warning("invoice waits for %s", reason, extra={"invoice_id": draft.pk})
        draft.waiting_for, draft.tried_at = str(reason), now
        drafts.append(draft)
    update_rows(drafts, ["waiting_for", "tried_at"])
