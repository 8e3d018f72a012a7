"""An account's invoices: their figures, their files, and where each line comes from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from billing import queries, services
from billing.api.files import AnyAccept, file_response
from billing.api.filters import InvoiceFilter
from billing.api.views import AccountListView, AccountView
from billing.caching import CLOSED_INVOICE_S, Kind, cached
from billing.explain_queries import NoSuchLineError, explain_line, windows_of
from billing.invoice_explanations import explain_invoice
from billing.models import Invoice, InvoiceFile, InvoiceLine
from billing.serializers.explanations import (
    ExplainQuerySerializer,
    ExplanationSerializer,
    InvoiceExplanationSerializer,
    LifeWindowSerializer,
    WindowsQuerySerializer,
)
from billing.serializers.invoice_files import DownloadQuerySerializer
from billing.serializers.invoices import (
    InvoiceLineSerializer,
    InvoiceSerializer,
    InvoiceWithLinesSerializer,
)

PERIOD = {"start": "2026-05-01T00:00:00Z", "end": "2026-06-01T00:00:00Z"}
AN_INVOICE = {
    "id": 7,
    "number": "2026-000007",
    "kind": "usage",
    "status": "pending",
    "period": PERIOD,
    "currency": "USD",
    "tax_rate": "0.19",
    "tax_is_inclusive": False,
    "subscription_fee": "99.00",
    "usage_fee": "0.04",
    "discounts": "0.00",
    "credits_used": "0.04",
    "adjustments": "0.00",
    "tax": "18.81",
    "credited": "0.00",
    "total_amount": "117.81",
    "prepaid_used": "0.00",
    "amount_due": "117.81",
    "computed_at": "2026-06-01T00:15:00Z",
    "finalised_at": "2026-06-01T00:15:00Z",
    "paid_at": None,
}
A_LINE = {
    "position": 2,
    "kind": "usage",
    "description": "CPU time",
    "meter": "cpu",
    "charge": "per_unit",
    "quantity": "3600",
    "unit": "cpu_seconds",
    "unit_price": "0.000012",
    "amount": "0.04",
    "discount": "0.00",
    "period": PERIOD,
    "parts": [],
}


_EXACT = {"exact": "27/625", "decimal": "0.0432"}
AN_EXPLANATION = {
    "invoice": 7,
    "number": "2026-000007",
    "kind": "usage",
    "status": "pending",
    "period": PERIOD,
    "currency": "USD",
    "evidence_is_kept": True,
    "lines": [
        {
            "position": 2,
            "kind": "usage",
            "description": "CPU time",
            "basis": "",
            "meter": "cpu",
            "charge": "per_unit",
            "period": PERIOD,
            "unit": "cpu_seconds",
            "base_unit": "ns",
            "unit_size": "1000000000",
            "quantity": "3600000000000",
            "parts": [
                {
                    "kind": "units",
                    "tier": None,
                    "quantity": {"exact": "3600", "decimal": "3600"},
                    "unit_price": "0.000012",
                    "cost": _EXACT,
                }
            ],
            "exact_cost": _EXACT,
            "rounding": {"exact": "-2/625", "decimal": "-0.0032"},
            "amount": "0.04",
            "discount": "0.00",
            "lives": 1,
            "coverage": {"applied_ms": 800000, "measured_ms": 600000},
            "checks": [],
            "sums": True,
        }
    ],
    "line_count": 2,
    "applied_discounts": [],
    "credits": [{"kind": "monthly", "name": "Monthly credit", "amount": "0.04"}],
    "totals": {
        "subscription_fee": "99.00",
        "usage_fee": "0.04",
        "discounts": "0.00",
        "credits_used": "0.04",
        "adjustments": "0.00",
        "tax_rate": "0.19",
        "tax_is_inclusive": False,
        "tax": "18.81",
        "credited": "0.00",
        "top_up": "0.00",
        "total_amount": "117.81",
        "prepaid_used": "0.00",
        "amount_due": "117.81",
    },
    "credit_notes": [],
    "checks": [],
    "sums": True,
}


class InvoiceList(AccountListView[Invoice]):
    """The account's invoices."""

    serializer_class = InvoiceSerializer
    ordering = ("-period_start", "-id")
    filterset_class = InvoiceFilter
    queryset = Invoice.objects.none()

    def get_queryset(self) -> QuerySet[Invoice]:
        """Return the invoices of the caller's account and of no other."""
        return queries.invoices_of(self.account_id)

    @extend_schema(
        operation_id="invoices",
        responses=InvoiceSerializer(many=True),
        examples=[OpenApiExample("Of May", value=AN_INVOICE, response_only=True)],
    )
    def get(self, request: Request, *args: Any, **path: Any) -> Response:
        """Return the account's invoices, drafts too, the newest period first."""
        return super().get(request, *args, **path)


