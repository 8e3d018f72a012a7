"""What is asked of the history of usage, and how it is written.

A year has thousands of figures, so they are written here and not field by field; the serializers
say the same to the OpenAPI document.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

from rest_framework import serializers

from billing.api.serializers import StrictSerializer
from billing.rating import decimal_text, exact_sum, ratio_text
from billing.serializers.coverage import FIRST_YEAR
from billing.serializers.fields import CostByMeterField, ExactField, PeriodSerializer, UsageField
from billing.usage_history import Bucket, Granularity, History, Share
from metering.labels import LabelNameError, require_label_name
from metering.meters import UNITS, Meter

METER, SANDBOX, LABEL = "meter", "sandbox", "label"
MOST_DAYS = {Granularity.HOUR: 31, Granularity.DAY: 366, Granularity.MONTH: 5 * 366}
MOST_GROUPS, GROUPS = 100, 10
_SHOWN = tuple((meter, UNITS[meter].shown, UNITS[meter].size) for meter in Meter)


class HistoryQuerySerializer(StrictSerializer[Any]):
    """Which usage is asked for."""

    start_date = serializers.DateField(help_text="The first day, of the account's time zone.")
    end_date = serializers.DateField(
        help_text="The day after the last one: at most 31 days on by hour, 366 by day, 5 years "
        "by month."
    )
    granularity = serializers.ChoiceField(
        choices=[each.value for each in Granularity], default=Granularity.DAY.value
    )
    group_by = serializers.ChoiceField(choices=[METER, SANDBOX, LABEL], default=METER)
    # The type is that of Field.label, which a declared field is not.
    label = serializers.CharField(  # type: ignore[assignment]
        required=False, help_text="The label's name, to group by it."
    )
    top = serializers.IntegerField(
        min_value=1,
        max_value=MOST_GROUPS,
        required=False,
        help_text=f"How many sandboxes or values are told apart, the costliest; {GROUPS} unless "
        "said. The rest is in `other`.",
    )

    def validate(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return what is asked. Raises ValidationError naming the field that is no good."""
        start: date = asked["start_date"]
        if start.year < FIRST_YEAR:
            raise serializers.ValidationError(
                {"start_date": f"It has to be in {FIRST_YEAR} or later."}
            )
        days = (asked["end_date"] - start).days
        if days < 1:
            raise serializers.ValidationError({"end_date": "It has to be after start_date."})
        most = MOST_DAYS[Granularity(asked["granularity"])]
        if days > most:
            raise serializers.ValidationError(
                {
                    "end_date": f"It is {days} days after start_date; by {asked['granularity']} at "
                    f"most {most} are given at once."
                }
            )
        if (asked["group_by"] == LABEL) != ("label" in asked):
            raise serializers.ValidationError(
                {"label": f"Give it to group by {LABEL}, and only then."}
            )
        if asked["group_by"] == METER and "top" in asked:
            raise serializers.ValidationError({"top": "Meters are all told apart. Leave it out."})
        try:
            require_label_name(asked.get("label", "name"))
        except LabelNameError as error:
            raise serializers.ValidationError({"label": str(error)}) from None
        return asked


class ShareSerializer(serializers.Serializer[Share]):
    """Usage, and what it cost exactly."""

    usage = UsageField(read_only=True)
    cost_by_meter = CostByMeterField(read_only=True)
    cost = ExactField()


class GroupSerializer(ShareSerializer):
    """What one sandbox, or one value of the label, used and bears."""

    key = serializers.CharField(
        read_only=True,
        allow_null=True,
        help_text="The sandbox's id or the label's value; null is what has no such label.",
    )


class BucketSerializer(ShareSerializer):
    """One hour, day or month. `groups`, `other` and `without_usage` sum to its `cost`."""

    start = serializers.DateTimeField(read_only=True)
    end = serializers.DateTimeField(read_only=True)
    without_usage = ExactField(
        help_text="What was due where nothing was used, as a minimum is; part of `cost`."
    )
    groups = GroupSerializer(
        many=True, read_only=True, help_text="Empty by meter: usage and cost_by_meter say it."
    )
    other = ShareSerializer(
        read_only=True, allow_null=True, help_text="All groups that are not told apart."
    )


class HistorySerializer(serializers.Serializer[History]):
    """Usage over time. Buckets in which nothing was used are there too, up to now."""

    period = PeriodSerializer(read_only=True)
    time_zone = serializers.CharField(read_only=True)
    currency = serializers.CharField(read_only=True)
    granularity = serializers.ChoiceField(
        choices=[each.value for each in Granularity], read_only=True
    )
    group_by = serializers.ChoiceField(choices=[METER, SANDBOX, LABEL], read_only=True)
    group_count = serializers.IntegerField(
        read_only=True, help_text="How many groups there are, told apart or not."
    )
    cost = ExactField(help_text="The sum of the buckets' costs.")
    buckets = BucketSerializer(many=True, read_only=True)


def history_body(history: History, *, granularity: str, group_by: str) -> dict[str, Any]:
    """Return the body that HistorySerializer describes."""
    costs = [
        bucket.whole.cost + bucket.without_usage if bucket.without_usage else bucket.whole.cost
        for bucket in history.buckets
    ]
    return {
        "period": {"start": _time(history.period.start), "end": _time(history.period.end)},
        "time_zone": history.time_zone,
        "currency": history.currency,
        "granularity": granularity,
        "group_by": group_by,
        "group_count": history.group_count,
        "cost": decimal_text(exact_sum(costs)),
        "buckets": [
            _bucket(bucket, cost) for bucket, cost in zip(history.buckets, costs, strict=True)
        ],
    }


def _bucket(bucket: Bucket, cost: Fraction) -> dict[str, Any]:
    return {
        "start": _time(bucket.period.start),
        "end": _time(bucket.period.end),
        **_share(bucket.whole, cost),
        "without_usage": decimal_text(bucket.without_usage),
        "groups": [{"key": key, **_share(share, share.cost)} for key, share in bucket.groups],
        "other": bucket.other and _share(bucket.other, bucket.other.cost),
    }


def _share(share: Share, cost: Fraction) -> dict[str, Any]:
    usage, costs = share.usage, share.cost_by_meter
    return {
        "usage": {
            shown: ratio_text(usage[meter], size) for meter, shown, size in _SHOWN if meter in usage
        },
        "cost_by_meter": {
            meter.value: decimal_text(costs[meter]) for meter, _, _ in _SHOWN if meter in costs
        },
        "cost": decimal_text(cost),
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
