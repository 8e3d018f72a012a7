from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.rating import decimal_text
from billing.serializers.fields import DECIMAL_TEXT_OR_NULL, ExactOrNullField
from metering.live import LiveSandbox
from metering.sandboxes import LifeSummary, SandboxSummary

MILLION = 10**6
_HUNDREDTHS = 100


@extend_schema_field(DECIMAL_TEXT_OR_NULL)
class RateField(serializers.Field[Any, Any, str | None, Any]):
    """A rate or a share to two decimals; null where it is not known."""

    def __init__(self, **options: Any) -> None:
        super().__init__(read_only=True, **options)

    def to_representation(self, value: Fraction) -> str:
        """Return the decimal text."""
        return decimal_text(Fraction(round(value * _HUNDREDTHS), _HUNDREDTHS))


@extend_schema_field(DECIMAL_TEXT_OR_NULL)
class CpusField(ExactOrNullField):
    """Cpus, of which the value is millionths."""

    def to_representation(self, value: Fraction | Decimal) -> str:
        """Return the number of cpus."""
        return super().to_representation(Fraction(value) / MILLION)


class LifeSummarySerializer(serializers.Serializer[LifeSummary]):
    """One start of a sandbox."""

    started_at = serializers.DateTimeField(read_only=True)
    ended_at = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="null: it runs, as far as is known."
    )
    oom_at = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="When it last lost a process for want of memory."
    )
    cpu_limit = CpusField(source="cpu_limit_micro", help_text="Cpus; null: all of its host.")
    memory_limit_bytes = serializers.IntegerField(
        read_only=True, allow_null=True, help_text="null: all of its host."
    )
    gpu_count = serializers.IntegerField(
        read_only=True, allow_null=True, help_text="null: some, and how many is not known."
    )
    labels = serializers.DictField(child=serializers.CharField(), read_only=True)


class SandboxSerializer(serializers.Serializer[SandboxSummary]):
    """A sandbox, and its newest start."""

    sandbox_id = serializers.CharField(read_only=True, help_text="As usage names it too.")
    state = serializers.SerializerMethodField(help_text="running or ended, as far as is known.")
    starts = serializers.IntegerField(read_only=True, help_text="How often it was started.")
    recorded_at = serializers.DateTimeField(read_only=True, help_text="When it was first met.")
    first_started_at = serializers.DateTimeField(read_only=True, allow_null=True)
    newest = LifeSummarySerializer(
        read_only=True, allow_null=True, help_text="Its newest start; its labels are the sandbox's."
    )

    def get_state(self, instance: SandboxSummary) -> str:
        """Return whether it runs."""
        return "running" if instance.is_running else "ended"


class SandboxWithLivesSerializer(SandboxSerializer):
    """A sandbox with its newest starts."""

    lives = serializers.SerializerMethodField(help_text="The newest 20 starts.")

    @extend_schema_field(LifeSummarySerializer(many=True))
    def get_lives(self, instance: SandboxSummary) -> Any:
        """Return what the view found beside the sandbox."""
        del instance
        return LifeSummarySerializer(self.context.get("lives", ()), many=True).data


class LiveUsageSerializer(serializers.Serializer[LiveSandbox]):
    """What a sandbox is doing, at its newest reading. What is not known is null."""

    sandbox_id = serializers.CharField(read_only=True)
    is_live = serializers.BooleanField(
        source="reading.is_live",
        read_only=True,
        help_text="It runs, and was read less than five seconds ago.",
    )
    read_at = serializers.DateTimeField(
        source="reading.at",
        read_only=True,
        allow_null=True,
        help_text="When; of several starts that run, the one that was read first. null: never.",
    )
    state = serializers.CharField(
        source="reading.state", read_only=True, help_text="running, paused, stopped or unknown"
    )
    lives = serializers.IntegerField(
        read_only=True, help_text="How many starts of it run; the figures are their sums."
    )
    cpu_percent = RateField(source="reading.cpu_percent", help_text="100 is one cpu.")
    cpu_limit = CpusField(
        source="reading.cpu_limit_micro", help_text="Cpus that it may use, by its limit or host."
    )
    memory_bytes = serializers.IntegerField(
        source="reading.memory_bytes", read_only=True, allow_null=True
    )
    memory_limit_bytes = serializers.IntegerField(
        source="reading.memory_limit_bytes",
        read_only=True,
        allow_null=True,
        help_text="Memory that it may use, by its limit or host.",
    )
    network_ingress_bytes_per_second = RateField(source="reading.network_rx_rate")
    network_egress_bytes_per_second = RateField(source="reading.network_tx_rate")
    disk_read_bytes_per_second = RateField(source="reading.disk_read_rate")
    disk_write_bytes_per_second = RateField(source="reading.disk_write_rate")
    rates_over_ms = serializers.IntegerField(
        source="reading.span_ms",
        read_only=True,
        allow_null=True,
        help_text="cpu_percent and the rates are averages of so long, up to read_at.",
    )


class SandboxReadSerializer(serializers.Serializer[Any]):
    """How many starts of the sandbox were read."""

    read = serializers.IntegerField(read_only=True)
