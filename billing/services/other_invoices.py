"""Invoices that are not of usage: for prepaid credit, and copies of a payment provider's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from billing.mirrored_fees import conflict_of
from billing.models import Account, Invoice, InvoiceLine, TopUp
from billing.money import Money
from billing.provider_fees import MirroredFee
from billing.services.accounts import lock_account
from billing.services.issuing import give_numbers, make_final, print_on
from billing.services.lifecycle import Because
from billing.services.numbering import may_be_ours
from metering.period import Period

TOP_UP_PAID = "Paid with the top-up"
_AN_INSTANT = timedelta(seconds=1)


class MirrorRefusedError(ValueError):
    """A provider's invoice cannot be copied; the message says what is wrong with it."""


class FeeConflictError(MirrorRefusedError):
    """A provider asks for a fee that is not its to ask for, or that was asked for before."""


@dataclass(frozen=True, slots=True)
class MirroredLine:
    """A line of a provider's invoice: what it is for, and how much.

    `price_id` is the provider's price, of a fee that it is compared with its subscription.
    """

    description: str
    period: Period
    amount: Money
    price_id: str = ""


@dataclass(frozen=True, slots=True)
class MirroredInvoice:
    """An invoice that a payment provider made by itself, as it stands there."""

    number: str
    period: Period
    lines: Sequence[MirroredLine]
    tax: Money
    total: Money
    is_paid: bool


def invoice_top_up(account: Account, top_up: TopUp, *, now: datetime) -> Invoice:
    """Issue the invoice of prepaid credit whose money is here.

    The caller has locked the account and calls it once a top-up. It is not taxed: what is bought
    with the credit is.
    """
    start = min(top_up.requested_at, now)
    period = Period(start, max(now, start + _AN_INSTANT))
    invoice = _new(account, Invoice.Kind.TOP_UP, period, now=now)
    invoice.top_up = invoice.total_amount = invoice.amount_due = top_up.amount
    invoice.save()
    bought = MirroredLine("Prepaid credit", period, Money(top_up.amount, account.currency))
    _write_line(invoice, InvoiceLine.Kind.TOP_UP, 1, bought)
    print_on(invoice, account, account.cycle, now=now)
    give_numbers(
        [invoice], because=Because("Prepaid credit was bought"), now=now, paid_because=TOP_UP_PAID
    )
    return invoice


def mirror_invoice(account_id: UUID, mirrored: MirroredInvoice, *, now: datetime) -> Invoice:
    """Keep a copy of an invoice that a payment provider made by itself, under its number.

    A fee has to begin while the provider collects it, and no second of it may be charged for
    twice; what goes on beyond the plan's end is in `mirrored_fees.fee_differences`. Safe to
    repeat: the number's copy is found, and has to be the same. Raises MirrorRefusedError,
    FeeConflictError, Account.DoesNotExist.
    """
    if may_be_ours(mirrored.number):
        # The billing run would meet it, and fail, at whatever invoice has it next.
        raise MirrorRefusedError(
            f"Number {mirrored.number} reads like one of ours. Give the provider's a prefix."
        )
    if min(mirrored.total.amount, mirrored.tax.amount) < 0:
        raise MirrorRefusedError(
            f"Invoice {mirrored.number} is of {mirrored.total}, with tax of {mirrored.tax}. "
            "Copy invoices that ask for something; what gives back is a credit note."
        )
    fee = Money.total((line.amount for line in mirrored.lines), mirrored.total.currency)
    with transaction.atomic():
        account = lock_account(account_id)
        if fee.currency != account.currency:
            raise MirrorRefusedError(
                f"Invoice {mirrored.number} is in {fee.currency}, and the account in "
                f"{account.currency}."
            )
        on_top = Money.zero(fee.currency) if account.tax_is_inclusive else mirrored.tax
        if fee + on_top != mirrored.total:
            raise MirrorRefusedError(
                f"Lines of {fee} and tax of {mirrored.tax} do not make {mirrored.total}, the total "
                f"of invoice {mirrored.number}."
            )
        if found := Invoice.objects.filter(number=mirrored.number).first():
            known = found.account_id, found.kind, Money(found.total_amount, found.currency)
            if known != (account.pk, Invoice.Kind.SUBSCRIPTION, mirrored.total):
                raise MirrorRefusedError(f"Number {mirrored.number} is another invoice's already.")
            return found
        _refuse_conflict(account, mirrored, now)
        invoice = _new(account, Invoice.Kind.SUBSCRIPTION, mirrored.period, now=now)
        invoice.subscription_fee, invoice.tax = fee.amount, mirrored.tax.amount
        invoice.total_amount = invoice.amount_due = mirrored.total.amount
        invoice.save()
        for position, line in enumerate(mirrored.lines, start=1):
            # What a provider gives back of a fee that was paid has a sign of its own.
            gives_back = line.amount.amount < 0
            kind = InvoiceLine.Kind.UNUSED_FEE if gives_back else InvoiceLine.Kind.FEE
            _write_line(invoice, kind, position, line)
        print_on(invoice, account, account.cycle, now=now)
        make_final(
            [(invoice, mirrored.number)],
            because=Because("Invoiced by the payment provider"),
            now=now,
            paid_because="Paid at the payment provider" if mirrored.is_paid else "",
        )
    return invoice


def _refuse_conflict(account: Account, mirrored: MirroredInvoice, now: datetime) -> None:
    fees = [
        (MirroredFee(mirrored.number, line.period, line.amount), line.price_id)
        for line in mirrored.lines
    ]
    if conflict := conflict_of(account, fees, now=now):
        raise FeeConflictError(
            f"Invoice {mirrored.number} of the provider asks for a fee wrongly: {conflict}. "
            "Give it back there, and cancel what goes on asking."
        )


def _new(account: Account, kind: Invoice.Kind, period: Period, *, now: datetime) -> Invoice:
    return Invoice(
        account=account,
        kind=kind,
        currency=account.currency,
        tax_rate=account.tax_rate,
        tax_is_inclusive=account.tax_is_inclusive,
        period_start=period.start,
        period_end=period.end,
        drafted_at=now,
        computed_at=now,
        finalise_after=now,
    )


def _write_line(
    invoice: Invoice, kind: InvoiceLine.Kind, position: int, line: MirroredLine
) -> None:
    InvoiceLine.objects.create(
        invoice=invoice,
        kind=kind,
        position=position,
        description=line.description,
        quantity=1,
        base_unit="items",
        unit="items",
        unit_size=1,
        unit_price=abs(line.amount.amount),
        amount=line.amount.amount,
        period_start=line.period.start,
        period_end=line.period.end,
    )
