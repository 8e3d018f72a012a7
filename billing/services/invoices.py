from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from uuid import UUID

from django.db import transaction

from billing.facts import period_containing, period_facts, schedule_of
from billing.history import BILLING_A_PERIOD, refuse_lost_usage, schedule_in
from billing.lifecycle import TransitionRefusedError
from billing.models import Account, Invoice, InvoiceLine
from billing.periods import Schedule
from billing.services.accounts import lock_account
from billing.services.conserving import Issue, SomeFailedError
from billing.services.credits import expire_credits
from billing.services.finalising import Closing, close_periods, refuse_unpriced
from billing.services.issuing import issue_invoices
from billing.services.lifecycle import Because, void_invoice
from billing.services.statements import (
    has_lines,
    new_draft,
    note_unpriced,
    write_statement,
)
from billing.statement import state_period
from billing.usage_evidence import UsageNotConservedError, read_evidence
from metering.meters import Meter
from metering.period import Period

BILLING_RUN = Because("Billing run")


class PeriodNotOpenError(Exception):
    """The period is not one of the account's, or it is closed, or lies ahead."""


def draft_invoice(account_id: UUID, *, period: Period, now: datetime) -> Invoice:
    """Draft the invoice of one account for one period, with the figures known by now.

    Safe to repeat: the account's period is the key, so a second call finds the first call's
    invoice, brings a draft up to date and leaves a final one as it is. Raises
    Account.DoesNotExist, PeriodNotOpenError.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        invoice = (
            Invoice.objects.filter(
                account=account,
                kind__in=BILLING_A_PERIOD,
                period_start=period.start,
                period_end=period.end,
            )
            .exclude(status=Invoice.Status.VOID)
            .first()
        )
        if invoice is None:
            schedule = schedule_of(account)
            _refuse_unless_open(account, schedule, period, now)
            invoice = new_draft(account, period, schedule, now=now)
        if invoice.status == Invoice.Status.DRAFT:
            statement = state_period(period_facts(account, period))
            note_unpriced(account, period, statement.rating, now=now)
            write_statement(invoice, statement, now=now)
    return invoice


def draft_current_period(account_id: UUID, *, now: datetime) -> Invoice:
    """Draft the invoice of the account's period that contains `now`; as safe to repeat.

    Raises Account.DoesNotExist, PeriodNotOpenError.
    """
    period = period_containing(Account.objects.get(pk=account_id), now)
    return draft_invoice(account_id, period=period, now=now)


def finalise_invoice(
    invoice_id: int, *, now: datetime, because: Because = BILLING_RUN
) -> Invoice | None:
    """Make a draft final: freeze its usage, apply credits, number it; close the period.

    Returns None when there is nothing to invoice; the draft is gone then and the period closed
    without one. A total of zero is paid at once. Safe to repeat: a final invoice is returned
    as it is. Raises Invoice.DoesNotExist, InvoiceNotReadyError, UsageUnpricedError,
    NotConservedError, SafetyBoundError.
    """
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        account = lock_account(account_id)
        # Read again under the lock: another worker may have been quicker.
        invoice = Invoice.objects.get(pk=invoice_id)
        if invoice.status != Invoice.Status.DRAFT:
            return invoice
        with _of_one_account():
            outcome = close_periods([Closing(account, invoice)], because=because, now=now)
            outcome.refuse_failed()
        for _, reason in outcome.waiting:
            raise reason
    return outcome.final[0] if outcome.final else None


def reissue_invoice(invoice_id: int, *, because: Because, now: datetime) -> Invoice:
    """Void an invoice and issue another for its period, at once, with the figures of now.

    The usage is what was frozen; what may differ is what the first had wrong: a rule, a fee, the
    tax. Safe to repeat: the invoice that took its place is returned. Raises
    TransitionRefusedError, UsageNotKeptError, Invoice.DoesNotExist.
    """
    with transaction.atomic():
        old = void_invoice(invoice_id, because=because, now=now)
        if following := Invoice.objects.filter(replaces=old).first():
            return following
        if not old.number:
            raise TransitionRefusedError("It was a draft. Draft the period again instead.")
        account = lock_account(old.account_id)
        schedule = schedule_in(account, old.period)
        statement = state_period(period_facts(account, old.period, schedule=schedule))
        refuse_unpriced(statement.rating)
        refuse_lost_usage(statement.rating, _charged_on(old))
        if not has_lines(statement):
            raise TransitionRefusedError("There is nothing left to invoice. Void it instead.")
        invoice = Invoice(
            account=account,
            kind=old.kind,
            replaces=old,
            period_start=old.period_start,
            period_end=old.period_end,
            finalise_after=now,
            drafted_at=now,
        )
        write_statement(invoice, statement, now=now)
        [evidence] = read_evidence([(account.pk, old.period, statement.rating)])
        if isinstance(evidence, UsageNotConservedError):
            raise evidence
        with _of_one_account():
            issue_invoices(
                [Issue(account, invoice, statement, evidence)],
                because=because,
                now=now,
                before_numbering=partial(expire_credits, account, now=now),
            )
    return invoice


@contextmanager
def _of_one_account() -> Iterator[None]:
    """Raise what the one account failed with."""
    try:
        yield
    except SomeFailedError as some:
        [(_, error)] = some.failed
        raise error from None


def _charged_on(invoice: Invoice) -> dict[Meter, int]:
    rows = invoice.lines.filter(kind=InvoiceLine.Kind.USAGE).values_list("meter", "quantity")
    charged: Counter[Meter] = Counter()
    for meter, quantity in rows:
        charged[Meter(meter)] += int(quantity)
    return dict(charged)


def _refuse_unless_open(
    account: Account, schedule: Schedule, period: Period, now: datetime
) -> None:
    if schedule.following(account.open_period, period.start) != period:
        raise PeriodNotOpenError(f"{period} is not a billing period of account {account.pk}.")
    if period.start < account.open_period_start:
        raise PeriodNotOpenError(f"{period} of account {account.pk} is closed.")
    if now < period.start:
        raise PeriodNotOpenError(f"{period} has not begun at {now}.")
