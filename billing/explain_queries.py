"""Reads what an invoice line rests on, and explains it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from fractions import Fraction

from django.db.models import QuerySet, Sum

from billing.conservation import InvoiceRows, state_conservation
from billing.conservation_queries import NOT_STATED, rows_of
from billing.credits import CreditKind
from billing.evidence import evidence_of
from billing.explain import (
    Check,
    CreditPaid,
    DiscountShare,
    Explanation,
    LateWindow,
    PriceVersion,
    checks_of,
    coverage_of,
    share_out,
)
from billing.facts import DEFAULT_PLAN
from billing.invoice_documents import zone_of
from billing.invoice_words import credit_name, discount_basis, fee_basis
from billing.line_costs import PartCost, line_costs
from billing.models import (
    BilledLateUsage,
    CreditEntry,
    Invoice,
    InvoiceAdjustment,
    InvoiceDiscount,
    InvoiceLine,
    Plan,
    PriceBookVersion,
    Subscription,
)
from billing.money import Money
from billing.queries import one_snapshot
from metering.evidence import LifeEvidence
from metering.life_windows import LifeWindow, life_windows
from metering.meters import Meter
from metering.period import WINDOW

MOST_LATE_WINDOWS = 500
"""So many rows of late usage are told of an adjustment."""
NOT_RECKONED_HERE = "As the payment provider invoiced it, under its own number."
_ADJUSTED = "What {component} of the billing period from {start:%Y-%m-%d} came to {more}."

logger = logging.getLogger(__name__)


class NoSuchLineError(LookupError):
    """The invoice has no line at this position, or the line rests on no such life."""


def explain_line(invoice_id: int, position: int, *, after: str = "") -> Explanation:
    """Return where a line comes from; of its sandboxes, the first ones after `after`.

    The same each time of a final invoice. Where something does not add up, `sums` is false, and
    the log has it. Raises Invoice.DoesNotExist, NoSuchLineError.
    """
    with one_snapshot():
        invoice = Invoice.objects.select_related("account").get(pk=invoice_id)
        explanation = _explain(invoice, position, after)
    if not explanation.sums:
        wrong = [check.name for check in explanation.checks if not check.holds]
        logger.error(
            "invoice line does not add up",
            extra={"invoice_id": invoice_id, "position": position, "checks": wrong},
        )
    return explanation


def windows_of(
    invoice_id: int, position: int, life_id: int, *, after: datetime | None = None
) -> list[LifeWindow]:
    """Return the windows of one life that a usage line rests on, as far as they are still kept.

    The next ones after `after`; see `metering.life_windows`. Raises Invoice.DoesNotExist,
    NoSuchLineError.
    """
    invoice = Invoice.objects.get(pk=invoice_id)
    line = _line_at(invoice.lines.filter(kind=InvoiceLine.Kind.USAGE), position)
    # Only of a life that the line rests on: another account's is none of them.
    if not any(life.life_id == life_id for life in evidence_of(invoice, [line])[line.pk]):
        raise NoSuchLineError(f"Line {position} rests on no life {life_id}.")
    return life_windows(life_id, Meter(line.meter), line.period, after=after)


def _line_at(lines: Iterable[InvoiceLine], position: int) -> InvoiceLine:
    for line in lines:
        if line.position == position:
            return line
    raise NoSuchLineError(f"There is no line {position}.")


def _explain(invoice: Invoice, position: int, after: str) -> Explanation:
    lines = lines_to_explain(invoice)
    line = _line_at(lines, position)
    rows = rows_of([invoice], now=datetime.now(UTC))[invoice.pk]
    discounts = list(invoice.applied_discounts.order_by("position"))
    parts = _parts(invoice, lines, line)
    exact = sum((part.cost for part in parts), start=Fraction(0)) if parts else None
    amount = Money(line.amount, invoice.currency)
    is_usage = line.kind == InvoiceLine.Kind.USAGE
    lives: Sequence[LifeEvidence] = evidence_of(invoice, [line])[line.pk] if is_usage else ()
    sandboxes = (
        share_out(lives, quantity=int(line.quantity), cost=exact or Fraction(0), after=after)
        if is_usage
        else None
    )
    late = _late_usage(invoice, line)
    shares = tuple(_discount_shares(invoice, line, discounts))
    checks: list[Check] = []
    if exact is not None:
        rounded = Money.rounded(exact, invoice.currency)
        checks.append(
            Check("parts, rounded once", Fraction(rounded.amount), Fraction(amount.amount))
        )
    if sandboxes:
        checks += checks_of(sandboxes, quantity=int(line.quantity), cost=exact or Fraction(0))
    if late:
        checks.append(_late_check(invoice, line))
    if shares:
        whole = sum((Fraction(share.share.amount) for share in shares), start=Fraction(0))
        checks.append(Check("discounts of the line", whole, Fraction(line.discount)))
    checks += checks_of_rows(invoice, rows)
    return Explanation(
        invoice_id=invoice.pk,
        number=invoice.number,
        currency=invoice.currency,
        position=line.position,
        kind=line.kind,
        description=line.description,
        basis=basis_of(invoice, line, lines, discounts),
        period=line.period,
        meter=line.meter,
        charge=line.charge,
        unit=line.unit,
        base_unit=line.base_unit,
        unit_size=int(line.unit_size),
        quantity=int(line.quantity),
        price_version=_price_version(invoice, line) if is_usage else None,
        parts=parts,
        exact_cost=exact,
        rounding=None if exact is None else Fraction(amount.amount) - exact,
        amount=amount,
        is_kept=bool(invoice.evidence_hash),
        sandboxes=sandboxes,
        coverage=coverage_of(lives),
        late_usage=late,
        discounts=shares,
        discount=Money(line.discount, invoice.currency),
        credits=tuple(credits_of(invoice)),
        checks=tuple(checks),
    )


def lines_to_explain(invoice: Invoice) -> list[InvoiceLine]:
    """Return the invoice's lines in order, each with its parts and what it adjusts."""
    lines = invoice.lines.select_related("adjustment").prefetch_related("parts")
    return list(lines.order_by("position"))


