"""Events, the endpoints that they are sent to, and what became of each."""

from __future__ import annotations

from typing import Any, Final

from rest_framework import serializers

from billing.api.serializers import StrictSerializer
from billing.models import Delivery, Event, EventType, WebhookEndpoint
from billing.models.outgoing import LONGEST_URL

LONGEST_DESCRIPTION: Final = 200
# A ping goes to whom it is sent, whatever types they want.
WANTED: Final = [(kind.value, kind.label) for kind in EventType if kind is not EventType.PING]


class EventSerializer(serializers.ModelSerializer[Event]):
    """Something that happened to the account, in the words that are sent to endpoints."""

    timestamp = serializers.DateTimeField(source="created_at", read_only=True)
    data = serializers.DictField(  # type: ignore[assignment]  # DRF takes fields out of the class
        read_only=True, help_text="By type: docs/webhooks.md says what each carries."
    )

    class Meta:
        model = Event
        fields = ("id", "type", "timestamp", "data")
        read_only_fields = fields


class EndpointSerializer(serializers.ModelSerializer[WebhookEndpoint]):
    """An address that events are sent to. What they are signed with was shown once."""

    event_types = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="Empty: all of them."
    )
    is_enabled = serializers.SerializerMethodField()

    class Meta:
        model = WebhookEndpoint
        fields = (
            "id",
            "url",
            "description",
            "event_types",
            "is_enabled",
            "disabled_at",
            "disabled_reason",
            "failing_since",
            "old_secret_until",
            "created_at",
        )
        read_only_fields = fields

    def get_is_enabled(self, endpoint: WebhookEndpoint) -> bool:
        """Return whether anything is sent there."""
        return endpoint.disabled_at is None


class IssuedEndpointSerializer(EndpointSerializer):
    """An endpoint with a new secret. It is null where the answer is replayed: it is shown once."""

    secret = serializers.CharField(read_only=True, allow_null=True)

    class Meta(EndpointSerializer.Meta):
        fields = (*EndpointSerializer.Meta.fields, "secret")  # type: ignore[assignment]  # one more
        read_only_fields = fields  # type: ignore[assignment]  # the same


class NewEndpointSerializer(StrictSerializer[Any]):
    """Where events go, and which."""

    url = serializers.CharField(max_length=LONGEST_URL)
    description = serializers.CharField(
        max_length=LONGEST_DESCRIPTION, required=False, allow_blank=True
    )
    event_types = serializers.ListField(
        child=serializers.ChoiceField(choices=WANTED),
        max_length=len(WANTED),
        required=False,
        help_text="Empty: all of them.",
    )


class EndpointChangeSerializer(NewEndpointSerializer):
    """What is to be different of an endpoint."""

    is_enabled = serializers.BooleanField(required=False)


class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    """An event on its way to an endpoint. The answer is that of the last try."""

    event_id = serializers.UUIDField(read_only=True)
    event_type = serializers.CharField(source="event.type", read_only=True)
    endpoint_id = serializers.UUIDField(read_only=True)
    state = serializers.SerializerMethodField()
    next_try_at = serializers.SerializerMethodField()

    class Meta:
        model = Delivery
        fields = (
            "id",
            "event_id",
            "event_type",
            "endpoint_id",
            "state",
            "attempts",
            "created_at",
            "tried_at",
            "next_try_at",
            "delivered_at",
            "given_up_at",
            "response_status",
            "response_excerpt",
            "last_error",
        )
        read_only_fields = fields

    def get_state(self, delivery: Delivery) -> str:
        """Return one of waiting, delivered and given_up."""
        if delivery.delivered_at:
            return "delivered"
        return "given_up" if delivery.given_up_at else "waiting"

    def get_next_try_at(self, delivery: Delivery) -> str | None:
        """Return when it is sent at the soonest; null where it is not."""
        if delivery.delivered_at or delivery.given_up_at:
            return None
        field = serializers.DateTimeField()
        return str(field.to_representation(delivery.try_at))


class RedeliverySerializer(StrictSerializer[Any]):
    """To which endpoint; without, to all that want the event's type."""

    endpoint_id = serializers.UUIDField(required=False)
