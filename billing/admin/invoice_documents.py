"""What an invoice's page leads to: its files, where its lines come from, and whether it adds up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from billing import services
from billing.admin.asking import MISSING
from billing.admin.explaining import explanation_tables, windows_table
from billing.api.files import file_response
from billing.conservation_json import conservation_json
from billing.conservation_queries import conservation_of
from billing.explain_queries import NoSuchLineError, explain_line, windows_of
from billing.models import Invoice, InvoiceFile, InvoiceLine
from metering.life_windows import MOST_WINDOWS

_LINK = '<a class="text-primary-600" href="{}">{}</a>'

if TYPE_CHECKING:
    from metering.pages import ReadOnlyPage, ReadOnlyRows

    _Page = ReadOnlyPage[Invoice]
    _Rows = ReadOnlyRows[InvoiceLine, Invoice]
else:
    _Page = _Rows = object


class ExplainedLines(_Rows):
    """Lines with a link to where each comes from."""

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the columns, with the link second: the last are past the edge of a screen."""
        first, *rest = super().get_fields(request, obj)
        return (first, "explained", *rest)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the columns that are shown only, with the link."""
        return (*super().get_readonly_fields(request, obj), "explained")

    @admin.display(description="Where from")
    def explained(self, line: InvoiceLine) -> SafeString:
        """Return a link to the line's explanation."""
        return format_html(_LINK, _explain_url(line.invoice_id, line.position), "Explain")


class InvoiceDocuments(_Page):
    """An invoice's page with its files, and whether it adds up."""

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the page's parts, with one for the files and the sums."""
        own = ("Document", {"fields": (("files_to_download", "adds_up"),)})
        return (*super().get_fieldsets(request, obj), own)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields that are shown only, with those of this part."""
        return (*super().get_readonly_fields(request, obj), "files_to_download", "adds_up")

    def get_urls(self) -> list[URLPattern]:
        """Return the page's addresses, with those of files and explanations."""
        view = self.admin_site.admin_view
        own = [
            path("<int:pk>/file/<slug:form>/", view(self.file), name="billing_invoice_file"),
            path("<int:pk>/lines/<int:line>/", view(self.explain), name="billing_invoice_explain"),
            path(
                "<int:pk>/lines/<int:line>/lives/<int:life>/",
                view(self.windows),
                name="billing_invoice_windows",
            ),
            path(
                "<int:pk>/conservation/",
                view(self.conservation),
                name="billing_invoice_conservation",
            ),
        ]
        return own + super().get_urls()

    @admin.display(description="download")
    def files_to_download(self, invoice: Invoice) -> SafeString:
        """Return a link for each format."""
        links = (
            (reverse("admin:billing_invoice_file", args=(invoice.pk, form.value)), form.label)
            for form in InvoiceFile.Format
        )
        return format_html_join(" · ", _LINK, links)

    @admin.display(description="adds up")
    def adds_up(self, invoice: Invoice) -> SafeString | str:
        """Return whether the invoice is what was measured, with a link to the sums."""
        statement = conservation_of([invoice.pk], now=datetime.now(UTC)).get(invoice.pk)
        if statement is None:
            return MISSING
        link = format_html(
            _LINK, reverse("admin:billing_invoice_conservation", args=(invoice.pk,)), "Sums (JSON)"
        )
        if statement.holds:
            return format_html("Yes. {}", link)
        wrong = format_html_join("", "<div>{}</div>", ((text,) for text in statement.mismatches))
        return format_html('<div class="font-semibold text-red-600">No.</div>{}{}', wrong, link)

    def file(self, request: HttpRequest, pk: int, form: str) -> HttpResponse:
        """Return the invoice as a file."""
        self._require_view(request)
        if form not in InvoiceFile.Format.values:
            raise Http404
        try:
            rendered = services.invoice_file(
                pk, format=InvoiceFile.Format(form), now=datetime.now(UTC)
            )
        except Invoice.DoesNotExist:
            raise Http404 from None
        return file_response(rendered)

    def explain(self, request: HttpRequest, pk: int, line: int) -> HttpResponse:
        """Show where a line comes from, a page of its sandboxes at a time."""
        self._require_view(request)
        after = request.GET.get("after", "")
        try:
            told = explain_line(pk, line, after=after)
        except (Invoice.DoesNotExist, NoSuchLineError):
            raise Http404 from None
        return self._show(
            request,
            f"{told.position}. {told.description}",
            pk,
            told=told,
            tables=explanation_tables(told, _windows_url),
            after=after,
        )

    def windows(self, request: HttpRequest, pk: int, line: int, life: int) -> HttpResponse:
        """Show the windows of one life that a line rests on."""
        self._require_view(request)
        after = request.GET.get("after", "")
        try:
            since = parse_datetime(after) if after else None
            found = windows_of(pk, line, life, after=since)
        except (ValueError, Invoice.DoesNotExist, NoSuchLineError):
            raise Http404 from None
        table = windows_table(found)
        return self._show(
            request,
            f"Life {life} in line {line}",
            pk,
            tables=[("Windows, in base units", table)],
            is_empty=not found,
            next_after=found[-1].window_start.isoformat() if len(found) == MOST_WINDOWS else "",
        )

    def conservation(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Return the conservation statement as JSON."""
        self._require_view(request)
        statement = conservation_of([pk], now=datetime.now(UTC)).get(pk)
        if statement is None:
            raise Http404
        return JsonResponse(
            {"invoice": pk, **conservation_json(statement)}, json_dumps_params={"indent": 2}
        )

    def _require_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _show(self, request: HttpRequest, title: str, pk: int, **more: Any) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "invoice": Invoice.objects.get(pk=pk),
            "opts": self.opts,
            **more,
        }
        return TemplateResponse(request, "admin/billing/explain.html", context)


def _explain_url(invoice_id: int, position: int) -> str:
    return reverse("admin:billing_invoice_explain", args=(invoice_id, position))


def _windows_url(arguments: Sequence[int]) -> str:
    return reverse("admin:billing_invoice_windows", args=tuple(arguments))
