"""What an invoice's page lists below its figures."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from billing.admin.asking import (
    MISSING,
    money,
    price_text,
)
from billing.admin.invoice_documents import ExplainedLines
from billing.charges import PartKind
from billing.models import (
    CreditEntry,
    Invoice,
    InvoiceDiscount,
    InvoiceLine,
    InvoiceLinePart,
    InvoiceTransition,
)
from billing.rating import decimal_text
from metering.pages import ReadOnlyRows

_LIMITS = (PartKind.MINIMUM, PartKind.MAXIMUM)


def part_text(part: InvoiceLinePart) -> str:
    """Return how a part of a line's cost came about, in words."""
    name = f"{part.kind.replace('_', ' ')}, tier {part.tier}" if part.tier else part.kind
    if part.kind in _LIMITS:
        return f"{name} {price_text(part.unit_price)}"
    if part.kind == PartKind.FREE:
        return f"{name}: {decimal_text(part.exact_quantity)}"
    return f"{name}: {decimal_text(part.exact_quantity)} × {price_text(part.unit_price)}"


class InvoiceTransitionRows(ReadOnlyRows[InvoiceTransition, Invoice]):
    """From which state to which, when, by whom and why."""

    model = InvoiceTransition
    hide_title = True
    fields = ("at", "from_status", "to_status", "by", "reason")
    verbose_name_plural = "history"

    def get_queryset(self, request: HttpRequest) -> QuerySet[InvoiceTransition]:
        """Return the changes with the people who made them."""
        return super().get_queryset(request).select_related("by")


class InvoiceLineRows(ExplainedLines, ReadOnlyRows[InvoiceLine, Invoice]):
    """What the invoice is for."""

    model = InvoiceLine
    hide_title = True
    own_amount = money("amount", of="invoice")
    own_discount = money("discount", of="invoice")
    fields = (
        "description",
        "shown_quantity",
        "unit",
        "shown_price",
        "how",
        "own_amount",
        "own_discount",
        "period_start",
        "period_end",
    )
    readonly_fields = ("shown_quantity", "shown_price", "how", "own_amount", "own_discount")

    def get_queryset(self, request: HttpRequest) -> QuerySet[InvoiceLine]:
        """Return the lines with their parts."""
        return super().get_queryset(request).select_related("invoice").prefetch_related("parts")

    @admin.display(description="Quantity")
    def shown_quantity(self, line: InvoiceLine) -> str:
        """Return the quantity in the unit of the price."""
        return decimal_text(line.exact_quantity)

    @admin.display(description="Unit price")
    def shown_price(self, line: InvoiceLine) -> str:
        """Return the price of one unit, or how the line is charged."""
        return (
            price_text(line.unit_price)
            if line.unit_price is not None
            else str(line.get_charge_display())
        )

    @admin.display(description="How it came about")
    def how(self, line: InvoiceLine) -> SafeString | str:
        """Return the parts of the line's cost, a line each."""
        texts = ((part_text(part),) for part in line.parts.all())
        return format_html_join("", "<div>{}</div>", texts) or MISSING


class InvoiceDiscountRows(ReadOnlyRows[InvoiceDiscount, Invoice]):
    """What the discounts took off, in order."""

    model = InvoiceDiscount
    hide_title = True
    own_base = money("base_amount", of="invoice", description="of")
    own_fixed = money("fixed_amount", of="invoice")
    own_amount = money("amount", of="invoice")
    fields = ("position", "name", "base", "own_base", "shown_percent", "own_fixed", "own_amount")
    readonly_fields = ("own_base", "shown_percent", "own_fixed", "own_amount")
    verbose_name_plural = "applied discounts"

    def get_queryset(self, request: HttpRequest) -> QuerySet[InvoiceDiscount]:
        """Return the discounts with their invoice's currency."""
        return super().get_queryset(request).select_related("invoice")

    @admin.display(description="Percent")
    def shown_percent(self, discount: InvoiceDiscount) -> str:
        """Return the percentage."""
        return f"{price_text(discount.percent)} %"


class InvoiceCreditRows(ReadOnlyRows[CreditEntry, Invoice]):
    """The credit that paid it."""

    model = CreditEntry
    hide_title = True
    own_amount = money("amount", of="grant.account")
    fields = ("recorded_at", "grant", "kind", "own_amount")
    readonly_fields = ("own_amount",)
    verbose_name_plural = "credit used"

    def get_queryset(self, request: HttpRequest) -> QuerySet[CreditEntry]:
        """Return the entries with their grants."""
        return super().get_queryset(request).select_related("grant__account")
