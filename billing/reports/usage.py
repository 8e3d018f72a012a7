"""What each account used in a month, and what it costs: invoiced, or as computed so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from fractions import Fraction
from typing import Final
from uuid import UUID

from billing.facts import AccountPeriod, facts_of, schedules_of
from billing.history import BILLING_A_PERIOD
from billing.lifecycle import InvoiceStatus
from billing.models import Account, Invoice, InvoiceLine
from billing.money import Money
from billing.rating import BY_DESIGN
from billing.reports.chunks import CHUNK, Days, Plans, in_chunks
from billing.reports.month import Month
from billing.reports.rows import UsageRow
from billing.statement import PeriodFacts, Statement, state_period
from billing.totals import NegativeTotalError
from metering.meters import UNITS
from metering.period import Period
from metering.totals import running_of_spans

USAGE: Final = InvoiceLine.Kind.USAGE.value
OPEN: Final = "open"
"""The status of a period that has no invoice yet, not even a draft."""
_COVERAGE_STEP: Final = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Charged:
    """What one meter came to in a period, or in the earlier one that an adjustment is about.

    The quantity is in base units; the money is missing where there is no price.
    """

    kind: str
    meter: str
    quantity: int
    base_unit: str
    unit: str
    unit_size: int
    period: Period
    cost: Money | None
    discount: Money | None
    credits_used: Money | None = None
    note: str = ""


@dataclass(slots=True)
class BilledPeriod:
    """A billing period of an account; without an invoice, as computed now."""

    account: Account
    period: Period
    invoice: Invoice | None = None
    has_draft: bool = False
    charged: list[Charged] = field(default_factory=list)
    note: str = ""

    @property
    def status(self) -> str:
        """Where the period's invoice stands."""
        if self.invoice:
            return self.invoice.status
        return InvoiceStatus.DRAFT.value if self.has_draft else OPEN

    @property
    def number(self) -> str:
        """The number of the period's invoice, if it has one."""
        return (self.invoice.number if self.invoice else None) or ""


def usage_rows(month: Month, *, now: datetime, account_id: UUID | None) -> Iterator[UsageRow]:
    """Yield a row for each account, billing period that starts in the month, and meter."""
    for accounts in account_chunks(account_id):
        periods = periods_of(accounts, month, now=now)
        _charge_invoiced(periods)
        _charge_computed(periods)
        if not periods:
            continue
        plans = Plans({account.pk for account in accounts}, _around(periods))
        running = running_of_spans([(one.account.pk, one.period) for one in periods])
        for one, (ran, measured) in zip(periods, running, strict=True):
            coverage = _coverage(ran, measured)
            plan = plans.within(one.account.pk, one.period)
            if one.note:
                one.charged.append(_nothing(one))
            for charged in one.charged:
                yield _row(one, charged, plan=plan, coverage=coverage)


def account_chunks(account_id: UUID | None) -> Iterator[list[Account]]:
    """Yield the accounts in chunks, by name; the one alone if one is named."""
    accounts = Account.objects.order_by("name", "pk")
    if account_id is not None:
        accounts = accounts.filter(pk=account_id)
    return in_chunks(accounts.iterator(chunk_size=CHUNK))


def periods_of(accounts: Sequence[Account], month: Month, *, now: datetime) -> list[BilledPeriod]:
    """Return the accounts' billing periods that start in the month and have begun, in order.

    Closed periods are those with a final invoice: others asked for nothing.
    """
    around, days = month.around, Days(accounts)
    known = {account.pk: account for account in accounts}
    invoices = (
        Invoice.objects.filter(
            account__in=accounts,
            kind__in=BILLING_A_PERIOD,
            period_start__gte=around.start,
            period_start__lt=around.end,
        )
        .exclude(status=InvoiceStatus.VOID)
        .order_by("period_start", "pk")
    )
    final: defaultdict[UUID, list[BilledPeriod]] = defaultdict(list)
    drafts: set[tuple[UUID, datetime]] = set()
    for invoice in invoices:
        if invoice.status == InvoiceStatus.DRAFT:
            drafts.add((invoice.account_id, invoice.period_start))
        elif month.holds(days.of(invoice.account_id, invoice.period_start)):
            account = known[invoice.account_id]
            final[account.pk].append(BilledPeriod(account, invoice.period, invoice))
    schedules = schedules_of(accounts)
    periods: list[BilledPeriod] = []
    for account in accounts:
        periods += final[account.pk]
        period = account.open_period
        while period.start <= now and period.start < around.end:
            if month.holds(days.of(account.pk, period.start)):
                has_draft = (account.pk, period.start) in drafts
                periods.append(BilledPeriod(account, period, has_draft=has_draft))
            period = schedules[account.pk].starting(period.end)
    return periods


def facts_by_period(periods: Sequence[BilledPeriod]) -> list[PeriodFacts | ValueError]:
    """Return the facts of each period, by a fixed number of queries."""
    return facts_of([AccountPeriod(one.account, one.period) for one in periods])


def _charge_invoiced(periods: Sequence[BilledPeriod]) -> None:
    """Give the invoiced periods what their invoices say."""
    by_invoice = {one.invoice.pk: one for one in periods if one.invoice}
    lines: defaultdict[int, list[InvoiceLine]] = defaultdict(list)
    for line in (
        InvoiceLine.objects.filter(invoice__in=by_invoice).exclude(meter="").order_by("position")
    ):
        lines[line.invoice_id].append(line)
    for invoice_id, one in by_invoice.items():
        if invoice := one.invoice:
            currency = invoice.currency
            one.charged = _share_credits(
                [_charged(line, currency) for line in lines[invoice_id]],
                Money(invoice.credits_used, currency),
            )