class InvoiceDetail(AccountView):
    """One invoice with its lines. Another account's invoice is not found."""

    @extend_schema(
        operation_id="invoice",
        responses=InvoiceWithLinesSerializer,
        examples=[
            OpenApiExample(
                "Of May",
                value={
                    **AN_INVOICE,
                    "lines": [A_LINE],
                    "applied_discounts": [],
                    "credit_notes": [],
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request, pk: int) -> Response:
        """Return the invoice's figures, lines, discounts and credit notes.

        What is final is kept for up to a day; its state and its credit notes are those of now.
        """
        account_id = self.account_id
        state = queries.invoice_state(account_id, pk)
        if state is None:
            raise NotFound

        def make() -> dict[str, Any]:
            return dict(InvoiceWithLinesSerializer(queries.whole_invoice(account_id, pk)).data)

        if state.status == Invoice.Status.DRAFT:
            return Response(make())
        return Response(
            # Beside being forgotten, what is kept is of one state: where the cache missed that
            # it was to forget, the answer is none of what was before.
            cached(
                account_id, Kind.CLOSED_INVOICE, CLOSED_INVOICE_S, make, part=f"{pk}:{state.token}"
            )
        )


class InvoiceLines(AccountListView[InvoiceLine]):
    """An invoice's lines. Another account's invoice is not found."""

    serializer_class = InvoiceLineSerializer
    ordering = ("position", "id")
    queryset = InvoiceLine.objects.none()

    def get_queryset(self) -> QuerySet[InvoiceLine]:
        """Return the lines of an invoice of the caller's account."""
        return queries.lines_of(self.account_id, self.kwargs["pk"])

    @extend_schema(
        operation_id="invoice_lines",
        responses=InvoiceLineSerializer(many=True),
        examples=[OpenApiExample("CPU time", value=A_LINE, response_only=True)],
    )
    def get(self, request: Request, pk: int) -> Response:
        """Return the invoice's lines in their order."""
        _require_invoice(self.account_id, pk)
        return super().get(request, pk=pk)


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


class WholeExplanation(AccountView):
    """Where an invoice comes from. Another account's invoice is not found."""

    @extend_schema(
        operation_id="invoice_explain",
        responses=InvoiceExplanationSerializer,
        examples=[OpenApiExample("Of May", value=AN_EXPLANATION, response_only=True)],
    )
    def get(self, request: Request, pk: int) -> Response:
        """Return every line with its exact cost, and from there each figure up to what is due.

        It says itself, in `sums`, whether all of it adds up. What each sandbox bears of a line,
        and its counters, are in the line's own explanation.
        """
        _require_invoice(self.account_id, pk)
        return Response(InvoiceExplanationSerializer(explain_invoice(pk)).data)


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


def _require_invoice(account_id: UUID, invoice_id: int) -> None:
    """Raise NotFound unless the invoice is of the key's account."""
    if not queries.invoices_of(account_id).filter(pk=invoice_id).exists():
        raise NotFound
