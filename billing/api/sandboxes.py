"""An account's sandboxes, and what they are doing now."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.callers import Scope
from billing.api.filters import SandboxFilter
from billing.api.idempotency import CLAIM
from billing.api.problems import Problem
from billing.api.views import AccountListView, AccountView
from billing.serializers.sandboxes import (
    LiveUsageSerializer,
    SandboxReadSerializer,
    SandboxSerializer,
    SandboxWithLivesSerializer,
)
from metering.live import NoSuchSandboxError, NotReadError, collect_now, live_sandbox
from metering.lives import SANDBOX_ID
from metering.sandboxes import (
    describe,
    describe_one,
    no_sandboxes,
    sandboxes_of,
)

_NAMED = OpenApiParameter(
    "sandbox_id",
    {"type": "string", "pattern": f"^{SANDBOX_ID.pattern}$"},
    OpenApiParameter.PATH,
    description="As the runtime named it.",
)
A_LIFE = {
    "started_at": "2026-11-02T10:07:00Z",
    "ended_at": None,
    "oom_at": None,
    "cpu_limit": "2",
    "memory_limit_bytes": 1073741824,
    "gpu_count": 0,
    "labels": {"team": "search"},
}
A_SANDBOX = {
    "sandbox_id": "sbx-1",
    "state": "running",
    "starts": 1,
    "recorded_at": "2026-11-02T10:07:01Z",
    "first_started_at": "2026-11-02T10:07:00Z",
    "newest": A_LIFE,
}


class SandboxList(AccountListView[Any]):
    """The account's sandboxes."""

    serializer_class = SandboxSerializer
    ordering = ("sandbox_id",)
    filterset_class = SandboxFilter
    queryset = no_sandboxes()

    def get_queryset(self) -> QuerySet[Any]:
        """Return the sandboxes of the caller's account and of no other."""
        return sandboxes_of(self.account_id)

    def paginate_queryset(self, queryset: Any) -> list[Any] | None:
        """Return what is told of a page's sandboxes."""
        return describe(super().paginate_queryset(queryset) or ())

    @extend_schema(
        operation_id="sandboxes",
        responses=SandboxSerializer(many=True),
        examples=[OpenApiExample("One that runs", value=A_SANDBOX, response_only=True)],
    )
    def get(self, request: Request, *args: Any, **path: Any) -> Response:
        """Return the account's sandboxes in the order of their ids, those that ended too."""
        return super().get(request, *args, **path)


class SandboxDetail(AccountView):
    """One sandbox. Another account's is not found."""

    @extend_schema(
        operation_id="sandbox",
        parameters=[_NAMED],
        responses=SandboxWithLivesSerializer,
        examples=[
            OpenApiExample(
                "One that runs", value={**A_SANDBOX, "lives": [A_LIFE]}, response_only=True
            )
        ],
    )
    def get(self, request: Request, sandbox_id: str) -> Response:
        """Return the sandbox and its newest starts."""
        found = describe_one(self.account_id, sandbox_id)
        if found is None:
            raise NotFound
        sandbox, lives = found
        return Response(SandboxWithLivesSerializer(sandbox, context={"lives": lives}).data)


class SandboxUsage(AccountView):
    """What one sandbox is doing. Another account's is not found."""

    @extend_schema(
        operation_id="sandbox_usage",
        parameters=[_NAMED],
        responses=LiveUsageSerializer,
        examples=[
            OpenApiExample(
                "Busy",
                value={
                    "sandbox_id": "sbx-1",
                    "is_live": True,
                    "read_at": "2026-11-02T10:09:02Z",
                    "state": "running",
                    "lives": 1,
                    "cpu_percent": "153.4",
                    "cpu_limit": "2",
                    "memory_bytes": 268435456,
                    "memory_limit_bytes": 1073741824,
                    "network_ingress_bytes_per_second": "1024",
                    "network_egress_bytes_per_second": "20480.5",
                    "disk_read_bytes_per_second": "0",
                    "disk_write_bytes_per_second": "4096",
                    "rates_over_ms": 2000,
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request, sandbox_id: str) -> Response:
        """Return cpu, memory and rates at the newest reading, which is seldom older than seconds.

        Where there is none of the last seconds, `is_live` is false and the latest one known
        stands, with its time and without rates. It is for looking at, and not what is billed.
        """
        try:
            live = live_sandbox(self.account_id, sandbox_id, now=datetime.now(UTC))
        except NoSuchSandboxError:
            raise NotFound from None
        return Response(LiveUsageSerializer(live).data)


class SandboxCollect(AccountView):
    """A reading at once, as before a stop. Another account's sandbox is not found."""

    needs = Scope.METERING
    # It asks an engine, which no transaction waits for.
    idempotency = CLAIM

    @extend_schema(
        operation_id="sandbox_collect",
        parameters=[_NAMED],
        request=None,
        responses=SandboxReadSerializer,
        examples=[OpenApiExample("Read", value={"read": 1}, response_only=True)],
    )
    def post(self, request: Request, sandbox_id: str) -> Response:
        """Read the sandbox's running starts once more, wherever they run. Safe to repeat.

        What a runtime sends by itself is not read here.
        """
        try:
            read = collect_now(self.account_id, sandbox_id, now=datetime.now(UTC))
        except NoSuchSandboxError:
            raise NotFound from None
        except NotReadError:
            # Why names our hosts; the host's page in the admin has it.
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable") from None
        return Response(SandboxReadSerializer({"read": read}).data)