def adjusted_by(line: InvoiceLine) -> InvoiceAdjustment | None:
    """Return which part of an earlier period a line is about; None where it is not said."""
    about: InvoiceAdjustment | None = getattr(line, "adjustment", None)
    return about


def _parts(
    invoice: Invoice, lines: Sequence[InvoiceLine], line: InvoiceLine
) -> tuple[PartCost, ...]:
    if invoice.kind in NOT_STATED:
        return ()
    if line.kind == InvoiceLine.Kind.TRUE_UP:
        return true_up_parts(invoice, line)
    costs = line_costs([(row, list(row.parts.all())) for row in lines])
    return costs[lines.index(line)] or ()


def true_up_parts(invoice: Invoice, line: InvoiceLine) -> tuple[PartCost, ...]:
    """Return the committed minimum of the period and what usage came to, which is taken off it."""
    spent = invoice.usage_fee - invoice.discounts
    # Where several commitments share the period, the line names the last; they sum to this.
    minimum = spent + line.amount
    one = Fraction(1)
    return (
        PartCost("committed_minimum", None, one, minimum, Fraction(minimum)),
        PartCost("usage_after_discounts", None, -one, spent, -Fraction(spent)),
    )


def checks_of_rows(invoice: Invoice, rows: InvoiceRows) -> Iterator[Check]:
    """Yield the sums from the lines to the amount due, as the conservation statement has them."""
    if invoice.kind in NOT_STATED:
        return
    statement = state_conservation(rows)
    yield Check("invoice: seal of the evidence", Fraction(statement.is_sealed), Fraction(1))
    for equation in statement.equations:
        if not equation.name.startswith("line "):
            yield Check(
                f"invoice: {equation.name}", Fraction(equation.should_be), Fraction(equation.figure)
            )


