"""What an account used and what it cost: now, over time, by whom, and how well it was measured."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing import queries
from billing.api.problems import Problem, field_problem
from billing.api.views import AccountView
from billing.caching import CURRENT_USAGE_S, Kind, cached
from billing.cost_queries import (
    CostsByKey,
    SpanRefusedError,
    cost_by_label,
    cost_by_sandbox,
)
from billing.serializers.costs import CostsQuerySerializer, CostsSerializer
from billing.serializers.coverage import AccountCoverageSerializer, DaysQuerySerializer
from billing.serializers.usage import CurrentUsageSerializer
from billing.serializers.usage_history import (
    GROUPS,
    LABEL,
    METER,
    HistoryQuerySerializer,
    HistorySerializer,
    history_body,
)
from billing.serializers.usage_summary import PeriodSummarySerializer
from billing.usage_history import Asked, Granularity, HistoryRefusedError, usage_history
from billing.usage_summary import PERIOD_NAME, NoSuchPeriodError, summarise_period
from metering.coverage import account_coverage
from metering.labels import LabelNameError
from metering.period import Period
from metering.used_slices import Grouping


class UsageCurrent(AccountView):
    """What the account used, and what it costs, in its billing period so far."""

    @extend_schema(operation_id="usage_current", responses=CurrentUsageSerializer)
    def get(self, request: Request) -> Response:
        """Return usage, cost and forecast of the billing period, counted up to `as_of`.

        It is at most 30 seconds old.
        """
        del request
        account_id = self.account_id

        def make() -> dict[str, Any]:
            current = queries.current_usage(account_id, now=datetime.now(UTC))
            return dict(CurrentUsageSerializer(current).data)

        return Response(cached(account_id, Kind.CURRENT_USAGE, CURRENT_USAGE_S, make))


class UsageHistory(AccountView):
    """What the account used and what it cost, by hour, day or month."""

    query_serializer = HistoryQuerySerializer

    @extend_schema(
        operation_id="usage_history",
        parameters=[HistoryQuerySerializer],
        responses=HistorySerializer,
        examples=[
            OpenApiExample(
                "A day by sandbox",
                value={
                    "period": {"start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z"},
                    "time_zone": "UTC",
                    "currency": "USD",
                    "granularity": "day",
                    "group_by": "sandbox",
                    "group_count": 2,
                    "cost": "0.0576",
                    "buckets": [
                        {
                            "start": "2026-11-01T00:00:00Z",
                            "end": "2026-11-02T00:00:00Z",
                            "usage": {"cpu_seconds": "4800"},
                            "cost_by_meter": {"cpu": "0.0576"},
                            "cost": "0.0576",
                            "without_usage": "0",
                            "groups": [
                                {
                                    "key": "sbx-1",
                                    "usage": {"cpu_seconds": "3600"},
                                    "cost_by_meter": {"cpu": "0.0432"},
                                    "cost": "0.0432",
                                }
                            ],
                            "other": {
                                "usage": {"cpu_seconds": "1200"},
                                "cost_by_meter": {"cpu": "0.0144"},
                                "cost": "0.0144",
                            },
                        }
                    ],
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request) -> Response:
        """Return usage by meter and its exact cost, bucket by bucket.

        What buckets of a billing period cost is what its invoice says, or what it comes to by
        now: together they are its `raw_cost`. A sandbox counts for the label of its newest start.
        """
        del request
        asked = self.query()
        group_by, granularity = asked["group_by"], asked["granularity"]
        try:
            history = usage_history(
                self.account_id,
                Asked(
                    start=asked["start_date"],
                    end=asked["end_date"],
                    granularity=Granularity(granularity),
                    grouping=None if group_by == METER else Grouping(asked.get("label")),
                    most=asked.get("top", GROUPS),
                ),
                now=datetime.now(UTC),
            )
        except HistoryRefusedError as error:
            raise field_problem(error.field, error.message) from None
        return Response(history_body(history, granularity=granularity, group_by=group_by))


class UsageSummary(AccountView):
    """What one billing period came to."""

    @extend_schema(
        operation_id="usage_summary",
        parameters=[
            OpenApiParameter(
                "period",
                {"type": "string", "pattern": f"^({PERIOD_NAME.pattern})$"},
                OpenApiParameter.PATH,
                description="The billing period that begins in a month (2026-11), or current, or "
                "previous.",
            )
        ],
        responses=PeriodSummarySerializer,
    )
    def get(self, request: Request, period: str) -> Response:
        """Return what the period's invoice says; before there is a final one, what it comes to."""
        del request
        if not PERIOD_NAME.fullmatch(period):
            raise field_problem("period", "Use a month like 2026-11, current or previous.")
        try:
            summary = summarise_period(self.account_id, period, now=datetime.now(UTC))
        except NoSuchPeriodError as error:
            raise Problem(HTTPStatus.NOT_FOUND, "not_found", str(error)) from None
        return Response(PeriodSummarySerializer(summary).data)


class UsageCoverage(AccountView):
    """How much of what the account ran was measured, and the gaps."""

    query_serializer = DaysQuerySerializer

    @extend_schema(
        operation_id="usage_coverage",
        parameters=[DaysQuerySerializer],
        responses=AccountCoverageSerializer,
    )
    def get(self, request: Request) -> Response:
        """Return the coverage of at most 92 local days: all of it, by day and by sandbox."""
        del request
        coverage = account_coverage(self.account_id, **self.query())
        return Response(AccountCoverageSerializer(coverage).data)


class UsageCosts(AccountView):
    """Whose cost it was: by sandbox, or by the value of a label."""

    query_serializer = CostsQuerySerializer

    def query_context(self) -> dict[str, datetime]:
        """Return the time that the days asked for may go up to."""
        return {"now": datetime.now(UTC)}

    @extend_schema(
        operation_id="usage_costs", parameters=[CostsQuerySerializer], responses=CostsSerializer
    )
    def get(self, request: Request) -> Response:
        """Return the exact cost of at most 92 days, shared out by what was used."""
        del request
        return Response(CostsSerializer(_costs(self.account_id, **self.query())).data)


def _costs(
    account_id: UUID, *, start: datetime, end: datetime, group_by: str, label: str = ""
) -> CostsByKey[Any]:
    """Return the costs asked for. Raises ValidationError naming the field that is no good."""
    period = Period(start, end)
    try:
        if group_by == LABEL:
            return cost_by_label(account_id, period, name=label)
        return cost_by_sandbox(account_id, period)
    except LabelNameError as error:
        raise serializers.ValidationError({"label": [str(error)]}) from None
    except SpanRefusedError as error:
        raise serializers.ValidationError({error.field: [error.message]}) from None
