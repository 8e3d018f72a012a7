from __future__ import annotations

from django.db import models
from django.db.models import Q
from psqlextra.models import PostgresPartitionedModel
from psqlextra.types import PostgresPartitioningMethod

from metering.models.lives import InterfaceReading, Life, Sandbox


class UsageRecord(PostgresPartitionedModel):
    """What one life used in one window, with the counters it was measured between.

    `closing − opening` is the window's growth, but where a CounterReset lies in it.
    """

    pk = models.CompositePrimaryKey("life_id", "window_start")
    life = models.ForeignKey(
        Life,
        on_delete=models.PROTECT,
        related_name="usage_records",
        db_index=False,
        db_constraint=False,  # ADR 4
    )
    window_start = models.DateTimeField()
    cpu_ns = models.BigIntegerField()
    opening_cpu_ns = models.BigIntegerField()
    closing_cpu_ns = models.BigIntegerField()
    disk_read_bytes = models.BigIntegerField()
    opening_disk_read_bytes = models.BigIntegerField()
    closing_disk_read_bytes = models.BigIntegerField()
    disk_write_bytes = models.BigIntegerField()
    opening_disk_write_bytes = models.BigIntegerField()
    closing_disk_write_bytes = models.BigIntegerField()
    memory_byte_ms = models.BigIntegerField()
    # Limits and devices over time, whatever was used of them.
    cpu_allocated_ns = models.BigIntegerField()
    memory_allocated_byte_ms = models.BigIntegerField()
    gpu_ms = models.BigIntegerField()
    # Time the life ran, and the part of it in which its memory was measured.
    running_ms = models.BigIntegerField()
    measured_ms = models.BigIntegerField()
    sample_count = models.BigIntegerField()
    # Null: no sample fell into the window; its growth is a share of a longer span.
    first_sample_at = models.DateTimeField(null=True)
    last_sample_at = models.DateTimeField(null=True)

    class PartitioningMeta:
        method = PostgresPartitioningMethod.RANGE
        key = ["window_start"]

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(cpu_ns__gte=0)
                & Q(disk_read_bytes__gte=0)
                & Q(disk_write_bytes__gte=0)
                & Q(memory_byte_ms__gte=0),
                name="usage_is_never_negative",
            ),
            models.CheckConstraint(
                condition=Q(cpu_allocated_ns__gte=0)
                & Q(memory_allocated_byte_ms__gte=0)
                & Q(gpu_ms__gte=0),
                name="allocation_is_never_negative",
            ),
            models.CheckConstraint(
                condition=Q(measured_ms__gte=0)
                & Q(measured_ms__lte=models.F("running_ms"))
                & Q(running_ms__lte=15 * 60 * 1000),
                name="a_window_holds_its_running_time_and_that_what_was_measured",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.life_id} at {self.window_start:%Y-%m-%d %H:%M}"


class NetworkUsageRecord(PostgresPartitionedModel):
    """What went through one network interface of a life in one window."""

    pk = models.CompositePrimaryKey("interface_id", "window_start")
    interface = models.ForeignKey(
        InterfaceReading,
        on_delete=models.PROTECT,
        related_name="usage_records",
        db_index=False,
        db_constraint=False,  # ADR 4
    )
    window_start = models.DateTimeField()
    rx_bytes = models.BigIntegerField()
    opening_rx_bytes = models.BigIntegerField()
    closing_rx_bytes = models.BigIntegerField()
    tx_bytes = models.BigIntegerField()
    opening_tx_bytes = models.BigIntegerField()
    closing_tx_bytes = models.BigIntegerField()
    sample_count = models.BigIntegerField()

    class PartitioningMeta:
        method = PostgresPartitioningMethod.RANGE
        key = ["window_start"]

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(rx_bytes__gte=0) & Q(tx_bytes__gte=0),
                name="network_usage_is_never_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.interface_id} at {self.window_start:%Y-%m-%d %H:%M}"


class StorageUsageRecord(PostgresPartitionedModel):
    """What one life's container took up in one window, running or not, with its volumes."""

    pk = models.CompositePrimaryKey("life_id", "window_start")
    life = models.ForeignKey(
        Life,
        on_delete=models.PROTECT,
        related_name="storage_records",
        db_index=False,
        db_constraint=False,  # ADR 4
    )
    window_start = models.DateTimeField()
    storage_byte_ms = models.BigIntegerField()
    # Time the container existed with this life, and the part of it in which it was measured.
    existing_ms = models.BigIntegerField()
    measured_ms = models.BigIntegerField()
    sample_count = models.BigIntegerField()

    class PartitioningMeta:
        method = PostgresPartitioningMethod.RANGE
        key = ["window_start"]

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(storage_byte_ms__gte=0), name="storage_usage_is_never_negative"
            ),
            models.CheckConstraint(
                condition=Q(measured_ms__gte=0)
                & Q(measured_ms__lte=models.F("existing_ms"))
                & Q(existing_ms__lte=15 * 60 * 1000),
                name="a_window_holds_its_existing_time_and_that_what_was_measured",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.life_id} at {self.window_start:%Y-%m-%d %H:%M}"


class UsageRow(models.Model):
    """A usage record with its network, for people to look at: a view, not a table.

    The admin shows no table with a key of two columns; this one has them joined in one.
    """

    id = models.CharField(primary_key=True, max_length=64)
    life = models.ForeignKey(Life, on_delete=models.DO_NOTHING, related_name="+")
    sandbox = models.ForeignKey(Sandbox, on_delete=models.DO_NOTHING, related_name="+")
    window_start = models.DateTimeField()
    cpu_ns = models.BigIntegerField()
    memory_byte_ms = models.BigIntegerField()
    network_tx_bytes = models.BigIntegerField()
    network_rx_bytes = models.BigIntegerField()
    disk_read_bytes = models.BigIntegerField()
    disk_write_bytes = models.BigIntegerField()
    cpu_allocated_ns = models.BigIntegerField()
    memory_allocated_byte_ms = models.BigIntegerField()
    gpu_ms = models.BigIntegerField()
    storage_byte_ms = models.BigIntegerField()
    opening_cpu_ns = models.BigIntegerField()
    closing_cpu_ns = models.BigIntegerField()
    running_ms = models.BigIntegerField()
    measured_ms = models.BigIntegerField()
    sample_count = models.BigIntegerField()

    class Meta:
        managed = False
        verbose_name = "usage record"

    def __str__(self) -> str:
        return f"{self.sandbox} at {self.window_start:%Y-%m-%d %H:%M}"
