from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from django.conf import settings
from django.db import transaction

import metering.queries
import metering.services
from billing.models import Account, Invoice, InvoiceLine, InvoiceSeries, Subscription
from billing.money import Money
from billing.periods import month_containing, next_month
from billing.proration import whole_seconds
from billing.queries import credits_available, rate_period, subscriptions_in
from billing.rating import BY_DESIGN, RatedLine, Rating, break_down_cost
from billing.services.accounts import lock_account
from billing.services.credits import expire_credits, grant_period_credits, use_credits
from billing.totals import InvoiceTotals, add_up
from metering.meters import UNITS, Meter
from metering.period import Period

_DESCRIPTIONS = {
    Meter.CPU: "CPU time",
    Meter.MEMORY: "Memory",
    Meter.NETWORK_EGRESS: "Network egress",
    Meter.NETWORK_INGRESS: "Network ingress",
    Meter.STORAGE: "Storage",
    Meter.GPU: "GPU time",
    Meter.DISK_READ: "Disk reads",
    Meter.DISK_WRITE: "Disk writes",
}


class PeriodNotOpenError(Exception):
    """The period is not one of the account's months, or it is closed, or lies ahead."""


class InvoiceNotReadyError(Exception):
    """The invoice cannot be finalised yet; the message says what it waits for."""


class UsageNotConservedError(Exception):
    """What the lines charge for and what was measured differ; nothing may be invoiced."""


class UsageUnpricedError(Exception):
    """Usage that should be charged has no price, by a mistake of the price book."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What an invoice says: its lines, not saved yet, and its totals."""

    lines: list[InvoiceLine]
    totals: InvoiceTotals
    tax_rate: Decimal
    rating: Rating


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
                kind=Invoice.Kind.USAGE,
                period_start=period.start,
                period_end=period.end,
            )
            .exclude(status=Invoice.Status.VOID)
            .first()
        )
        if invoice is None:
            _refuse_unless_open(account, period, now)
            invoice = Invoice(
                account=account,
                period_start=period.start,
                period_end=period.end,
                finalise_after=period.end + timedelta(minutes=settings.BILLING_GRACE_MINUTES),
                drafted_at=now,
            )
        if invoice.status == Invoice.Status.DRAFT:
            _write_statement(invoice, _make_statement(account, period), now=now)
    return invoice


def draft_current_month(account_id: UUID, *, now: datetime) -> Invoice:
    """Draft the invoice of the account's month that contains `now`; as safe to repeat.

    Raises Account.DoesNotExist, PeriodNotOpenError.
    """
    zone = Account.objects.get(pk=account_id).zone
    return draft_invoice(account_id, period=month_containing(now, zone), now=now)


def finalise_invoice(invoice_id: int, *, now: datetime) -> Invoice | None:
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
        statement = _make_statement(account, invoice.period)
        _refuse_unpriced(statement.rating)
        _refuse_unconserved(account, invoice.period, statement.rating)
        if statement.lines:
            _write_statement(invoice, statement, now=now)
            use_credits(account, invoice, statement.totals.credits_used, now=now)
            _close_period(account, invoice.period, now=now)
            _number_invoice(invoice, now=now)
            return invoice
        invoice.lines.all().delete()
        invoice.delete()
        _close_period(account, invoice.period, now=now)
    return None


def _refuse_unless_open(account: Account, period: Period, now: datetime) -> None:
    is_a_month = period == month_containing(period.start, account.zone)
    is_open = is_a_month and period.start >= account.open_period_end
    if period != account.open_period and not is_open:
        raise PeriodNotOpenError(f"{period} is not an open period of account {account.pk}.")
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


def _make_statement(account: Account, period: Period) -> Statement:
    currency = account.currency
    fee_lines = [
        _fee_line(subscription, part, period, currency)
        for subscription in subscriptions_in(account.pk, period)
        if subscription.monthly_fee and (part := subscription.part_of(period))
    ]
    rating = rate_period(account, period)
    return Statement(
        lines=[*fee_lines, *(_usage_line(line) for line in rating.lines)],
        totals=add_up(
            subscription_fee=Money.total(
                (Money(line.amount, currency) for line in fee_lines), currency
            ),
            usage=break_down_cost(rating, credits_available=credits_available(account, period)),
            tax_rate=account.tax_rate,
        ),
        tax_rate=account.tax_rate,
        rating=rating,
    )


def _fee_line(
    subscription: Subscription, part: Period, whole: Period, currency: str
) -> InvoiceLine:
    quantity, unit_size = whole_seconds(part), whole_seconds(whole)
    exact = Fraction(subscription.monthly_fee) * quantity / unit_size
    return InvoiceLine(
        kind=InvoiceLine.Kind.FEE,
        description=f"{subscription.plan} plan",
        quantity=quantity,
        base_unit="seconds",
        unit="months",
        unit_size=unit_size,
        unit_price=subscription.monthly_fee,
        amount=Money.rounded(exact, currency).amount,
        period_start=part.start,
        period_end=part.end,
    )


def _usage_line(line: RatedLine) -> InvoiceLine:
    unit = UNITS[line.meter]
    return InvoiceLine(
        kind=InvoiceLine.Kind.USAGE,
        description=_DESCRIPTIONS[line.meter],
        meter=line.meter,
        quantity=line.quantity,
        base_unit=unit.stored,
        unit=unit.shown,
        unit_size=unit.size,
        unit_price=line.price.charge.unit_price,
        amount=line.amount.amount,
        period_start=line.period.start,
        period_end=line.period.end,
    )


def _write_statement(invoice: Invoice, statement: Statement, *, now: datetime) -> None:
    """Save a draft with the statement's figures and lines in place of those it had."""
    totals = statement.totals
    invoice.currency = totals.total_amount.currency
    invoice.tax_rate = statement.tax_rate
    invoice.subscription_fee = totals.subscription_fee.amount
    invoice.usage_fee = totals.usage_fee.amount
    invoice.discounts = totals.discounts.amount
    invoice.credits_used = totals.credits_used.amount
    invoice.tax = totals.tax.amount
    invoice.total_amount = totals.total_amount.amount
    invoice.amount_due = totals.total_amount.amount
    invoice.computed_at = now
    invoice.save()
    invoice.lines.all().delete()
    for position, line in enumerate(statement.lines, start=1):
        line.invoice = invoice
        line.position = position
    InvoiceLine.objects.bulk_create(statement.lines)


def _close_period(account: Account, period: Period, *, now: datetime) -> None:
    expire_credits(account, period, now=now)
    following = next_month(period, account.zone)
    account.open_period_start = following.start
    account.open_period_end = following.end
    account.save(update_fields=["open_period_start", "open_period_end"])


def _number_invoice(invoice: Invoice, *, now: datetime) -> None:
    """Give the invoice the next number of the year and its final state.

    The last step, because the counter's row is locked from here to the commit, for everybody.
    """
    InvoiceSeries.objects.get_or_create(year=now.year)
    series = InvoiceSeries.objects.select_for_update().get(year=now.year)
    series.last_number += 1
    series.save(update_fields=["last_number"])
    invoice.number = f"{series.year}-{series.last_number:06d}"
    invoice.finalised_at = now
    invoice.waiting_for = ""
    if invoice.amount_due:
        invoice.status = Invoice.Status.PENDING
    else:
        invoice.status = Invoice.Status.PAID
        invoice.paid_at = now
    invoice.save(update_fields=["number", "status", "finalised_at", "paid_at", "waiting_for"])
