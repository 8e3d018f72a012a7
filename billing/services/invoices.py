from __future__ import annotations

from collections import Counter
from datetime import datetime
from uuid import UUID

from django.db import transaction

import metering.queries
import metering.services
from billing.credits import CreditKind
from billing.facts import period_containing, period_facts, schedule_of
from billing.history import BILLING_A_PERIOD, refuse_lost_usage, schedule_in
from billing.lifecycle import InvoiceStatus, TransitionRefusedError
from billing.models import Account, Invoice, InvoiceLine, InvoiceTransition
from billing.models.invoices import Series
from billing.periods import Schedule
from billing.rating import BY_DESIGN, Rating
from billing.services.accounts import lock_account
from billing.services.credits import (
    Gift,
    expire_credits,
    grant_credit,
    grant_period_credits,
    move_credits_of_late_usage,
    revoke_unearned_credits,
    use_credits,
)
from billing.services.lifecycle import Because, record_transition, void_invoice
from billing.services.numbering import take_numbers
from billing.services.statements import (
    discard_draft,
    has_lines,
    new_draft,
    note_unpriced,
    write_statement,
)
from billing.statement import Statement, state_period
from metering.meters import Meter
from metering.period import Period

BILLING_RUN = Because("Billing run")


class PeriodNotOpenError(Exception):
    """The period is not one of the account's, or it is closed, or lies ahead."""


class InvoiceNotReadyError(Exception):
    """The invoice cannot be finalised yet; the message says what it waits for."""


class UsageNotConservedError(Exception):
    """What the lines charge for and what was measured differ; nothing may be invoiced."""


class UsageUnpricedError(Exception):
    """Usage that should be charged has no price, by a mistake of the price book."""


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
    UsageNotConservedError.
    """
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        account = lock_account(account_id)
        # Read again under the lock: another worker may have been quicker.
        invoice = Invoice.objects.get(pk=invoice_id)
        if invoice.status != Invoice.Status.DRAFT:
            return invoice
        _refuse_unless_ready(account, invoice, now)
        # From here on late readings of the period go elsewhere, so the figures cannot move.
        metering.services.freeze_account(account.pk, until=invoice.period_end)
        grant_period_credits(account, invoice.period, now=now)
        revoke_unearned_credits(account, invoice.period, now=now)
        statement = state_period(period_facts(account, invoice.period))
        note_unpriced(account, invoice.period, statement.rating, now=now)
        _refuse_unpriced(statement.rating)
        _refuse_unconserved(account, invoice.period, statement.rating)
        if has_lines(statement):
            write_statement(invoice, statement, now=now)
            _settle_credits(account, invoice, statement, now=now)
            _close_period(account, invoice.period, now=now)
            _number_invoice(invoice, because=because, now=now)
            return invoice
        discard_draft(invoice)
        _close_period(account, invoice.period, now=now)
    return None


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
        _refuse_unpriced(statement.rating)
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
        _settle_credits(account, invoice, statement, now=now)
        expire_credits(account, now=now)
        _number_invoice(invoice, because=because, now=now)
    return invoice


def _charged_on(invoice: Invoice) -> dict[Meter, int]:
    rows = invoice.lines.filter(kind=InvoiceLine.Kind.USAGE).values_list("meter", "quantity")
    charged: Counter[Meter] = Counter()
    for meter, quantity in rows:
        charged[Meter(meter)] += int(quantity)
    return dict(charged)


def _settle_credits(
    account: Account, invoice: Invoice, statement: Statement, *, now: datetime
) -> None:
    """Use the credits that the statement draws on; keep a remainder below zero as prepaid."""
    moves = statement.facts.carried.credit_moves
    move_credits_of_late_usage(account, invoice, moves, now=now)
    use_credits(account, invoice, (*statement.credits_used, *statement.prepaid_used), now=now)
    if statement.totals.credited:
        rest = Gift(
            kind=CreditKind.PREPAID,
            amount=statement.totals.credited.amount,
            reason=f"Remainder of the invoice for the period from {invoice.period_start:%Y-%m-%d}",
            reference=f"invoice:{invoice.pk}:remainder",
        )
        grant_credit(account.pk, rest, now=now)


def _refuse_unless_open(
    account: Account, schedule: Schedule, period: Period, now: datetime
) -> None:
    if schedule.following(account.open_period, period.start) != period:
        raise PeriodNotOpenError(f"{period} is not a billing period of account {account.pk}.")
    if period.start < account.open_period_start:
        raise PeriodNotOpenError(f"{period} of account {account.pk} is closed.")
    if now < period.start:
        raise PeriodNotOpenError(f"{period} has not begun at {now}.")


def _refuse_unless_ready(account: Account, invoice: Invoice, now: datetime) -> None:
    if now < invoice.finalise_after:
        raise InvoiceNotReadyError(f"the grace for late readings, to {invoice.finalise_after}")
    if invoice.period != account.open_period:
        raise InvoiceNotReadyError(f"the period from {account.open_period_start}, still open")
    if hosts := metering.queries.streams_behind(account.pk, until=invoice.finalise_after):
        raise InvoiceNotReadyError(f"readings of {', '.join(hosts)}")


def _refuse_unpriced(rating: Rating) -> None:
    if mistakes := [entry for entry in rating.unpriced if entry.reason not in BY_DESIGN]:
        raise UsageUnpricedError(
            "; ".join(f"{m.meter} from {m.period.start}: {m.reason}" for m in mistakes)
        )


def _refuse_unconserved(account: Account, period: Period, rating: Rating) -> None:
    """Compare what was rated part by part with the whole period's usage, which is frozen now."""
    measured = metering.queries.usage_totals(account.pk, period)
    if rating.usage != measured:
        raise UsageNotConservedError(f"Rated {rating.usage}, measured {measured} in {period}.")


