"""Where a whole invoice comes from: every line with its sums, and from there to what is due.

What is told does not grow with the sandboxes: of a line's lives the sums are, and each of them is
in the line's own explanation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from django.db.models import OuterRef, Subquery, Sum

from billing.conservation import InvoiceRows, state_conservation
from billing.conservation_queries import NOT_STATED, EvidenceSum, summed_rows_of
from billing.explain import Check, Coverage, CreditPaid
from billing.explain_queries import (
    adjusted_by,
    basis_of,
    checks_of_rows,
    credits_of,
    lines_to_explain,
    true_up_parts,
)
from billing.line_costs import PartCost, line_costs
from billing.models import BilledLateUsage, CreditNote, Invoice, InvoiceDiscount, InvoiceLine
from billing.money import Money
from billing.queries import one_snapshot

MOST_LINES = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExplainedLine:
    """A line, its exact cost and the sums of what it rests on.

    `lives` and `coverage` are of usage whose evidence is kept. `checks` are the line's own.
    """

    line: InvoiceLine
    basis: str
    parts: tuple[PartCost, ...]
    exact_cost: Fraction | None
    lives: int | None
    coverage: Coverage | None
    checks: tuple[Check, ...]

    @property
    def amount(self) -> Money:
        """What the line comes to."""
        return Money(self.line.amount, self.line.invoice.currency)

    @property
    def discount(self) -> Money:
        """The line's share of the discounts, not taken off its amount."""
        return Money(self.line.discount, self.line.invoice.currency)

    @property
    def rounding(self) -> Fraction | None:
        """What rounding added; None where the line is no price times a quantity."""
        return None if self.exact_cost is None else Fraction(self.line.amount) - self.exact_cost

    @property
    def sums(self) -> bool:
        """Whether the line adds up."""
        return all(check.holds for check in self.checks)


@dataclass(frozen=True, slots=True)
class InvoiceExplanation:
    """All of an invoice. `lines` are the first 500; the checks are of all of them.

    `is_kept` says that the evidence was kept with the invoice.
    """

    invoice: Invoice
    is_kept: bool
    lines: tuple[ExplainedLine, ...]
    line_count: int
    discounts: tuple[InvoiceDiscount, ...]
    credits: tuple[CreditPaid, ...]
    credit_notes: tuple[CreditNote, ...]
    checks: tuple[Check, ...]
    sums: bool


def explain_invoice(invoice_id: int) -> InvoiceExplanation:
    """Return where an invoice comes from. The same each time of a final one but its state.

    Where something does not add up, `sums` is false, and the log has it. A fixed number of
    queries. Raises Invoice.DoesNotExist.
    """
    with one_snapshot():
        invoice = (
            Invoice.objects.select_related("account")
            .prefetch_related("applied_discounts", "credit_notes")
            .get(pk=invoice_id)
        )
        explanation = _explain(invoice, now=datetime.now(UTC))
    if not explanation.sums:
        wrong = [check.name for check in explanation.checks if not check.holds]
        lines = [told.line.position for told in explanation.lines if not told.sums]
        logger.error(
            "invoice does not add up",
            extra={"invoice_id": invoice_id, "checks": wrong, "lines": lines},
        )
    return explanation


def _explain(invoice: Invoice, *, now: datetime) -> InvoiceExplanation:
    lines = lines_to_explain(invoice)
    rows, evidence = summed_rows_of(invoice, lines, now=now)
    told = tuple(_lines(invoice, lines, rows, evidence))
    checks = (*_checks_of_meters(invoice, rows), *checks_of_rows(invoice, rows))
    return InvoiceExplanation(
        invoice=invoice,
        is_kept=bool(invoice.evidence_hash),
        lines=told[:MOST_LINES],
        line_count=len(told),
        discounts=tuple(_in_order(invoice)),
        credits=tuple(credits_of(invoice)),
        credit_notes=tuple(sorted(invoice.credit_notes.all(), key=lambda note: note.pk)),
        checks=checks,
        sums=all(check.holds for check in checks) and all(one.sums for one in told),
    )


