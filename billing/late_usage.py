"""Late usage: what closed periods leave to the next invoice, and what nobody can bill any more.

A closed period is stated twice, without its late usage that is not billed yet and with it, both as
the terms are now. The difference is what that usage costs. A price or a rule that was changed since
makes none: that is a matter of re-rating.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from django.db import connection
from django.db.models import Exists, OuterRef, Sum

import metering.late
from billing.adjustments import (
    NOTHING_CARRIED,
    Adjustment,
    Carried,
    Charged,
    Component,
    CreditMove,
    Unbilled,
    credit_lines,
    move_credits,
    usage_differences,
    with_late_usage,
)
from billing.credit_pools import credit_pools
from billing.fees import FeeKind
from billing.history import (
    BILLING_A_PERIOD,
    UsageNotKeptError,
    billing_periods,
    invoiced_usage,
    refuse_lost_usage,
    schedule_in,
)
from billing.lifecycle import NOT_FINAL
from billing.models import (
    Account,
    BilledLateUsage,
    Correction,
    CorrectionLine,
    Invoice,
    InvoiceAdjustment,
)
from billing.money import Money
from billing.own_facts import AccountPeriod, own_facts_of
from billing.rating import BY_DESIGN, PricedUsage, Unpriced, rate_usage
from billing.statement import PeriodFacts, state_period
from metering.lateness import LateWindow
from metering.meters import Meter
from metering.period import EPOCH, Period


@dataclass(frozen=True, slots=True)
class UnbilledUsage:
    """Late usage of one meter in a closed period that no invoice can ask for. In base units."""

    period: Period
    meter: Meter
    quantity: int
    reason: Unbilled | Unpriced


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What an account's late usage comes to that is not billed yet, and what of it cannot be."""

    carried: Carried
    unbilled: tuple[UnbilledUsage, ...]


@dataclass(slots=True)
class _LatePeriod:
    """The late windows of one closed period: those that are billed, and all that are known."""

    billed: list[LateWindow] = field(default_factory=list)
    known: list[LateWindow] = field(default_factory=list)
    # What is known beyond what is billed, window by window.
    waiting: list[LateWindow] = field(default_factory=list)


def carried_to(accounts: Sequence[Account]) -> dict[UUID, Carried]:
    """Return what closed periods leave to each account's open one, where there is something.

    Two queries for all of them, and more only for accounts with late usage or corrections.
    """
    corrected = _corrected([account.pk for account in accounts])
    found = {pk: one.carried for pk, one in _reckonings(accounts, corrected).items()}
    for pk, lines in _waiting_corrections(corrected).items():
        carried = found.get(pk, NOTHING_CARRIED)
        found[pk] = replace(carried, adjustments=(*carried.adjustments, *lines))
    return {pk: carried for pk, carried in found.items() if carried != NOTHING_CARRIED}


def reckon_late_usage(accounts: Sequence[Account]) -> dict[UUID, Reckoning]:
    """Return what becomes of late usage that is not billed yet, of the accounts that have some."""
    return _reckonings(accounts, _corrected([account.pk for account in accounts]))


def _reckonings(accounts: Sequence[Account], corrected: Collection[UUID]) -> dict[UUID, Reckoning]:
    closed = [account for account in accounts if account.open_period_start > account.opened_at]
    known = metering.late.late_usage_of_spans(
        [(account.pk, Period(EPOCH, account.open_period_start)) for account in closed]
    )
    billed = _billed([account.pk for account in closed if account.pk in corrected])
    reckonings = {}
    for account, windows in zip(closed, known, strict=True):
        if periods := _waiting_periods(account, windows, billed.get(account.pk, {})):
            reckonings[account.pk] = _reckon(account, periods)
    return reckonings


def _corrected(account_ids: Sequence[UUID]) -> set[UUID]:
    """Return the accounts of which an invoice billed late usage, or was corrected: mostly none."""
    with connection.cursor() as cursor:
        cursor.execute(_CORRECTED, [list(account_ids)])
        return {account_id for (account_id,) in cursor.fetchall()}


