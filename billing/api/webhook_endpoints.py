"""Where the account's events are sent. A secret stands in the answer to its making, and no more."""

from __future__ import annotations

from collections.abc import Callable
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
from billing.api.filters import DeliveryFilter
from billing.api.problems import conflict, field_problem
from billing.api.views import AccountListView, AccountView
from billing.models import Delivery, WebhookEndpoint
from billing.serializers.webhooks import (
    DeliverySerializer,
    EndpointChangeSerializer,
    EndpointSerializer,
    EventSerializer,
    IssuedEndpointSerializer,
    NewEndpointSerializer,
)
from billing.services import (
    EndpointChange,
    IssuedEndpoint,
    WebhookRefusedError,
    add_endpoint,
    change_endpoint,
    ping_endpoint,
    refuse_url,
    remove_endpoint,
    rotate_secret,
)

AN_ENDPOINT: dict[str, Any] = {
    "id": "0c4f2c1e-7c0a-4e57-9a43-0f3f3f1f8a55",
    "url": "https://example.com/soulbox",
    "description": "Accounting",
    "event_types": ["invoice.finalized", "invoice.paid"],
    "is_enabled": True,
    "disabled_at": None,
    "disabled_reason": "",
    "failing_since": None,
    "old_secret_until": None,
    "created_at": "2026-11-01T09:30:00Z",
}
_ASKED = OpenApiExample(
    "Of invoices",
    value={name: AN_ENDPOINT[name] for name in ("url", "description", "event_types")},
    request_only=True,
)
_ISSUED = OpenApiExample(
    "With its secret",
    value={**AN_ENDPOINT, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
    response_only=True,
)
_SHOWN = OpenApiExample("Of invoices", value=AN_ENDPOINT, response_only=True)


class WebhookEndpoints(AccountListView[WebhookEndpoint]):
    """The account's endpoints."""

    needs = Scope.ADMIN
    secrets_once = ("secret",)
    serializer_class = EndpointSerializer
    queryset = WebhookEndpoint.objects.none()

    def get_queryset(self) -> QuerySet[WebhookEndpoint]:
        """Return the endpoints of the caller's account and of no other."""
        return _endpoints_of(self)

    @extend_schema(
        operation_id="webhook_endpoints",
        responses=EndpointSerializer(many=True),
        examples=[_SHOWN],
    )
    def get(self, request: Request, *args: Any, **path: Any) -> Response:
        """Return the endpoints that were not removed, the newest first."""
        return super().get(request, *args, **path)

    def initial(self, request: Request, *args: Any, **path: Any) -> None:
        """Refuse who may not, and a new address that is no good.

        It is looked up on the network, so before the transaction of the call begins.
        """
        super().initial(request, *args, **path)
        if request.method == "POST":
            # Once it is kept, whoever compares calls can read it too.
            _body = request.body
            asked = NewEndpointSerializer(data=request.data)
            asked.is_valid(raise_exception=True)
            _refused_in_words(lambda: refuse_url(asked.validated_data["url"]))

    @extend_schema(
        operation_id="webhook_endpoint_create",
        request=NewEndpointSerializer,
        responses={201: IssuedEndpointSerializer},
        examples=[_ASKED, _ISSUED],
    )
    def post(self, request: Request) -> Response:
        """Send events to `url` from now on. `secret`, which signs them, is shown this once."""
        asked = NewEndpointSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        return _shown_once(
            _refused_in_words(
                lambda: add_endpoint(self.account_id, now=datetime.now(UTC), **asked.validated_data)
            )
        )


class WebhookEndpointDetail(AccountView):
    """One endpoint. Another account's, and one that was removed, is not found."""

    needs = Scope.ADMIN

    @extend_schema(operation_id="webhook_endpoint", responses=EndpointSerializer, examples=[_SHOWN])
    def get(self, request: Request, pk: UUID) -> Response:
        """Return the endpoint."""
        del request
        return Response(EndpointSerializer(_endpoint_of(self, pk)).data)

    @extend_schema(
        operation_id="webhook_endpoint_change",
        request=EndpointChangeSerializer(partial=True),
        responses=EndpointSerializer,
        examples=[
            OpenApiExample("Switched off", value={"is_enabled": False}, request_only=True),
            _SHOWN,
        ],
    )
    def patch(self, request: Request, pk: UUID) -> Response:
        """Change what is given. What waits for one that is switched off is given up."""
        endpoint = _endpoint_of(self, pk)
        asked = EndpointChangeSerializer(data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        change = EndpointChange(**asked.validated_data)

        def apply() -> WebhookEndpoint:
            if change.url is not None:
                refuse_url(change.url)
            return change_endpoint(endpoint.pk, change, now=datetime.now(UTC))

        return Response(EndpointSerializer(_refused_in_words(apply)).data)

    @extend_schema(operation_id="webhook_endpoint_remove", responses={204: None})
    def delete(self, request: Request, pk: UUID) -> Response:
        """Send nothing there any more."""
        del request
        endpoint = _endpoint_of(self, pk)
        _refused_in_words(lambda: remove_endpoint(endpoint.pk, now=datetime.now(UTC)))
        return Response(status=HTTPStatus.NO_CONTENT)


class WebhookEndpointRotation(AccountView):
    """Gives an endpoint a new secret."""

    needs = Scope.ADMIN
    secrets_once = ("secret",)

    @extend_schema(
        operation_id="webhook_endpoint_rotate",
        request=None,
        responses={201: IssuedEndpointSerializer},
        examples=[_ISSUED],
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """Take a new secret; until `old_secret_until` events are signed with the old one too."""
        del request
        endpoint = _endpoint_of(self, pk)
        return _shown_once(
            _refused_in_words(lambda: rotate_secret(endpoint.pk, now=datetime.now(UTC)))
        )


class WebhookEndpointPing(AccountView):
    """Tries an endpoint."""

    needs = Scope.ADMIN

    @extend_schema(
        operation_id="webhook_endpoint_ping",
        request=None,
        responses={202: EventSerializer},
        examples=[
            OpenApiExample(
                "A ping",
                value={
                    "id": "4f6e3d1e-8a07-4b1d-9a3e-2f0a6a3d5b11",
                    "type": "ping",
                    "timestamp": "2026-11-01T09:31:00Z",
                    "data": {"endpoint_id": AN_ENDPOINT["id"]},
                },
                response_only=True,
            )
        ],
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """Send the endpoint an event that tells of nothing. `deliveries` says what became of it."""
        del request
        endpoint = _endpoint_of(self, pk)
        event = _refused_in_words(lambda: ping_endpoint(endpoint.pk, now=datetime.now(UTC)))
        return Response(EventSerializer(event).data, HTTPStatus.ACCEPTED)


class WebhookEndpointDeliveries(AccountListView[Delivery]):
    """What was sent to an endpoint, and what came of it, for 30 days."""

    needs = Scope.ADMIN
    serializer_class = DeliverySerializer
    filterset_class = DeliveryFilter
    queryset = Delivery.objects.none()

    def get_queryset(self) -> QuerySet[Delivery]:
        """Return the deliveries to an endpoint of the caller's account. Raises NotFound."""
        endpoint = _endpoint_of(self, self.kwargs["pk"])
        return Delivery.objects.filter(endpoint=endpoint).select_related("event")

    @extend_schema(
        operation_id="webhook_endpoint_deliveries",
        responses=DeliverySerializer(many=True),
        examples=[
            OpenApiExample(
                "Taken",
                value={
                    "id": "b3b5f1a6-4a9f-4f6a-8f8e-0a2c4f9d7e21",
                    "event_id": "4f6e3d1e-8a07-4b1d-9a3e-2f0a6a3d5b11",
                    "event_type": "invoice.paid",
                    "endpoint_id": AN_ENDPOINT["id"],
                    "state": "delivered",
                    "attempts": 1,
                    "created_at": "2026-11-01T09:31:00Z",
                    "tried_at": "2026-11-01T09:31:04Z",
                    "next_try_at": None,
                    "delivered_at": "2026-11-01T09:31:04Z",
                    "given_up_at": None,
                    "response_status": 204,
                    "response_excerpt": "",
                    "last_error": "",
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request, *args: Any, **path: Any) -> Response:
        """Return the deliveries, the newest first."""
        return super().get(request, *args, **path)


def _endpoints_of(view: AccountView) -> QuerySet[WebhookEndpoint]:
    return WebhookEndpoint.objects.filter(account=view.account_id, removed_at=None)


def _endpoint_of(view: AccountView, endpoint_id: UUID) -> WebhookEndpoint:
    """Return an endpoint of the caller's account. Raises NotFound."""
    endpoint = _endpoints_of(view).filter(pk=endpoint_id).first()
    if endpoint is None:
        raise NotFound
    return endpoint


def _refused_in_words(do: Callable[[], Any]) -> Any:
    """Return what the service does. Raises NotFound, Problem or ValidationError."""
    try:
        return do()
    except WebhookEndpoint.DoesNotExist:
        # Somebody removed it in this moment.
        raise NotFound from None
    except WebhookRefusedError as refusal:
        if refusal.field:
            says = str(refusal).removeprefix(f"{refusal.field}: ")
            raise field_problem(refusal.field, says) from None
        raise conflict(str(refusal)) from None


def _shown_once(issued: IssuedEndpoint) -> Response:
    body = {**EndpointSerializer(issued.row).data, "secret": issued.secret}
    return Response(body, HTTPStatus.CREATED, headers={"Cache-Control": "no-store"})