def _lines(
    invoice: Invoice,
    lines: Sequence[InvoiceLine],
    rows: InvoiceRows,
    evidence: Mapping[int, EvidenceSum],
) -> Iterator[ExplainedLine]:
    is_stated = invoice.kind not in NOT_STATED
    costs = line_costs([(line, rows.parts[line.position]) for line in lines]) if is_stated else ()
    late = _late_usage(invoice) if is_stated else {}
    discounts = _in_order(invoice)
    for at, line in enumerate(lines):
        if line.kind == InvoiceLine.Kind.TRUE_UP and is_stated:
            parts = true_up_parts(invoice, line)
        else:
            parts = costs[at] or () if is_stated else ()
        exact = sum((part.cost for part in parts), start=Fraction(0)) if parts else None
        rests_on = evidence.get(line.position)
        yield ExplainedLine(
            line=line,
            basis=basis_of(invoice, line, lines, discounts),
            parts=parts,
            exact_cost=exact,
            lives=rests_on.lives if rests_on else None,
            coverage=Coverage(rests_on.applied_ms, rests_on.measured_ms)
            if rests_on and rests_on.applied_ms
            else None,
            checks=tuple(_checks_of_line(invoice, line, exact, rests_on, late.get(line.pk))),
        )


def _in_order(invoice: Invoice) -> list[InvoiceDiscount]:
    return sorted(invoice.applied_discounts.all(), key=lambda row: row.position)


def _checks_of_line(
    invoice: Invoice,
    line: InvoiceLine,
    exact: Fraction | None,
    rests_on: EvidenceSum | None,
    late: Decimal | None,
) -> Iterator[Check]:
    if exact is not None:
        rounded = Money.rounded(exact, invoice.currency)
        yield Check("parts, rounded once", Fraction(rounded.amount), Fraction(line.amount))
    if line.kind == InvoiceLine.Kind.USAGE and invoice.evidence_hash:
        used = rests_on.quantity if rests_on else Decimal(0)
        yield Check("quantity of all lives", Fraction(used), Fraction(line.quantity))
    if late is not None:
        yield Check("late usage of the line", Fraction(late), Fraction(line.quantity))


def _checks_of_meters(invoice: Invoice, rows: InvoiceRows) -> Iterator[Check]:
    """Yield whether the counters explain each meter's quantity, as far as that is still known."""
    if invoice.kind in NOT_STATED:
        return
    for meter in state_conservation(rows).meters:
        yield Check(
            f"{meter.meter}: explained by its counters", Fraction(meter.is_explained), Fraction(1)
        )
        if meter.parts is not None:
            yield Check(
                f"{meter.meter}: quantity in parts", Fraction(meter.parts), Fraction(meter.rated)
            )


def _late_usage(invoice: Invoice) -> dict[int, Decimal]:
    """Return the late usage that each adjustment is for, by the line's key."""
    of_line = BilledLateUsage.objects.filter(
        invoice=OuterRef("invoice"),
        meter=OuterRef("meter"),
        window_start__gte=OuterRef("period_start"),
        window_start__lt=OuterRef("period_end"),
    ).order_by()
    total = of_line.values("invoice").annotate(total=Sum("quantity")).values("total")
    lines = (
        invoice.lines.filter(kind=InvoiceLine.Kind.ADJUSTMENT)
        .exclude(meter="")
        .select_related("adjustment")
        .annotate(late=Subquery(total))
    )
    return {
        line.pk: line.late
        for line in lines
        if line.late is not None and not _is_of_correction(line)
    }


def _is_of_correction(line: InvoiceLine) -> bool:
    """Return whether a correction made the line; it is for no late usage of the same span."""
    about = adjusted_by(line)
    return about is not None and about.correction_line_id is not None
