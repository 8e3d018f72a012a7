"""What the usage of billing periods cost exactly: as invoiced, or as it comes to by now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from billing.account_terms import Terms
from billing.history import BILLING_A_PERIOD
from billing.lifecycle import NOT_FINAL
from billing.line_costs import line_costs
from billing.models import Account, Invoice, InvoiceLine
from billing.own_facts import AccountPeriod, priced_usage_of
from billing.rating import rate_usage
from metering.meters import Meter
from metering.period import Period
from metering.settled import quantities_so_far


@dataclass(frozen=True, slots=True)
class MeterSpan:
    """What a meter's usage in a span cost: one usage line, of an invoice or to be."""

    meter: Meter
    period: Period
    quantity: int
    cost: Fraction


def period_costs(account: Account, periods: Sequence[Period], *, terms: Terms) -> list[MeterSpan]:
    """Return what the usage of the account's billing periods cost, in the order of time.

    `terms` are those of the account in all of these periods. Of a period with a final invoice it
    is what its lines say. Raises ValueError when a price that holds in another is no good.
    """
    if not periods:
        return []
    invoices = _final_invoices(account, Period(periods[0].start, periods[-1].end))
    spans = [span for invoice in invoices for span in invoiced_spans(list(invoice.lines.all()))]
    invoiced = {invoice.period_start for invoice in invoices}
    others = [period for period in periods if period.start not in invoiced]
    wanted = [AccountPeriod(account, period) for period in others]
    for usage in priced_usage_of(wanted, terms=terms, used=quantities_so_far):
        if isinstance(usage, ValueError):
            raise usage
        rating = rate_usage(usage, currency=account.currency)
        spans += [
            MeterSpan(line.meter, line.period, line.quantity, line.cost) for line in rating.lines
        ]
    return sorted(spans, key=lambda span: span.period.start)


def invoiced_spans(lines: Sequence[InvoiceLine]) -> list[MeterSpan]:
    """Return what the usage lines among all `lines` of an invoice say; parts are fetched."""
    costs = line_costs([(line, list(line.parts.all())) for line in lines])
    return [
        MeterSpan(
            Meter(line.meter),
            line.period,
            int(line.quantity),
            sum((part.cost for part in parts or ()), start=Fraction(0)),
        )
        for line, parts in zip(lines, costs, strict=True)
        if line.kind == InvoiceLine.Kind.USAGE
    ]


def _final_invoices(account: Account, span: Period) -> list[Invoice]:
    return list(
        Invoice.objects.filter(
            account=account,
            kind__in=BILLING_A_PERIOD,
            period_start__gte=span.start,
            period_start__lt=span.end,
        )
        .exclude(status__in=NOT_FINAL)
        .prefetch_related("lines__parts")
        # Of who sold and who bought, which is long, nothing is asked.
        .only("period_start")
        .order_by("period_start")
    )
