"""The operator's routes, which stand before Django's admin."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.http import StreamingHttpResponse
from rest_framework import serializers
from rest_framework.authentication import SessionAuthentication
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.views import APIView

from billing.operator_access import IsOperatorOrLooks, OperatorKeyAuthentication
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
