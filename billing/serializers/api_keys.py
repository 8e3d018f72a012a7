from __future__ import annotations

from typing import Any

from rest_framework import serializers

from billing.api.serializers import StrictSerializer
from billing.models import ApiKey
from billing.services.api_keys import LONGEST_OVERLAP

MOST_OVERLAP_HOURS = LONGEST_OVERLAP.days * 24


class ApiKeySerializer(serializers.ModelSerializer[ApiKey]):
    """A key, without what it is: that was shown once."""

    scopes = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="read, write, metering, admin"
    )

    class Meta:
        model = ApiKey
        fields = (
            "id",
            "name",
            "prefix",
            "scopes",
            "created_at",
            "expires_at",
            "last_used_at",
            "revoked_at",
        )
        read_only_fields = fields


class IssuedApiKeySerializer(ApiKeySerializer):
    """A new key. `key` is null where the answer is replayed: it is shown once."""

    key = serializers.CharField(read_only=True, allow_null=True)

    class Meta(ApiKeySerializer.Meta):
        fields = (*ApiKeySerializer.Meta.fields, "key")  # type: ignore[assignment]  # one more
        read_only_fields = fields  # type: ignore[assignment]  # the same


class NewApiKeySerializer(StrictSerializer[Any]):
    """What a new key is called, what it may do and until when."""

    name = serializers.CharField(max_length=100)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=ApiKey.Scope.choices),
        allow_empty=False,
        max_length=len(ApiKey.Scope.choices),
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


class RotationSerializer(StrictSerializer[Any]):
    """How long the old key works beside the new one."""

    overlap_hours = serializers.IntegerField(min_value=0, max_value=MOST_OVERLAP_HOURS, default=24)
