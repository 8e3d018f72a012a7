"""What the usage lines of an invoice rest on, life by life: kept for good, or found live."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

from billing.models import Invoice, InvoiceEvidence, InvoiceLine
from billing.money import Money
from metering.evidence import LifeEvidence, evidence_of_spans
from metering.meters import Meter

KEPT = (
    "sandbox_id",
    "life_id",
    "container_id",
    "started_at",
    "first_window",
    "last_window",
    "sample_count",
    "applied_ms",
    "measured_ms",
    "records_hash",
)


def evidence_of(
    invoice: Invoice, lines: Sequence[InvoiceLine]
) -> dict[int, Sequence[LifeEvidence]]:
    """Return what each usage line of the invoice rests on, by the line's key.

    What was kept with it; of a draft, and of an invoice from before that was done, what the
    usage records say now.
    """
    usage = [line for line in lines if line.kind == InvoiceLine.Kind.USAGE]
    kept: defaultdict[int, list[LifeEvidence]] = defaultdict(list)
    if invoice.number:
        for row in InvoiceEvidence.objects.filter(line__in=usage):
            kept[row.line_id].append(_life(row))
    if kept or not usage:
        return {line.pk: kept[line.pk] for line in usage}
    spans = list(dict.fromkeys(line.period for line in usage))
    found = evidence_of_spans([(invoice.account_id, span) for span in spans])
    by_span: Mapping[object, Mapping[Meter, Sequence[LifeEvidence]]] = dict(
        zip(spans, found, strict=True)
    )
    return {line.pk: by_span[line.period].get(Meter(line.meter), ()) for line in usage}


def cost_by_sandbox(
    lines: Sequence[tuple[Money, Sequence[LifeEvidence]]],
) -> list[tuple[str, Money]]:
    """Return what each sandbox bears of the lines' amounts, the costliest first.

    A line is shared out by quantity, in whole smallest units; what is due without any usage is
    nobody's. The shares sum to the lines that somebody used something of.
    """
    costs: dict[str, Money] = {}
    for amount, lives in lines:
        used = quantity_by_sandbox(lives)
        if not any(used.values()):
            continue
        shares = amount.split([Fraction(quantity) for quantity in used.values()])
        for sandbox, share in zip(used, shares, strict=True):
            costs[sandbox] = costs[sandbox] + share if sandbox in costs else share
    return sorted(costs.items(), key=lambda cost: (-cost[1].amount, cost[0]))


def quantity_by_sandbox(lives: Sequence[LifeEvidence]) -> dict[str, int]:
    """Return what each sandbox's lives used together, in base units, by sandbox id."""
    used: defaultdict[str, int] = defaultdict(int)
    for life in lives:
        used[life.sandbox_id] += life.quantity
    return dict(sorted(used.items()))


def _life(row: InvoiceEvidence) -> LifeEvidence:
    return LifeEvidence(
        record_count=row.window_count,
        quantity=int(row.quantity),
        opening=None if row.opening is None else int(row.opening),
        closing=None if row.closing is None else int(row.closing),
        **{name: getattr(row, name) for name in KEPT},
    )
