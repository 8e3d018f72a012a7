from __future__ import annotations

from django.db import models
from django.db.models import Q

from metering.period import to_ms


class AccountRegistration(models.Model):
    """An account that may have sandboxes. Billing writes it; metering knows no more of accounts."""

    account_id = models.UUIDField(primary_key=True)
    time_zone = models.CharField(max_length=64, default="UTC")
    registered_at = models.DateTimeField()
    # Windows that start before it are on a final invoice: growth in them is late usage.
    frozen_until = models.DateTimeField(null=True, blank=True)
    is_active = models.BooleanField(default=True)
    # It is being closed: no life that started then or later is recorded.
    closes_from = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return str(self.account_id)

    def takes_life_of(self, started_ms: int) -> bool:
        """Return whether a life that started then may be recorded."""
        return self.is_active and (self.closes_from is None or started_ms < to_ms(self.closes_from))


class FormerTimeZone(models.Model):
    """The time zone of an account's local days up to a time, when another took its place."""

    account = models.ForeignKey(
        AccountRegistration, on_delete=models.PROTECT, related_name="former_time_zones"
    )
    time_zone = models.CharField(max_length=64)
    # The start of a window.
    until = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "until"], name="time_zone_of_an_account_changes_once_at_a_time"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.time_zone} until {self.until:%Y-%m-%d %H:%M}"


class Host(models.Model):
    """A machine, or a simulator, whose sandboxes are metered through one stream."""

    id = models.UUIDField(primary_key=True)
    name = models.CharField(max_length=64, unique=True)
    # unix:///path, tcp://host:port, simulator:?account=UUID; api: its samples are sent to us.
    endpoint = models.CharField(max_length=500)
    is_active = models.BooleanField(default=True)
    # The engine's own identity, taken from it by the first pass; empty for a simulator.
    engine_id = models.CharField(max_length=128, blank=True, default="")
    # What its figures come from: engine, cgroup v1, cgroup v2, simulator or api.
    source = models.CharField(max_length=16, blank=True, default="")
    # What it offers a sandbox without limits; null until a pass has asked. Millionths of a cpu.
    cpu_micro = models.BigIntegerField(null=True, blank=True)
    memory_bytes = models.BigIntegerField(null=True, blank=True)
    gpu_count = models.PositiveIntegerField(null=True, blank=True)
    registered_at = models.DateTimeField()
    # Passes over it so far; a sandbox with a longer interval is read in every so manieth.
    pass_count = models.BigIntegerField(default=0)
    # The last pass that reached the engine and the stream, or its newest reading.
    last_seen_at = models.DateTimeField(null=True, blank=True)
    # The engine's events have been read up to here.
    events_read_until = models.DateTimeField(null=True, blank=True)
    # Why the last pass failed; empty when it did not.
    problem = models.CharField(max_length=500, blank=True, default="")
    problem_since = models.DateTimeField(null=True, blank=True)
    # How far its clock was ahead of ours at the last pass; null: not known.
    clock_offset_ms = models.BigIntegerField(null=True, blank=True)
    # Storage was last read then.
    storage_read_at = models.DateTimeField(null=True, blank=True)
    # Batches up to this number are known to have been appended: whatever a Redis that came up
    # without its last ones says, the next one has a higher number.
    appended_sequence = models.PositiveBigIntegerField(default=0, db_default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["engine_id"],
                condition=Q(is_active=True) & ~Q(engine_id=""),
                name="engine_is_metered_as_one_host",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class StreamCursor(models.Model):
    """How far a host's stream is folded. It commits together with the usage it stands for."""

    host = models.OneToOneField(
        Host, on_delete=models.PROTECT, primary_key=True, related_name="cursor"
    )
    entry_id = models.CharField(max_length=40, default="0-0")
    sequence = models.BigIntegerField(default=0)
    # Every pass collected before this time is folded.
    collected_until = models.DateTimeField(null=True, blank=True)
    sample_count = models.BigIntegerField(default=0)
    # Batches that were numbered and never found in the stream.
    lost_batch_count = models.BigIntegerField(default=0)
    folded_at = models.DateTimeField(null=True, blank=True)
    # A batch was lost or refused: ends since then are still to be told again.
    ends_untold_since = models.DateTimeField(null=True, blank=True)
    # Why the last fold failed; empty when it did not.
    problem = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(lost_batch_count__gte=0) & Q(sample_count__gte=0) & Q(sequence__gte=0),
                name="cursor_counts_are_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.host_id} at {self.entry_id}"
