from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from rest_framework import serializers

from billing.cost_queries import MOST_KEYS, CostsByKey, KeyCost
from billing.serializers.coverage import FIRST_YEAR, MOST_DAYS
from billing.serializers.fields import CostByMeterField, ExactField, PeriodSerializer

SANDBOX = "sandbox"
LABEL = "label"


class MomentField(serializers.DateTimeField):
    """A time of RFC 3339, which says its offset."""

    default_error_messages = {
        "naive": "It has no offset. Give a time like 2026-05-01T00:00:00Z.",
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(default_timezone=UTC, **options)

    def enforce_timezone(self, value: datetime) -> datetime:
        """Return the time in UTC. Raises ValidationError when it has no offset."""
        if value.tzinfo is None:
            self.fail("naive")
        return super().enforce_timezone(value)


class CostsQuerySerializer(serializers.Serializer[Any]):
    """Which costs are asked for. `now` in the context is the time of asking."""

    start = MomentField(help_text="At a quarter of an hour.")
    end = MomentField(help_text=f"At a quarter of an hour, at most {MOST_DAYS} days after start.")
    group_by = serializers.ChoiceField(choices=[SANDBOX, LABEL], default=SANDBOX)
    # The type is that of Field.label, which a declared field is not.
    label = serializers.CharField(  # type: ignore[assignment]
        required=False, help_text="The label's name, to group by it."
    )

    def validate(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return what is asked. Raises ValidationError naming the field that is no good."""
        start, end = asked["start"], asked["end"]
        if start.year < FIRST_YEAR:
            raise serializers.ValidationError({"start": f"It has to be in {FIRST_YEAR} or later."})
        if start > self.context["now"]:
            raise serializers.ValidationError({"start": "It lies ahead."})
        if end <= start:
            raise serializers.ValidationError({"end": "It has to be after start."})
        if end - start > timedelta(days=MOST_DAYS):
            raise serializers.ValidationError(
                {"end": f"It is more than {MOST_DAYS} days after start. Ask in parts."}
            )
        if (asked["group_by"] == LABEL) != ("label" in asked):
            raise serializers.ValidationError(
                {"label": f"Give it to group by {LABEL}, and only then."}
            )
        return asked


class KeyCostSerializer(serializers.Serializer[KeyCost[Any]]):
    """What one sandbox, or one value of the label, bears."""

    key = serializers.CharField(
        read_only=True,
        allow_null=True,
        help_text="The sandbox's id or the label's value; null is what has no such label.",
    )
    cost = ExactField()
    cost_by_meter = CostByMeterField(read_only=True)


class OtherCostsSerializer(serializers.Serializer[Any]):
    """What the keys that are not listed bear together."""

    keys = serializers.IntegerField(read_only=True)
    cost = ExactField()
    cost_by_meter = CostByMeterField(read_only=True)


class CostsSerializer(serializers.Serializer[CostsByKey[Any]]):
    """Exact costs. raw_cost is the sum of costs, others and without_usage."""

    period = PeriodSerializer(read_only=True)
    currency = serializers.CharField(read_only=True)
    raw_cost = ExactField()
    without_usage = ExactField(
        help_text="What was due where nothing was used, as a minimum is.",
    )
    costs = KeyCostSerializer(
        many=True, read_only=True, help_text=f"The highest cost first, at most {MOST_KEYS}."
    )
    others = OtherCostsSerializer(read_only=True)
