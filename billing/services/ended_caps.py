"""What was used above a cap in the end: as its period was billed, late usage counted."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db.models import Case, DecimalField, F, OuterRef, QuerySet, Subquery, Sum, Value, When
from django.db.models.functions import Coalesce, Round

from billing.models import BudgetCap, Invoice, InvoiceAdjustment
from billing.money import MOST_DECIMALS

MEASURED_FOR: Final = timedelta(days=120)
"""After the end of its period: until then late usage may come, and invoices be corrected."""
_AMOUNT = DecimalField(max_digits=24, decimal_places=MOST_DECIMALS)


def measure_ended_caps(now: datetime) -> int:
    """Bring caps that held to their period's end up to what it was billed; return how many.

    That is the total of the period's invoice, a draft's too, and what later invoices adjust of it,
    with its tax. Caps that were lifted before keep the cost of then. Safe to repeat, and at once.
    """
    ended = (
        BudgetCap.objects.filter(
            lifted_because=BudgetCap.Ending.PERIOD_ENDED,
            period_end__lte=now,
            period_end__gt=now - MEASURED_FOR,
        )
        .annotate(invoiced=Subquery(_invoiced().values("total_amount")[:1], output_field=_AMOUNT))
        .filter(invoiced__isnull=False)
        .annotate(
            billed=F("invoiced") + Coalesce(_adjusted(), Value(Decimal(0)), output_field=_AMOUNT)
        )
        .exclude(billed=F("latest_cost"))
    )
    costs = dict(ended.values_list("pk", "billed"))
    for pk, cost in costs.items():
        BudgetCap.objects.filter(pk=pk).update(latest_cost=cost, latest_at=now)
    return len(costs)


def _invoiced() -> QuerySet[Invoice]:
    """Return the invoice of an outer cap's period; one that a cancellation ended may be shorter."""
    return Invoice.objects.filter(
        account=OuterRef("account"),
        period_start=OuterRef("period_start"),
        kind__in=(Invoice.Kind.USAGE, Invoice.Kind.FINAL),
    ).exclude(status=Invoice.Status.VOID)


def _adjusted() -> Subquery:
    """Return what final invoices adjust of an outer cap's period, with tax."""
    lines = InvoiceAdjustment.objects.filter(
        line__invoice__account=OuterRef("account"),
        line__invoice__finalised_at__isnull=False,
        billing_period_start=OuterRef("period_start"),
    ).exclude(line__invoice__status=Invoice.Status.VOID)
    with_tax = F("line__amount") * Case(
        When(line__invoice__tax_is_inclusive=True, then=Value(Decimal(1))),
        default=Value(Decimal(1)) + F("line__invoice__tax_rate"),
        output_field=_AMOUNT,
    )
    summed = (
        lines.order_by()
        .values(period=F("billing_period_start"))
        .annotate(amount=Round(Sum(with_tax, output_field=_AMOUNT), MOST_DECIMALS))
    )
    return Subquery(summed.values("amount"), output_field=_AMOUNT)
