"""What the usage of an invoice cost by local day, for its chart."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from billing.models import Invoice, InvoiceDays, InvoiceLine
from billing.money import Money
from metering.days import Calendar
from metering.meters import Meter
from metering.period import Period
from metering.totals import usage_of_spans

_DAY = timedelta(days=1)
_MOMENT = timedelta(microseconds=1)


def rows_of_days(invoices: Sequence[tuple[Invoice, ZoneInfo]]) -> list[InvoiceDays]:
    """Return the days of each invoice with its time zone, not saved, in their order.

    Each usage line's amount is shared out by quantity, so that the days sum to the usage fee.
    Empty where the usage records do not add up to the lines any more.
    """
    lines = _usage_lines([invoice for invoice, _ in invoices])
    days = [_days_in(invoice.period, zone) for invoice, zone in invoices]
    wanted: dict[tuple[int, Period], None] = {}
    for (invoice, _), of_invoice in zip(invoices, days, strict=True):
        for line in lines.get(invoice.pk, ()):
            for _, span in of_invoice:
                if part := line.period.overlap(span):
                    wanted[invoice.pk, part] = None
    accounts = {invoice.pk: invoice.account_id for invoice, _ in invoices}
    used = usage_of_spans([(accounts[key], part) for key, part in wanted])
    usage = dict(zip(wanted, used, strict=True))
    return [
        InvoiceDays(
            invoice=invoice,
            first_day=of_invoice[0][0],
            amounts=[
                cost.amount
                for cost in _costs(invoice, lines.get(invoice.pk, ()), of_invoice, usage)
            ],
        )
        for (invoice, _), of_invoice in zip(invoices, days, strict=True)
    ]


def _usage_lines(invoices: Sequence[Invoice]) -> dict[int, list[InvoiceLine]]:
    lines: dict[int, list[InvoiceLine]] = {}
    for line in InvoiceLine.objects.filter(
        invoice__in=invoices, kind=InvoiceLine.Kind.USAGE
    ).order_by("invoice_id", "position"):
        lines.setdefault(line.invoice_id, []).append(line)
    return lines


def _days_in(period: Period, zone: ZoneInfo) -> list[tuple[date, Period]]:
    """Return the local days that share time with the period, each with its time in it.

    A day that the zone leaves out has none, and is left out here too, but as a day without
    usage: an entry's place says which day it is.
    """
    calendar = Calendar((zone,))
    day, last = (calendar.day_of(moment) for moment in (period.start, period.end - _MOMENT))
    days: list[tuple[date, Period]] = []
    while day <= last:
        span = calendar.span(day, day)
        if part := span and span.overlap(period):
            days.append((day, part))
        day += _DAY
    return days


def _costs(
    invoice: Invoice,
    lines: Sequence[InvoiceLine],
    days: Sequence[tuple[date, Period]],
    usage: dict[tuple[int, Period], dict[Meter, int]],
) -> list[Money]:
    """Return what each day bears, from the first day on; none where usage is missing."""
    currency = invoice.currency
    first, last = days[0][0], days[-1][0]
    costs = [Money.zero(currency)] * ((last - first).days + 1)
    for line in lines:
        weights = [0] * len(costs)
        for day, span in days:
            if part := line.period.overlap(span):
                used = usage[invoice.pk, part].get(Meter(line.meter), 0)
                weights[(day - first).days] += used
        if sum(weights) != line.quantity:
            return []
        for at, share in enumerate(Money(line.amount, currency).split(weights)):
            costs[at] += share
    return costs
