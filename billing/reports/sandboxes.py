"""The usage report in detail: whose usage it was, sandbox by sandbox."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from billing.attribution import UsedPart, attribute_cost
from billing.history import UsageNotKeptError, refuse_lost_usage
from billing.models import InvoiceLine
from billing.rating import PricedUsage, rate_usage
from billing.reports.month import Month
from billing.reports.rows import SandboxUsageRow
from billing.reports.usage import (
    USAGE,
    BilledPeriod,
    account_chunks,
    facts_by_period,
    periods_of,
)
from billing.statement import PeriodFacts
from metering.meters import UNITS, Meter
from metering.totals import usage_of_spans_by_sandbox

NOT_KEPT = "usage records are not kept any more"
WITHOUT_USAGE = "due without usage"


@dataclass(frozen=True, slots=True)
class _Share:
    """What a sandbox used of a meter, in base units, and the exact cost of that."""

    sandbox: str
    meter: Meter | None
    quantity: int
    cost: Fraction | None
    note: str = ""


def sandbox_rows(
    month: Month, *, now: datetime, account_id: UUID | None
) -> Iterator[SandboxUsageRow]:
    """Yield a row for each account, billing period that starts in the month, sandbox and meter.

    Their raw costs sum to the period's. Usage that has no price has none.
    """
    for accounts in account_chunks(account_id):
        periods = periods_of(accounts, month, now=now)
        invoiced = _invoiced_usage(periods)
        facts = facts_by_period(periods)
        spans = [
            (one.account.pk, usage.period)
            for one, known in zip(periods, facts, strict=True)
            if not isinstance(known, Exception)
            for usage in known.usage
        ]
        used = iter(usage_of_spans_by_sandbox(spans))
        for one, known in zip(periods, facts, strict=True):
            if isinstance(known, Exception):
                yield _row(one, _Share("", None, 0, None, str(known)))
                continue
            by_sandbox = [(usage, next(used)) for usage in known.usage]
            charged = invoiced.get(one.invoice.pk, {}) if one.invoice else {}
            for share in _shares(known, by_sandbox, charged):
                yield _row(one, share)


def _invoiced_usage(periods: Sequence[BilledPeriod]) -> dict[int, dict[Meter, int]]:
    """Return what each invoice charged for, in base units."""
    found: defaultdict[int, defaultdict[Meter, int]] = defaultdict(lambda: defaultdict(int))
    lines = InvoiceLine.objects.filter(
        invoice__in=[one.invoice.pk for one in periods if one.invoice], kind=USAGE
    )
    for invoice_id, meter, quantity in lines.values_list("invoice_id", "meter", "quantity"):
        found[invoice_id][Meter(meter)] += int(quantity)
    return {invoice_id: dict(usage) for invoice_id, usage in found.items()}


def _shares(
    facts: PeriodFacts,
    by_sandbox: Sequence[tuple[PricedUsage, Mapping[str, Mapping[Meter, int]]]],
    charged: Mapping[Meter, int],
) -> Iterator[_Share]:
    rating = rate_usage(facts.usage, currency=facts.currency)
    try:
        refuse_lost_usage(rating, charged)
    except UsageNotKeptError:
        yield _Share("", None, 0, None, NOT_KEPT)
        return
    parts = {usage.period: UsedPart(usage.period, usage.usage, used) for usage, used in by_sandbox}
    costs = attribute_cost(rating.lines, parts)
    quantities: defaultdict[str, defaultdict[Meter, int]] = defaultdict(lambda: defaultdict(int))
    for _, used in by_sandbox:
        for sandbox, usage in used.items():
            for meter, quantity in usage.items():
                quantities[sandbox][meter] += quantity
    for sandbox in sorted(quantities):
        known = costs.by_key.get(sandbox, {})
        for meter, quantity in quantities[sandbox].items():
            yield _Share(sandbox, meter, quantity, known.get(meter))
    if costs.without_usage:
        yield _Share("", None, 0, costs.without_usage, WITHOUT_USAGE)


def _row(one: BilledPeriod, share: _Share) -> SandboxUsageRow:
    unit = UNITS[share.meter] if share.meter else None
    return SandboxUsageRow(
        account_id=one.account.pk,
        account=one.account.name,
        period_start=one.period.start,
        period_end=one.period.end,
        sandbox=share.sandbox,
        meter=share.meter.value if share.meter else "",
        quantity=unit.shown_quantity(share.quantity) if unit else None,
        unit=unit.shown if unit else "",
        base_quantity=Decimal(share.quantity) if unit else None,
        base_unit=unit.stored if unit else "",
        currency=one.account.currency,
        raw_cost=share.cost,
        invoice=one.number,
        status=one.status,
        note=share.note,
    )
