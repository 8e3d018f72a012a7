"""What an invoice's page lists of payments."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from billing.admin.asking import MISSING, link_to, money, money_text
from billing.models import Invoice
from metering.pages import ReadOnlyRows
from payments.admin.collections import failure_of, hosted_link
from payments.models import Allocation, CollectionPart, DunningCase


class CollectedRows(ReadOnlyRows[CollectionPart, Invoice]):
    """What was asked for at the provider, and each try to have it paid."""

    model = CollectionPart
    hide_title = True
    ordering = ("collection__started_at",)
    own_amount = money("amount", of="collection")
    fields = ("own_page", "own_amount", "status", "attempts", "waiting_for", "hosted_page")
    readonly_fields = fields
    verbose_name_plural = "collections at the provider"

    def get_queryset(self, request: HttpRequest) -> QuerySet[CollectionPart]:
        """Return the parts with their collections and the attempts of those."""
        rows = super().get_queryset(request).select_related("collection")
        return rows.prefetch_related("collection__attempts__requested_by")

    @admin.display(description="collection")
    def own_page(self, part: CollectionPart) -> SafeString:
        """Return a link to the collection, with all that was said."""
        return link_to(part.collection, part.collection)

    @admin.display(description="status")
    def status(self, part: CollectionPart) -> str:
        """Return where the collection stands."""
        return part.collection.get_status_display()

    @admin.display(description="attempts")
    def attempts(self, part: CollectionPart) -> SafeString | str:
        """Return the tries, a line each: when, what became of it, why."""
        made = sorted(part.collection.attempts.all(), key=lambda attempt: attempt.number)
        lines = (
            (
                link_to(attempt, f"{attempt.started_at:%Y-%m-%d %H:%M}"),
                attempt.get_status_display().lower(),
                "" if failure_of(attempt) == MISSING else f", {failure_of(attempt)}",
                f" (asked for by {attempt.requested_by})" if attempt.requested_by else "",
            )
            for attempt in made
        )
        return format_html_join("", "<div>{}: {}{}{}</div>", lines) or MISSING

    @admin.display(description="waiting for")
    def waiting_for(self, part: CollectionPart) -> str:
        """Return what stands in the way."""
        return part.collection.waiting_for or MISSING

    @admin.display(description="page where it can be paid")
    def hosted_page(self, part: CollectionPart) -> SafeString | str:
        """Return a link to the provider's page."""
        return hosted_link(part.collection) if part.is_live else MISSING


class ReceivedRows(ReadOnlyRows[Allocation, Invoice]):
    """The money that came for the invoice, and what of it went back."""

    model = Allocation
    hide_title = True
    own_amount = money("amount", of="payment")
    fields = ("own_page", "method", "received_at", "own_amount", "refunds", "disputes")
    readonly_fields = fields
    verbose_name_plural = "payments received"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Allocation]:
        """Return the allocations with their payments, and what went back of those."""
        rows = super().get_queryset(request).select_related("payment")
        return rows.prefetch_related("payment__refunds", "payment__disputes")

    @admin.display(description="payment")
    def own_page(self, part: Allocation) -> SafeString:
        """Return a link to the payment."""
        return link_to(part.payment, part.payment)

    @admin.display(description="method")
    def method(self, part: Allocation) -> str:
        """Return how it came, and of how much it is a part."""
        whole = money_text(part.payment.amount, part.payment.currency)
        of = "" if part.payment.amount == part.amount else f", of {whole}"
        return f"{part.payment.get_method_display()}{of}"

    @admin.display(description="received at")
    def received_at(self, part: Allocation) -> str:
        """Return when it came."""
        return f"{part.payment.received_at:%Y-%m-%d %H:%M}"

    @admin.display(description="refunds of the payment")
    def refunds(self, part: Allocation) -> SafeString | str:
        """Return what goes back, a line each."""
        return _lines(part, part.payment.refunds.all())

    @admin.display(description="disputes of the payment")
    def disputes(self, part: Allocation) -> SafeString | str:
        """Return what the bank takes back, a line each."""
        return _lines(part, part.payment.disputes.all())


def _lines(part: Allocation, rows: object) -> SafeString | str:
    lines = (
        (link_to(row, money_text(row.amount, part.payment.currency)), row.get_status_display())
        for row in rows  # type: ignore[attr-defined]
    )
    return format_html_join("", "<div>{}, {}</div>", lines) or MISSING


class DunningRows(ReadOnlyRows[DunningCase, Invoice]):
    """Where dunning stands."""

    model = DunningCase
    hide_title = True
    fields = ("opened_at", "done_days", "next_at", "closed_at", "ending")
    verbose_name_plural = "dunning"
