"""What corrects an account's invoices."""

from __future__ import annotations

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from billing import queries, services
from billing.api.files import AnyAccept, file_response
from billing.api.views import AccountListView, AccountView
from billing.models import CreditNote, InvoiceFile
from billing.serializers.credit_notes import CreditNoteSerializer
from billing.serializers.invoice_files import DownloadQuerySerializer


@extend_schema_view(get=extend_schema(operation_id="credit_notes"))
class CreditNoteList(AccountListView[CreditNote]):
    """The credit notes of the account's invoices."""

    serializer_class = CreditNoteSerializer
    ordering = ("-issued_at", "-id")
    queryset = CreditNote.objects.none()

    def get_queryset(self) -> QuerySet[CreditNote]:
        """Return the credit notes of the key's account and of no other."""
        return queries.credit_notes_of(self.account_id)


class CreditNoteDownload(AccountView):
    """A credit note as a file. Another account's credit note is not found."""

    content_negotiation_class = AnyAccept

    query_serializer = DownloadQuerySerializer

    @extend_schema(
        operation_id="credit_note_download",
        parameters=[DownloadQuerySerializer],
        responses={
            (200, "application/pdf"): OpenApiTypes.BINARY,
            (200, "text/csv"): OpenApiTypes.STR,
            (200, "application/json"): OpenApiTypes.OBJECT,
        },
    )
    def get(self, request: Request, pk: int) -> HttpResponse:
        """Return the document, which says the same each time."""
        if not queries.credit_notes_of(self.account_id).filter(pk=pk).exists():
            raise NotFound
        asked = self.query()
        format_ = InvoiceFile.Format(asked["format"])
        return file_response(services.credit_note_file(pk, format=format_))