def _charged(line: InvoiceLine, currency: str) -> Charged:
    return Charged(
        kind=line.kind,
        meter=line.meter,
        quantity=int(line.quantity),
        base_unit=line.base_unit,
        unit=line.unit,
        unit_size=int(line.unit_size),
        period=line.period,
        cost=Money(line.amount, currency),
        discount=Money(line.discount, currency),
    )


def _charge_computed(periods: Sequence[BilledPeriod]) -> None:
    """Give the other periods what they come to as known now."""
    computed = [one for one in periods if not one.invoice]
    for one, facts in zip(computed, facts_by_period(computed), strict=True):
        # An account that cannot be stated stops only itself, and is not left out either.
        if isinstance(facts, Exception):
            one.note = str(facts)
            continue
        try:
            statement = state_period(facts)
        except (NegativeTotalError, ValueError) as fault:
            one.note = str(fault)
            continue
        one.charged = [
            *_share_credits(_rated(statement), statement.totals.credits_used),
            *_unpriced(statement),
        ]


def _rated(statement: Statement) -> list[Charged]:
    return [
        Charged(
            kind=USAGE,
            meter=line.meter.value,
            quantity=line.quantity,
            base_unit=UNITS[line.meter].stored,
            unit=UNITS[line.meter].shown,
            unit_size=UNITS[line.meter].size,
            period=line.period,
            cost=line.amount,
            discount=discount,
        )
        for line, discount in zip(statement.rating.lines, statement.line_discounts, strict=True)
    ]


def _unpriced(statement: Statement) -> list[Charged]:
    """Return the usage that a price is missing for by mistake, which no cost is known of."""
    return [
        Charged(
            kind=USAGE,
            meter=entry.meter.value,
            quantity=entry.quantity,
            base_unit=UNITS[entry.meter].stored,
            unit=UNITS[entry.meter].shown,
            unit_size=UNITS[entry.meter].size,
            period=entry.period,
            cost=None,
            discount=None,
            note=entry.reason.value,
        )
        for entry in statement.rating.unpriced
        if entry.reason not in BY_DESIGN
    ]


def _share_credits(lines: Sequence[Charged], credits_used: Money) -> list[Charged]:
    """Return the lines by meter, each with its share of the credits; shares sum to the whole.

    Credits pay usage after its discounts, so what is left of a line after its own is its weight.
    """
    by_meter: dict[tuple[str, str, Period | None], list[Charged]] = {}
    for line in lines:
        # An adjustment is of an earlier period, and stays apart from this one's usage.
        own = None if line.kind == USAGE else line.period
        by_meter.setdefault((line.kind, line.meter, own), []).append(line)
    merged = [_together(group) for group in by_meter.values()]
    usage = [line for line in merged if line.kind == USAGE]
    if not usage:
        return merged
    none = Money.zero(credits_used.currency)
    shares = iter(
        credits_used.split([(line.cost or none) - (line.discount or none) for line in usage])
    )
    return [
        replace(line, credits_used=next(shares) if line.kind == USAGE else none) for line in merged
    ]


def _together(lines: Sequence[Charged]) -> Charged:
    """Return the lines of one meter as one: prices that changed inside the period cut it."""
    first = lines[0]
    if len(lines) == 1:
        return first
    return replace(
        first,
        quantity=sum(line.quantity for line in lines),
        period=Period(
            min(line.period.start for line in lines), max(line.period.end for line in lines)
        ),
        cost=_sum([line.cost for line in lines]),
        discount=_sum([line.discount for line in lines]),
    )


def _sum(amounts: Sequence[Money | None]) -> Money | None:
    known = [amount for amount in amounts if amount is not None]
    return Money.total(known, known[0].currency) if known else None


def _nothing(one: BilledPeriod) -> Charged:
    """Return what stands for a period that cannot be computed, with the reason in its note."""
    return Charged(USAGE, "", 0, "", "", 1, one.period, None, None, note=one.note)


def _around(periods: Sequence[BilledPeriod]) -> Period:
    return Period(min(one.period.start for one in periods), max(one.period.end for one in periods))


def _coverage(ran_ms: int, measured_ms: int) -> Decimal | None:
    """Return the measured part of the running time, cut off so that 1 means all of it."""
    if not ran_ms:
        return None
    return (Decimal(measured_ms) / Decimal(ran_ms)).quantize(_COVERAGE_STEP, ROUND_DOWN)


def _row(one: BilledPeriod, charged: Charged, *, plan: str, coverage: Decimal | None) -> UsageRow:
    # An adjustment's own period is the one it corrects.
    period = one.period if charged.kind == USAGE else charged.period
    return UsageRow(
        account_id=one.account.pk,
        account=one.account.name,
        plan=plan,
        period_start=period.start,
        period_end=period.end,
        kind=charged.kind,
        meter=charged.meter,
        quantity=Fraction(charged.quantity, charged.unit_size),
        unit=charged.unit,
        base_quantity=Decimal(charged.quantity),
        base_unit=charged.base_unit,
        currency=one.invoice.currency if one.invoice else one.account.currency,
        cost=charged.cost,
        discount=charged.discount,
        credits_used=charged.credits_used,
        coverage=coverage,
        invoice=one.number,
        status=one.status,
        note=charged.note,
    )