def _close_period(account: Account, period: Period, *, now: datetime) -> None:
    """Open the account's next period, in its new cycle if one takes over there."""
    following = schedule_of(account).starting(period.end)
    account.open_period_start = following.start
    account.open_period_end = following.end
    if account.next_cycle and account.cycle_changes_at and account.cycle_changes_at <= period.end:
        if account.next_time_zone != account.time_zone:
            metering.services.change_time_zone(
                account.pk, time_zone=account.next_time_zone, now=following.start
            )
        account.time_zone, account.anchor_day = (
            account.next_time_zone,
            account.next_cycle.anchor_day,
        )
        account.next_time_zone, account.next_anchor_day = "", None
        account.cycle_changes_at = None
    account.save(
        update_fields=[
            "open_period_start",
            "open_period_end",
            "time_zone",
            "anchor_day",
            "next_time_zone",
            "next_anchor_day",
            "cycle_changes_at",
        ]
    )
    expire_credits(account, now=now)


def _number_invoice(invoice: Invoice, *, because: Because, now: datetime) -> None:
    """Give the invoice the next number of the year and its final state; the last step."""
    [invoice.number] = take_numbers(Series.INVOICE, 1, now=now)
    invoice.finalised_at, invoice.waiting_for = now, ""
    invoice.status = Invoice.Status.PENDING
    # Number and state in one statement: a constraint wants both, and a trigger nothing after.
    invoice.save(update_fields=["number", "status", "finalised_at", "waiting_for"])
    InvoiceTransition.objects.create(
        invoice=invoice,
        from_status=Invoice.Status.DRAFT,
        to_status=Invoice.Status.PENDING,
        reason=because.reason,
        by_id=because.user_id,
        at=now,
    )
    if not invoice.amount_due:
        nothing_due = Because("Nothing is due", because.user_id)
        record_transition(invoice, InvoiceStatus.PAID, because=nothing_due, now=now)
