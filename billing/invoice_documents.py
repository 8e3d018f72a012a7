"""An invoice's document, put together from its rows.

Of a final invoice it is as of its issue, and made from what does not change any more: its own
columns, lines, discounts, evidence and days, and the credit ledger. Only what is void says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings

from billing.charges import PartKind
from billing.documents.document import (
    Adjustment,
    CreditUsed,
    DayCost,
    Discount,
    DocumentKind,
    FeeLine,
    FeeLineKind,
    InvoiceDocument,
    MeterLines,
    Party,
    PricePart,
    SandboxCost,
    TopUp,
    UsageLine,
)
from billing.evidence import cost_by_sandbox, evidence_of
from billing.history import schedule_in
from billing.invoice_days import rows_of_days
from billing.invoice_words import credit_name, discount_basis, fee_basis
from billing.lifecycle import InvoiceStatus
from billing.models import (
    Account,
    CreditEntry,
    Invoice,
    InvoiceDays,
    InvoiceDiscount,
    InvoiceFile,
    InvoiceLine,
)
from billing.money import Money
from billing.parties import buyer_of, party_from, seller_party
from billing.queries import one_snapshot
from billing.rating import decimal_text
from billing.totals import InvoiceTotals, Tax
from metering.period import WINDOW

PARTIES_OF_NOW = (
    "This invoice was issued before names and addresses were kept with it. They are those of the "
    "day on which this copy was made."
)
FIGURES_OF_NOW = "This is a draft. Its figures are those known at {at:%Y-%m-%d %H:%M} UTC."

_DAY = timedelta(days=1)
_FEES = (
    InvoiceLine.Kind.FEE,
    InvoiceLine.Kind.UNUSED_FEE,
    InvoiceLine.Kind.FEE_DISCOUNT,
    InvoiceLine.Kind.TRUE_UP,
)


def document_of(invoice_id: int) -> InvoiceDocument:
    """Return the invoice as a document: the same each time, once the invoice is final.

    Raises Invoice.DoesNotExist; ValueError where its rows do not add up.
    """
    with one_snapshot():
        return _document_of(
            Invoice.objects.select_related("account", "replaces", "days").get(pk=invoice_id)
        )


def zone_of(invoice: Invoice) -> ZoneInfo:
    """Return whose local days the invoice's period was cut by."""
    if invoice.time_zone:
        return ZoneInfo(invoice.time_zone)
    schedule = schedule_in(invoice.account, invoice.period)
    return schedule.cycle_at(invoice.period_end - WINDOW).zone


def parties_of(invoice: Invoice) -> tuple[Party, Party]:
    """Return seller and buyer as the invoice keeps them; those of now where it keeps none."""
    return (
        party_from(invoice.seller) or _seller(),
        party_from(invoice.buyer) or _buyer(invoice.account),
    )


def issued_on_of(invoice: Invoice) -> date | None:
    """Return the seller's day on which the invoice was issued; None of a draft."""
    if invoice.issued_on or not invoice.finalised_at:
        return invoice.issued_on
    return invoice.finalised_at.astimezone(settings.SELLER_TIME_ZONE).date()


def _document_of(invoice: Invoice) -> InvoiceDocument:
    lines = list(invoice.lines.prefetch_related("parts").order_by("position"))
    zone = zone_of(invoice)
    discounts = list(invoice.applied_discounts.order_by("position"))
    credit, prepaid = _credits(invoice, zone)
    seller, buyer = parties_of(invoice)
    return InvoiceDocument(
        number=invoice.number,
        kind=DocumentKind(invoice.kind),
        status=_status(invoice),
        period=invoice.period,
        zone=zone,
        seller=seller,
        buyer=buyer,
        totals=_totals(invoice),
        tax=Tax(invoice.tax_rate, invoice.tax_is_inclusive),
        tax_name=invoice.tax_name or settings.SELLER_TAX_NAME,
        issued_on=issued_on_of(invoice),
        due_on=invoice.due_on,
        paid_on=_paid_on(invoice),
        payment_terms=invoice.payment_terms,
        fees=tuple(_fees(invoice, lines, discounts)),
        meters=_meters(invoice, lines),
        discounts=tuple(
            _discount(row, invoice.currency)
            for row in discounts
            if row.base == InvoiceDiscount.Base.USAGE_FEE
        ),
        credits=credit,
        prepaid=prepaid,
        adjustments=tuple(
            Adjustment(line.description, _amount(line, invoice), line.period)
            for line in lines
            if line.kind == InvoiceLine.Kind.ADJUSTMENT
        ),
        top_ups=tuple(
            TopUp(line.description, _amount(line, invoice))
            for line in lines
            if line.kind == InvoiceLine.Kind.TOP_UP
        ),
        days=_days(invoice, zone),
        sandboxes=_sandboxes(invoice, lines),
        notes=tuple(_notes(invoice)),
    )