def basis_of(
    invoice: Invoice,
    line: InvoiceLine,
    lines: Sequence[InvoiceLine],
    discounts: Sequence[InvoiceDiscount],
) -> str:
    """Return in words what a line was reckoned from; of usage nothing, as its parts say it."""
    if invoice.kind in NOT_STATED:
        return NOT_RECKONED_HERE
    match line.kind:
        case InvoiceLine.Kind.FEE | InvoiceLine.Kind.UNUSED_FEE | InvoiceLine.Kind.TRUE_UP:
            return fee_basis(line, invoice.currency)
        case InvoiceLine.Kind.FEE_DISCOUNT:
            annual = [row for row in discounts if row.base == InvoiceDiscount.Base.ANNUAL_FEE]
            taken = [row for row in lines if row.kind == InvoiceLine.Kind.FEE_DISCOUNT]
            at = taken.index(line)
            return discount_basis(annual[at] if at < len(annual) else None, invoice.currency)
        case InvoiceLine.Kind.ADJUSTMENT:
            return _adjusted(line)
        case InvoiceLine.Kind.TOP_UP:
            return "Prepaid credit that was bought. It is taxed when it is spent."
    return ""


def _adjusted(line: InvoiceLine) -> str:
    about = adjusted_by(line)
    if about is None:
        return "A difference to what an earlier period came to."
    return _ADJUSTED.format(
        component=about.component.replace("_", " "),
        start=about.billing_period_start,
        more="more, with what became known of it"
        if line.amount > 0
        else "less, with what is known",
    )


def _late_usage(invoice: Invoice, line: InvoiceLine) -> tuple[LateWindow, ...]:
    if line.kind != InvoiceLine.Kind.ADJUSTMENT or not line.meter:
        return ()
    about = adjusted_by(line)
    if about and about.correction_line_id:
        # A correction's line is for none, though the invoice may settle some of the same span.
        return ()
    rows = _late_rows(invoice, line)[:MOST_LATE_WINDOWS]
    return tuple(LateWindow(r.sandbox_id, r.window_start, int(r.quantity)) for r in rows)


def _late_rows(invoice: Invoice, line: InvoiceLine) -> QuerySet[BilledLateUsage]:
    return BilledLateUsage.objects.filter(
        invoice=invoice,
        meter=line.meter,
        window_start__gte=line.period_start,
        window_start__lt=line.period_end,
    ).order_by("sandbox_id", "window_start", "pk")


def _late_check(invoice: Invoice, line: InvoiceLine) -> Check:
    total = _late_rows(invoice, line).aggregate(total=Sum("quantity"))["total"]
    return Check("late usage of the line", Fraction(total or 0), Fraction(line.quantity))


def _discount_shares(
    invoice: Invoice, line: InvoiceLine, discounts: Sequence[InvoiceDiscount]
) -> Iterator[DiscountShare]:
    applied = [row for row in discounts if row.base == InvoiceDiscount.Base.USAGE_FEE]
    if line.kind != InvoiceLine.Kind.USAGE or not applied:
        return
    currency = invoice.currency
    amounts = [Money(row.amount, currency) for row in applied]
    shares = Money(line.discount, currency).split(amounts)
    for row, amount, share in zip(applied, amounts, shares, strict=True):
        yield DiscountShare(
            row.name,
            row.percent,
            Money(row.fixed_amount, currency),
            Money(row.base_amount, currency),
            amount,
            share,
        )


def credits_of(invoice: Invoice) -> Iterator[CreditPaid]:
    """Yield what each grant paid of the invoice, in the order of the ledger."""
    zone = zone_of(invoice)
    used = CreditEntry.objects.filter(invoice=invoice, kind=CreditEntry.Kind.USE)
    for entry in used.select_related("grant").order_by("pk"):
        grant = entry.grant
        paid = Money(-entry.amount, invoice.currency)
        yield CreditPaid(CreditKind(grant.kind).value, credit_name(grant, zone), paid)


def _price_version(invoice: Invoice, line: InvoiceLine) -> PriceVersion | None:
    """Return the version that was in force at the start of the line's first window."""
    start = line.period_start
    subscription = (
        Subscription.objects.filter(account=invoice.account_id, started_at__lt=start + WINDOW)
        .exclude(expires_at__lt=start + WINDOW)
        .select_related("plan")
        .order_by("started_at")
        .last()
    )
    if subscription:
        book = subscription.price_book_id or subscription.plan.price_book_id
    else:
        book = Plan.objects.get(code=DEFAULT_PLAN).price_book_id
    version = (
        PriceBookVersion.objects.filter(book=book, effective_from__lte=start)
        .exclude(effective_to__lte=start)
        .select_related("book")
        .first()
    )
    if version is None:
        return None
    return PriceVersion(version.book.name, version.effective_from, version.effective_to)