_CORRECTED = """
    SELECT DISTINCT account_id FROM billing_invoice invoice
    WHERE account_id = ANY(%s) AND (
        EXISTS (SELECT FROM billing_billedlateusage billed WHERE billed.invoice_id = invoice.id)
        OR EXISTS (SELECT FROM billing_correction correction
                   WHERE correction.invoice_id = invoice.id)
    )
"""


def _waiting_corrections(account_ids: Collection[UUID]) -> dict[UUID, list[Adjustment]]:
    """Return the lines of corrections that were decided on and are on no final invoice yet."""
    if not account_ids:
        return {}
    taken = InvoiceAdjustment.objects.filter(correction_line=OuterRef("pk")).exclude(
        line__invoice__status__in=NOT_FINAL
    )
    lines = (
        CorrectionLine.objects.filter(
            ~Exists(taken),
            correction__status=Correction.Status.APPLIED,
            correction__settlement=Correction.Settlement.ADJUSTMENT,
            correction__invoice__account__in=account_ids,
        )
        .select_related("correction__invoice")
        .order_by("correction_id", "position")
    )
    waiting: dict[UUID, list[Adjustment]] = {}
    for line in lines:
        invoice = line.correction.invoice
        waiting.setdefault(invoice.account_id, []).append(
            Adjustment(
                Component(line.component),
                invoice.period,
                Period(line.period_start, line.period_end),
                Money(line.amount, line.correction.currency),
                Meter(line.meter) if line.meter else None,
                int(line.quantity),
                credit_id=line.grant_id,
                description=line.description,
                correction_line_id=line.pk,
            )
        )
    return waiting


def billed_windows(account_id: UUID, period: Period) -> list[LateWindow]:
    """Return the late usage of a closed period that invoices have asked for."""
    return [
        window
        for window in _billed([account_id]).get(account_id, {}).values()
        if window.window_start in period
    ]


_Key = tuple[int, Meter, datetime]


def _billed(account_ids: Collection[UUID]) -> dict[UUID, dict[_Key, LateWindow]]:
    if not account_ids:
        return {}
    rows = (
        BilledLateUsage.objects.filter(invoice__account__in=account_ids)
        .exclude(invoice__status__in=NOT_FINAL)
        .values_list("invoice__account_id", "sandbox_id", "life_id", "meter", "window_start")
        .annotate(total=Sum("quantity"))
        .order_by("window_start", "sandbox_id", "life_id", "meter")
    )
    billed: dict[UUID, dict[_Key, LateWindow]] = {}
    for account_id, sandbox_id, life_id, meter, start, total in rows:
        window = LateWindow(sandbox_id, life_id, Meter(meter), start, int(total))
        billed.setdefault(account_id, {})[life_id, window.meter, start] = window
    return billed


def _waiting_periods(
    account: Account, known: Sequence[LateWindow], billed: Mapping[_Key, LateWindow]
) -> dict[Period, _LatePeriod]:
    """Return the closed periods with late usage that is not billed as it is known now."""
    by_key = {(window.life_id, window.meter, window.window_start): window for window in known}
    waiting = []
    # What was late and is not any more counts against what was billed of it; but metering forgets
    # late usage after years.
    remembered = metering.late.remembered_since() if billed.keys() - by_key.keys() else None
    for key in by_key.keys() | billed.keys():
        now, then = by_key.get(key), billed.get(key)
        window = now or then
        if window is None or (now is None and remembered and window.window_start < remembered):
            continue
        left = (now.quantity if now else 0) - (then.quantity if then else 0)
        if left:
            waiting.append(window._replace(quantity=left))
    if not waiting:
        return {}
    first = min(window.window_start for window in waiting)
    periods = billing_periods(account, Period(first, account.open_period_start))
    found: dict[Period, _LatePeriod] = {}
    for window in sorted(waiting, key=lambda one: (one.window_start, one)):
        period = next(one for one in periods if window.window_start in one)
        found.setdefault(period, _LatePeriod()).waiting.append(window)
    for period, late in found.items():
        late.known = [window for window in known if window.window_start in period]
        late.billed = [window for window in billed.values() if window.window_start in period]
    return found