def _seller() -> Party:
    return seller_party(
        name=settings.SELLER_NAME,
        address=settings.SELLER_ADDRESS,
        tax_id=settings.SELLER_TAX_ID,
    )


def _buyer(account: Account) -> Party:
    return buyer_of(account.name, account.address, account.tax_id)


def edition_of(invoice: Invoice) -> InvoiceFile.Edition:
    """Return which edition of its documents a final invoice has now."""
    if invoice.status == InvoiceStatus.VOID:
        return InvoiceFile.Edition.VOID
    return InvoiceFile.Edition.PAID if _was_paid(invoice) else InvoiceFile.Edition.ISSUED


def edition_of_document(document: InvoiceDocument) -> InvoiceFile.Edition:
    """Return the edition that a final invoice's document is of."""
    if document.status is InvoiceStatus.VOID:
        return InvoiceFile.Edition.VOID
    is_paid = document.status is InvoiceStatus.PAID and bool(document.totals.amount_due)
    return InvoiceFile.Edition.PAID if is_paid else InvoiceFile.Edition.ISSUED


def _was_paid(invoice: Invoice) -> bool:
    """Return whether all that was due has been paid since, and nothing of it was credited."""
    return (
        invoice.status == InvoiceStatus.PAID
        and invoice.amount_due > 0
        and not invoice.credit_notes.filter(off_due__gt=0).exists()
    )


def _status(invoice: Invoice) -> InvoiceStatus:
    """Return the state that the document is of: what failed or waits since does not show."""
    if invoice.status in (InvoiceStatus.DRAFT, InvoiceStatus.VOID):
        return InvoiceStatus(invoice.status)
    is_paid = not invoice.amount_due or _was_paid(invoice)
    return InvoiceStatus.PAID if is_paid else InvoiceStatus.PENDING


def _paid_on(invoice: Invoice) -> date | None:
    """Return the seller's day on which nothing was due any more; None: something is."""
    if invoice.paid_at and _was_paid(invoice):
        return invoice.paid_at.astimezone(settings.SELLER_TIME_ZONE).date()
    return issued_on_of(invoice) if invoice.number and not invoice.amount_due else None


def _totals(invoice: Invoice) -> InvoiceTotals:
    names = InvoiceTotals.__dataclass_fields__
    return InvoiceTotals(
        **{name: Money(getattr(invoice, name), invoice.currency) for name in names}
    )


def _amount(line: InvoiceLine, invoice: Invoice) -> Money:
    return Money(line.amount, invoice.currency)


def _fees(
    invoice: Invoice, lines: Sequence[InvoiceLine], discounts: Sequence[InvoiceDiscount]
) -> Iterator[FeeLine]:
    # A line for each discount on a year's fee, in their order.
    annual = iter([row for row in discounts if row.base == InvoiceDiscount.Base.ANNUAL_FEE])
    for line in lines:
        if line.kind not in _FEES:
            continue
        is_discount = line.kind == InvoiceLine.Kind.FEE_DISCOUNT
        yield FeeLine(
            FeeLineKind(line.kind),
            line.description,
            line.period,
            _amount(line, invoice),
            discount_basis(next(annual, None), invoice.currency)
            if is_discount
            else _fee_basis(line, invoice.currency),
        )


