"""The files of a credit note, on its page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from billing import services
from billing.api.files import file_response
from billing.models import CreditNote, InvoiceFile

_LINK = '<a class="text-primary-600" href="{}">{}</a>'

if TYPE_CHECKING:
    from metering.pages import ReadOnlyPage

    _Page = ReadOnlyPage[CreditNote]
else:
    _Page = object


class CreditNoteFiles(_Page):
    """A credit note's page with its files."""

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the page's parts, with one for the files."""
        own = ("Document", {"fields": ("files_to_download",)})
        return (*super().get_fieldsets(request, obj), own)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields that are shown only, with those of this part."""
        return (*super().get_readonly_fields(request, obj), "files_to_download")

    def get_urls(self) -> list[URLPattern]:
        """Return the page's addresses, with that of the files."""
        file = self.admin_site.admin_view(self.file)
        own = path("<int:pk>/file/<slug:form>/", file, name="billing_creditnote_file")
        return [own, *super().get_urls()]

    @admin.display(description="download")
    def files_to_download(self, note: CreditNote) -> SafeString:
        """Return a link for each format."""
        links = (
            (reverse("admin:billing_creditnote_file", args=(note.pk, form.value)), form.label)
            for form in InvoiceFile.Format
        )
        return format_html_join(" · ", _LINK, links)

    def file(self, request: HttpRequest, pk: int, form: str) -> HttpResponse:
        """Return the credit note as a file."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if form not in InvoiceFile.Format.values:
            raise Http404
        try:
            rendered = services.credit_note_file(pk, format=InvoiceFile.Format(form))
        except CreditNote.DoesNotExist:
            raise Http404 from None
        return file_response(rendered)