def _reckon(account: Account, periods: Mapping[Period, _LatePeriod]) -> Reckoning:
    adjustments: list[Adjustment] = []
    moves: list[CreditMove] = []
    settled: list[LateWindow] = []
    unbilled: list[UnbilledUsage] = []
    for period in sorted(periods):
        late = periods[period]
        priced = _state(account, period, late)
        if isinstance(priced, Unbilled):
            unbilled += _unbilled(period, late.waiting, priced)
            continue
        before, after = priced
        reasons = _unpriced(late.waiting, after)
        for reason in sorted(set(reasons.values())):
            windows = [window for window, why in reasons.items() if why is reason]
            unbilled += _unbilled(period, windows, reason)
        settled += [window for window in late.waiting if window not in reasons]
        pools = credit_pools(account, period, moves)
        moved = move_credits(pools, before=before.spent, after=after.spent)
        adjustments += usage_differences(before, after, billing_period=period)
        adjustments += credit_lines(moved, billing_period=period)
        moves += moved
    carried = Carried(tuple(adjustments), tuple(moves), tuple(settled))
    return Reckoning(carried, tuple(unbilled))


def _state(
    account: Account, period: Period, late: _LatePeriod
) -> tuple[Charged, Charged] | Unbilled:
    """Return what the period comes to with what is billed, and with all that is known by now."""
    if _is_void(account, period):
        return Unbilled.INVOICE_VOID
    [own] = own_facts_of([AccountPeriod(account, period, schedule_in(account, period))])
    if isinstance(own, ValueError):
        return Unbilled.PRICES_AT_FAULT
    invoiced = invoiced_usage(account.pk, period).get(period.start, {})
    try:
        refuse_lost_usage(rate_usage(own.usage, currency=account.currency), invoiced)
    except UsageNotKeptError:
        return Unbilled.USAGE_NOT_KEPT
    try:
        before = with_late_usage(own.usage, late.billed)
        after = with_late_usage(own.usage, late.known)
    except ValueError:
        return Unbilled.BELOW_ZERO
    return charged(own, before), charged(own, after)


def charged(facts: PeriodFacts, usage: Sequence[PricedUsage]) -> Charged:
    """Return what the period comes to with this usage, as far as usage decides it."""
    statement = state_period(replace(facts, usage=tuple(usage), credits_held=()))
    true_up = (line.amount for line in statement.fees if line.kind is FeeKind.TRUE_UP)
    return Charged(
        statement.rating, statement.totals.discounts, Money.total(true_up, facts.currency)
    )


def _is_void(account: Account, period: Period) -> bool:
    """Return whether the period's invoice was taken back, and no other took its place."""
    statuses = set(
        Invoice.objects.filter(
            account=account,
            kind__in=BILLING_A_PERIOD,
            period_start=period.start,
            period_end=period.end,
            number__isnull=False,
        ).values_list("status", flat=True)
    )
    return statuses == {Invoice.Status.VOID}


def _unpriced(waiting: Sequence[LateWindow], after: Charged) -> dict[LateWindow, Unpriced]:
    """Return the windows that should be charged and have no price, by mistake, with the reason."""
    return {
        window: entry.reason
        for entry in after.rating.unpriced
        if entry.reason not in BY_DESIGN
        for window in waiting
        if window.meter is entry.meter and window.window_start in entry.period
    }


def _unbilled(
    period: Period, windows: Sequence[LateWindow], reason: Unbilled | Unpriced
) -> Iterator[UnbilledUsage]:
    quantities: Counter[Meter] = Counter()
    for window in windows:
        quantities[window.meter] += window.quantity
    for meter in Meter:
        if quantity := quantities[meter]:
            yield UnbilledUsage(period, meter, quantity, reason)