def _fee_basis(line: InvoiceLine, currency: str) -> str:
    # A whole fee is its rate, which stands beside it.
    return "" if line.unit_price == line.amount else fee_basis(line, currency)


def _meters(invoice: Invoice, lines: Sequence[InvoiceLine]) -> tuple[MeterLines, ...]:
    by_meter: defaultdict[str, list[InvoiceLine]] = defaultdict(list)
    for line in lines:
        if line.kind == InvoiceLine.Kind.USAGE:
            by_meter[line.meter].append(line)
    return tuple(
        MeterLines(
            meter,
            of_meter[0].description,
            of_meter[0].unit,
            tuple(_usage_line(line, invoice) for line in of_meter),
        )
        for meter, of_meter in by_meter.items()
    )


def _usage_line(line: InvoiceLine, invoice: Invoice) -> UsageLine:
    return UsageLine(
        description=line.description,
        period=line.period,
        quantity=decimal_text(line.exact_quantity),
        unit_price=None if line.unit_price is None else f"{line.unit_price.normalize():f}",
        amount=_amount(line, invoice),
        discount=Money(line.discount, invoice.currency),
        parts=tuple(
            PricePart(
                PartKind(part.kind),
                part.tier,
                decimal_text(part.exact_quantity),
                f"{part.unit_price.normalize():f}",
            )
            for part in line.parts.all()
        ),
    )


def _discount(row: InvoiceDiscount, currency: str) -> Discount:
    return Discount(
        row.name,
        Money(row.base_amount, currency),
        row.percent,
        Money(row.fixed_amount, currency),
        Money(row.amount, currency),
    )


def _credits(
    invoice: Invoice, zone: ZoneInfo
) -> tuple[tuple[CreditUsed, ...], tuple[CreditUsed, ...]]:
    """Return what monthly and promotional credit paid, and what prepaid credit did, by grant."""
    if not invoice.number:
        # Nothing is used yet: by the time it is, other credit may come first.
        return (
            _to_be_used("Credit", Money(invoice.credits_used, invoice.currency)),
            _to_be_used("Prepaid credit", Money(invoice.prepaid_used, invoice.currency)),
        )
    entries = CreditEntry.objects.filter(invoice=invoice, kind=CreditEntry.Kind.USE)
    used: tuple[list[CreditUsed], list[CreditUsed]] = [], []
    for entry in entries.select_related("grant").order_by("pk"):
        grant = entry.grant
        used[grant.kind == "prepaid"].append(
            CreditUsed(credit_name(grant, zone), Money(-entry.amount, invoice.currency))
        )
    return tuple(used[0]), tuple(used[1])


def _to_be_used(name: str, amount: Money) -> tuple[CreditUsed, ...]:
    return (CreditUsed(name, amount),) if amount else ()


def _days(invoice: Invoice, zone: ZoneInfo) -> tuple[DayCost, ...]:
    try:
        row = invoice.days
    except InvoiceDays.DoesNotExist:
        [row] = rows_of_days([(invoice, zone)])
    return tuple(
        DayCost(row.first_day + at * _DAY, Money(amount, invoice.currency))
        for at, amount in enumerate(row.amounts)
    )


def _sandboxes(invoice: Invoice, lines: Sequence[InvoiceLine]) -> tuple[SandboxCost, ...]:
    evidence = evidence_of(invoice, lines)
    amounts = {line.pk: _amount(line, invoice) for line in lines}
    costs = cost_by_sandbox([(amounts[key], lives) for key, lives in evidence.items()])
    return tuple(SandboxCost(sandbox, cost) for sandbox, cost in costs)


def _notes(invoice: Invoice) -> Iterator[str]:
    if not invoice.number:
        yield FIGURES_OF_NOW.format(at=invoice.computed_at)
    elif not invoice.buyer:
        yield PARTIES_OF_NOW
    if invoice.replaces and invoice.replaces.number:
        yield f"Replaces invoice {invoice.replaces.number}, which is void."
