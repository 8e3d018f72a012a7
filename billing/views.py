from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.generics import ListAPIView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import AllowAny
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from billing import queries, services
from billing.api.views import AccountListView, AccountObjectView, AccountView
from billing.explain_queries import NoSuchLineError, explain_line, windows_of
from billing.models import CreditNote, Invoice, InvoiceFile, Plan
from billing.serializers.credit_notes import CreditNoteSerializer
from billing.serializers.explanations import (
    ExplainQuerySerializer,
    ExplanationSerializer,
    LifeWindowSerializer,
    WindowsQuerySerializer,
)
from billing.serializers.invoice_files import DownloadQuerySerializer
from billing.serializers.invoices import InvoiceSerializer, InvoiceWithLinesSerializer
from billing.serializers.plans import OfferedPlanSerializer


class InvoiceList(AccountListView[Invoice]):
    """The account's invoices."""

    serializer_class = InvoiceSerializer
    ordering = ("-period_start", "-id")
    queryset = Invoice.objects.none()

    def get_queryset(self) -> QuerySet[Invoice]:
        """Return the invoices of the key's account and of no other."""
        return queries.invoices_of(self.account_id)


class InvoiceDetail(AccountObjectView[Invoice]):
    """One invoice with its lines. Another account's invoice is not found."""

    serializer_class = InvoiceWithLinesSerializer
    queryset = Invoice.objects.none()

    def get_queryset(self) -> QuerySet[Invoice]:
        """Return the invoices of the key's account and of no other."""
        invoices = queries.invoices_of(self.account_id)
        return invoices.prefetch_related("lines__parts", "applied_discounts", "credit_notes")


class AnyAccept(DefaultContentNegotiation):
    """Answers whatever is accepted: the file asked for, or JSON that says why not.

    DRF's own would take `format` for its own, and refuse who accepts a PDF only.
    """

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return what errors are written by."""
        del request, format_suffix
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)


class InvoiceDownload(AccountView):
    """An invoice as a file. Another account's invoice is not found."""

    content_negotiation_class = AnyAccept

    query_serializer = DownloadQuerySerializer

    @extend_schema(
        operation_id="invoice_download",
        parameters=[DownloadQuerySerializer],
        responses={
            (200, "application/pdf"): OpenApiTypes.BINARY,
            (200, "text/csv"): OpenApiTypes.STR,
            (200, "application/json"): OpenApiTypes.OBJECT,
        },
    )
    def get(self, request: Request, pk: int) -> HttpResponse:
        """Return the document as of its issue: of a final invoice the same bytes each time.

        A draft is marked as one, and what is void as void.
        """
        _require_invoice(self.account_id, pk)
        asked = self.query()
        return file_response(
            services.invoice_file(
                pk, format=InvoiceFile.Format(asked["format"]), now=datetime.now(UTC)
            )
        )


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


class LineExplanation(AccountView):
    """Where an invoice line comes from. Another account's invoice is not found."""

    query_serializer = ExplainQuerySerializer

    @extend_schema(
        operation_id="invoice_line_explain",
        parameters=[ExplainQuerySerializer],
        responses=ExplanationSerializer,
    )
    def get(self, request: Request, pk: int, line: int) -> Response:
        """Return the line's parts, and each sandbox's counters, by pages of 100 sandboxes.

        It says itself, in `sums`, whether all of it adds up to the line and to the invoice.
        """
        _require_invoice(self.account_id, pk)
        asked = self.query()
        try:
            explanation = explain_line(pk, line, **asked)
        except NoSuchLineError as error:
            raise NotFound(str(error)) from None
        return Response(ExplanationSerializer(explanation).data)


class LineWindows(AccountView):
    """The windows of one life that an invoice line rests on."""

    query_serializer = WindowsQuerySerializer

    @extend_schema(
        operation_id="invoice_line_windows",
        parameters=[WindowsQuerySerializer],
        responses=LifeWindowSerializer(many=True),
    )
    def get(self, request: Request, pk: int, line: int, life: int) -> Response:
        """Return at most 1,000 windows, in order, as far as usage records are still kept."""
        _require_invoice(self.account_id, pk)
        asked = self.query()
        try:
            windows = windows_of(pk, line, life, **asked)
        except NoSuchLineError as error:
            raise NotFound(str(error)) from None
        return Response(LifeWindowSerializer(windows, many=True).data)


class PlanList(ListAPIView[Plan]):
    """The plans on offer and their prices, for anybody: no key is needed."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    serializer_class = OfferedPlanSerializer
    pagination_class = None
    queryset = Plan.objects.none()

    def get_queryset(self) -> QuerySet[Plan]:
        """Return the plans that customers may see, with the prices in force now."""
        return queries.offered_plans(now=datetime.now(UTC))


def file_response(file: services.RenderedInvoice) -> HttpResponse:
    """Return a file to be saved, and by nobody else kept."""
    response = HttpResponse(file.content, content_type=file.content_type)
    response["Content-Disposition"] = f'attachment; filename="{file.name}"'
    response["Cache-Control"] = "private, no-store"
    response["X-Content-Type-Options"] = "nosniff"
    return response


def _require_invoice(account_id: UUID, invoice_id: int) -> None:
    """Raise NotFound unless the invoice is of the key's account."""
    if not queries.invoices_of(account_id).filter(pk=invoice_id).exists():
        raise NotFound
