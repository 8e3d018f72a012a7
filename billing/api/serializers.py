from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

T = TypeVar("T")


class StrictSerializer(serializers.Serializer[T]):
    """Reads what a call sends, and refuses fields that it does not know or may not be written."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the fields' values. Raises ValidationError, naming each unknown field."""
        if isinstance(data, Mapping):
            refuse_unknown(self, data)
        return super().to_internal_value(data)


def refuse_unknown(serializer: serializers.Serializer[Any], data: Mapping[str, Any]) -> None:
    """Raise ValidationError unless every field of `data` is one that may be written."""
    known = {name for name, field in serializer.fields.items() if not field.read_only}
    unknown = [name for name in data if name not in known]
    if unknown:
        way_out = (
            f"It is not read here. Use {', '.join(sorted(known))}."
            if known
            else "It is not read here."
        )
        raise serializers.ValidationError(
            {str(name): [ErrorDetail(way_out, "unknown_field")] for name in unknown}
        )
