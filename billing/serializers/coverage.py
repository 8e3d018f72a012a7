from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.rating import decimal_text
from billing.serializers.fields import DECIMAL_TEXT_OR_NULL
from metering.coverage import MOST_GAPS, MOST_SANDBOXES, AccountCoverage

MOST_DAYS = 92
"""How many days one answer may be about."""
FIRST_YEAR = 2000
"""Nobody was metered before it, and the first days that a date can name have no time in UTC."""


class CoverageSerializer(serializers.Serializer[Any]):
    """How much of the time that sandboxes ran was measured."""

    running_ms = serializers.IntegerField(read_only=True)
    measured_ms = serializers.IntegerField(read_only=True)
    ratio = serializers.SerializerMethodField()

    @extend_schema_field(DECIMAL_TEXT_OR_NULL)
    def get_ratio(self, coverage: Any) -> str | None:
        """Return measured time by running time; None when nothing ran."""
        if not coverage.running_ms:
            return None
        return decimal_text(Fraction(coverage.measured_ms, coverage.running_ms))


class DaysSerializer(serializers.Serializer[Any]):
    """The local days from `start` to before `end`."""

    start = serializers.DateField(help_text="The first day, of the account's time zone.")
    end = serializers.DateField(help_text="The day after the last one.")


class DaysQuerySerializer(DaysSerializer):
    """Which days are asked for."""

    def validate(self, asked: dict[str, date]) -> dict[str, date]:
        """Return the days. Raises ValidationError naming the field that is no good."""
        if asked["start"].year < FIRST_YEAR:
            raise serializers.ValidationError({"start": f"It has to be in {FIRST_YEAR} or later."})
        days = (asked["end"] - asked["start"]).days
        if days < 1:
            raise serializers.ValidationError({"end": "It has to be after start."})
        if days > MOST_DAYS:
            raise serializers.ValidationError(
                {"end": f"It is {days} days after start; at most {MOST_DAYS} are given at once."}
            )
        return asked


class DayCoverageSerializer(CoverageSerializer):
    """One local day."""

    day = serializers.DateField(read_only=True)
    sandboxes = serializers.IntegerField(
        read_only=True, help_text="How many sandboxes had usage that day."
    )


class SandboxCoverageSerializer(CoverageSerializer):
    """One sandbox in the days asked for."""

    sandbox_id = serializers.CharField(read_only=True)


class GapSerializer(serializers.Serializer[Any]):
    """Time in which a sandbox ran and a meter was not measured, and so not charged."""

    sandbox_id = serializers.CharField(read_only=True)
    meter = serializers.CharField(read_only=True)
    reason = serializers.CharField(read_only=True)
    start = serializers.DateTimeField(read_only=True)
    end = serializers.DateTimeField(read_only=True)


class AccountCoverageSerializer(serializers.Serializer[AccountCoverage]):
    """How much of what ran was measured. Days are added up hourly."""

    period = DaysSerializer(source="*", read_only=True)
    time_zone = serializers.CharField(read_only=True)
    total = CoverageSerializer(read_only=True)
    days = DayCoverageSerializer(
        many=True, read_only=True, help_text="Days on which nothing ran are left out."
    )
    sandboxes = SandboxCoverageSerializer(
        many=True,
        read_only=True,
        help_text=f"The longest unmeasured time first, at most {MOST_SANDBOXES}.",
    )
    sandboxes_left_out = serializers.IntegerField(read_only=True)
    gaps = GapSerializer(
        many=True, read_only=True, help_text=f"The newest first, at most {MOST_GAPS}."
    )
    gaps_left_out = serializers.IntegerField(
        read_only=True, help_text="Ask for fewer days to see these."
    )
