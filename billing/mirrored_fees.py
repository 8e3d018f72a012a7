"""Compares what a payment provider collected of an account's fees with what it was to collect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from django.db.models import Sum

from billing.account_terms import subscribed
from billing.fees import Subscribed
from billing.lifecycle import NOT_FINAL
from billing.models import Account, CreditNoteLine, Invoice, InvoiceLine, Subscription
from billing.money import Money
from billing.provider_fees import (
    Collecting,
    MirroredFee,
    collecting_times,
    not_charged,
    times_charged,
    unused_amount,
    used_part,
)
from metering.period import WINDOW, Period


class FeeDifferenceKind(StrEnum):
    """What is wrong with the fees that a provider collected."""

    # It was to collect, and did not.
    NOT_CHARGED = "not_charged"
    CHARGED_TWICE = "charged_twice"
    # It collected for time after the plan ended, and that was not given back.
    UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class FeeDifference:
    """Time of an account whose fee the provider collected otherwise than it should have.

    `amount` and `invoice_id` are of what is unused: what one mirrored invoice's lines come to too
    much, in the lines' own terms.
    """

    kind: FeeDifferenceKind
    period: Period
    amount: Money | None = None
    invoice_id: int | None = None


def fee_differences(account_id: UUID, *, now: datetime) -> list[FeeDifference]:
    """Return where the provider's fees of an account are not what they should be, up to `now`.

    Less than a window that was not charged for is left out: the provider's month begins a little
    after ours.
    """
    account = Account.objects.get(pk=account_id)
    subscriptions, fees = _subscriptions(account), _mirrored(account)
    times = _decided(subscriptions, now)
    charged = times_charged([fee for of_one in fees.values() for fee in of_one], times)
    found = [
        FeeDifference(FeeDifferenceKind.NOT_CHARGED, span)
        for span in not_charged(subscriptions, charged, until=now)
        if span.duration >= WINDOW
    ]
    found += [
        FeeDifference(FeeDifferenceKind.CHARGED_TWICE, span) for span, count in charged if count > 1
    ]
    given_back = _given_back(fees)
    for invoice_id, of_one in fees.items():
        unused = unused_amount(of_one, times)
        left = unused - Money(given_back.get(invoice_id, Decimal(0)), account.currency)
        if left.amount > 0:
            span = _unused_span(of_one, times)
            found.append(FeeDifference(FeeDifferenceKind.UNUSED, span, left, invoice_id))
    return sorted(found, key=lambda one: (one.period.start, one.kind))


def conflict_of(account: Account, fees: Sequence[tuple[MirroredFee, str]], *, now: datetime) -> str:
    """Return why these fees of one more invoice, each with its price's id, are wrong, or "".

    Each has to begin while the provider collects the fee of a plan at that price, and no second
    may be charged for twice. Then none is on our own invoices: a plan's fee is on one side.
    """
    rows = list(Subscription.objects.filter(account=account).select_related("plan"))
    for fee, price in fees:
        if fee.amount.amount <= 0:
            continue
        row = next((row for row in rows if _covers(row, fee.period.start)), None)
        if row is None:
            return f"the account was on no plan at {fee.period.start}"
        if not row.provider_collects:
            return f"the fee of {row.plan} is on our invoices from {row.started_at} on"
        if price not in ("", row.provider_price_id):
            return f"{row.plan} is at {row.provider_price_id} from {row.started_at}, not at {price}"
    times = _decided(_subscriptions(account), now)
    known = [fee for of_one in _mirrored(account).values() for fee in of_one]
    for span, count in times_charged([*known, *(fee for fee, _ in fees)], times):
        if count > 1:
            numbers = {one.number for one in known if _is_used_in(one, span, times)}
            return f"{', '.join(sorted(numbers)) or 'it'} asks for {span} already"
    return ""


def _covers(row: Subscription, moment: datetime) -> bool:
    return row.started_at <= moment and (row.expires_at is None or moment < row.expires_at)


def _is_used_in(fee: MirroredFee, span: Period, times: Iterable[Collecting]) -> bool:
    used = used_part(fee, times)
    return fee.amount.amount > 0 and used is not None and used.overlap(span) is not None


def _subscriptions(account: Account) -> list[Subscribed]:
    rows = Subscription.objects.filter(account=account).select_related("plan")
    return [subscribed(row, account.currency) for row in rows.order_by("started_at")]


def _decided(subscriptions: Iterable[Subscribed], now: datetime) -> list[Collecting]:
    """Return when the provider collects; an end that lies ahead may be taken back yet."""
    return [
        Collecting(time.start, time.end if time.end and time.end <= now else None)
        for time in collecting_times(subscriptions)
        if time.start <= now
    ]


def _mirrored(account: Account) -> dict[int, list[MirroredFee]]:
    """Return the fees that the provider asks for, by the mirrored invoice."""
    rows = (
        InvoiceLine.objects.filter(
            invoice__account=account, invoice__kind=Invoice.Kind.SUBSCRIPTION
        )
        .exclude(invoice__status__in=NOT_FINAL)
        .order_by("invoice__period_start", "invoice_id", "position")
        .values_list("invoice_id", "invoice__number", "period_start", "period_end", "amount")
    )
    fees: defaultdict[int, list[MirroredFee]] = defaultdict(list)
    for invoice_id, number, start, end, amount in rows:
        period, money = Period(start, end), Money(amount, account.currency)
        fees[invoice_id].append(MirroredFee(number or "", period, money))
    return dict(fees)


def _given_back(invoice_ids: Iterable[int]) -> dict[int, Decimal]:
    """Return what credit notes took back of the invoices' lines."""
    rows = CreditNoteLine.objects.filter(credit_note__invoice__in=invoice_ids)
    sums = rows.values_list("credit_note__invoice").annotate(sum=Sum("amount"))
    return dict(sums.order_by())


def _unused_span(fees: Sequence[MirroredFee], times: Sequence[Collecting]) -> Period:
    """Return the time after use that an invoice's fees are for."""
    left = [
        Period(used.end if used else fee.period.start, fee.period.end)
        for fee in fees
        if (used := used_part(fee, times)) != fee.period
    ]
    return Period(min(span.start for span in left), max(span.end for span in left))
