"""The operator's routes, which stand before Django's admin."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.http import StreamingHttpResponse
from rest_framework import serializers
from rest_framework.authentication import SessionAuthentication
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import services
from billing.operator_access import IsOperator, IsOperatorOrLooks, OperatorKeyAuthentication
from billing.reports.catalogue import REPORTS, Asked, Report, ReportRefusedError, ask
from billing.reports.writing import CONTENT_TYPES, Format, write


class _OneKind(BaseContentNegotiation):
    """Refusals are JSON, whatever `format` says the report is to be."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[Any, str]:
        del request, format_suffix
        return renderers[0], renderers[0].media_type


class UsageReportQuery(serializers.Serializer[Any]):
    """What is asked of the usage report."""

    month = serializers.CharField(max_length=20)
    account = serializers.CharField(max_length=40, required=False)
    by = serializers.ChoiceField(["meter", "sandbox"], default="meter")
    format = serializers.ChoiceField([form.value for form in Format], default=Format.CSV.value)


class UsageReport(APIView):
    """What each account used in a month and what it costs, for operators and finance staff."""

    authentication_classes = (OperatorKeyAuthentication, SessionAuthentication)
    permission_classes = (IsOperatorOrLooks,)
    content_negotiation_class = _OneKind
    # Not for customers, whom the OpenAPI document is for.
    schema = None

    def get(self, request: Request) -> StreamingHttpResponse:
        """Return the report, written as its rows are read. Raises ValidationError by field."""
        query = UsageReportQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        said = query.validated_data
        report = REPORTS["usage_by_sandbox" if said["by"] == "sandbox" else "usage"]
        try:
            asked = ask(
                report, now=datetime.now(UTC), month=said["month"], account=said.get("account")
            )
        except ReportRefusedError as error:
            raise serializers.ValidationError({error.field: [error.message]}) from None
        return download(report, asked, Format(said["format"]))


BATCHES_A_REQUEST = 4
"""A few seconds' work; a caller asks again while there is more."""


class GenerateInvoicesBody(serializers.Serializer[Any]):
    """Which invoices to generate. Nothing given: all that are due."""

    period = serializers.CharField(max_length=7, required=False, default="")
    accounts = serializers.ListField(
        child=serializers.UUIDField(), max_length=1_000, required=False, default=list
    )
    dry_run = serializers.BooleanField(required=False, default=False)

    def validate_period(self, period: str) -> str:
        """Return the month. Raises ValidationError."""
        if period and not services.is_month(period):
            raise serializers.ValidationError(f"{period!r} is not a month. Write it as in 2026-10.")
        return period


class GenerateInvoices(APIView):
    """The billing run, at an operator's word."""

    authentication_classes = (OperatorKeyAuthentication,)
    permission_classes = (IsOperator,)
    schema = None

    def post(self, request: Request) -> Response:
        """Draft and finalise what is due, and return what was done. Safe to repeat."""
        body = GenerateInvoicesBody(data=request.data)
        body.is_valid(raise_exception=True)
        said, now = body.validated_data, datetime.now(UTC)
        scope = services.Scope(tuple(said["accounts"]), said["period"])
        if said["dry_run"]:
            report = services.rehearse_invoices(scope, now=now, batches=BATCHES_A_REQUEST)
        else:
            report = services.generate_invoices(
                scope,
                now=now,
                because=services.Because(f"Billing run by {request.user}"),
                batches=BATCHES_A_REQUEST,
            )
        return Response(report.as_json())


def download(report: Report, asked: Asked, form: Format) -> StreamingHttpResponse:
    """Return a report as a file that is sent while it is made."""
    return StreamingHttpResponse(
        write(report.row_type, report.rows(asked), form),
        content_type=CONTENT_TYPES[form],
        headers={
            "Content-Disposition": f'attachment; filename="{report.file_name(asked, form)}"',
            "Cache-Control": "no-store",
            # A proxy that waits for the end would hold all of it.
            "X-Accel-Buffering": "no",
        },
    )
