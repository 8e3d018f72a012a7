"""What happened to the account in the last 30 days, as its endpoints were told."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.callers import Scope
from billing.api.filters import EventFilter
from billing.api.problems import conflict, field_problem
from billing.api.views import AccountListView, AccountView
from billing.models import Event
from billing.serializers.webhooks import (
    DeliverySerializer,
    EventSerializer,
    RedeliverySerializer,
)
from billing.services import WebhookRefusedError, redeliver

_PAID = OpenApiExample(
    "An invoice is paid",
    value={
        "id": "4f6e3d1e-8a07-4b1d-9a3e-2f0a6a3d5b11",
        "type": "invoice.paid",
        "timestamp": "2026-06-01T00:20:05Z",
        "data": {
            "at": "2026-06-01T00:20:00Z",
            "invoice": {
                "id": 7,
                "number": "2026-000007",
                "kind": "usage",
                "status": "paid",
                "period": {"start": "2026-05-01T00:00:00Z", "end": "2026-06-01T00:00:00Z"},
                "currency": "USD",
                "total_amount": "117.81",
                "amount_due": "117.81",
            },
        },
    },
    response_only=True,
)


class Events(AccountListView[Event]):
    """The account's events."""

    serializer_class = EventSerializer
    filterset_class = EventFilter
    queryset = Event.objects.none()

    def get_queryset(self) -> QuerySet[Event]:
        """Return the events of the caller's account and of no other."""
        return Event.objects.filter(account=self.account_id)

    @extend_schema(operation_id="events", responses=EventSerializer(many=True), examples=[_PAID])
    def get(self, request: Request, *args: Any, **path: Any) -> Response:
        """Return the events, the newest first."""
        return super().get(request, *args, **path)


class EventDetail(AccountView):
    """One event. Another account's is not found."""

    @extend_schema(operation_id="event", responses=EventSerializer, examples=[_PAID])
    def get(self, request: Request, pk: UUID) -> Response:
        """Return the event."""
        del request
        return Response(EventSerializer(_event_of(self, pk)).data)


class EventRedelivery(AccountView):
    """Sends an event again."""

    needs = Scope.ADMIN

    @extend_schema(
        operation_id="event_redeliver",
        request=RedeliverySerializer,
        responses={202: DeliverySerializer(many=True)},
        examples=[
            OpenApiExample(
                "To one endpoint",
                value={"endpoint_id": "0c4f2c1e-7c0a-4e57-9a43-0f3f3f1f8a55"},
                request_only=True,
            )
        ],
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """Let the event be sent within seconds, whatever became of it before. Safe to repeat."""
        event = _event_of(self, pk)
        asked = RedeliverySerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            deliveries = redeliver(event.pk, now=datetime.now(UTC), **asked.validated_data)
        except Event.DoesNotExist:
            # It was 30 days old in this moment.
            raise NotFound from None
        except WebhookRefusedError as refusal:
            if "endpoint_id" in asked.validated_data:
                raise field_problem("endpoint_id", str(refusal)) from None
            raise conflict(str(refusal)) from None
        return Response(DeliverySerializer(deliveries, many=True).data, HTTPStatus.ACCEPTED)


def _event_of(view: AccountView, event_id: UUID) -> Event:
    """Return an event of the caller's account. Raises NotFound."""
    event = Event.objects.filter(pk=event_id, account=view.account_id).first()
    if event is None:
        raise NotFound
    return event
