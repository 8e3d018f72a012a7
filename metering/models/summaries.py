from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from metering.models.hosts import AccountRegistration
from metering.models.lives import Sandbox


def _sum() -> models.DecimalField[int, int]:
    # A day of byte-milliseconds passes 64 bits.
    return models.DecimalField(max_digits=38, decimal_places=0, default=0)


class DailyUsageSummary(models.Model):
    """What one sandbox used on one day of its account's time zone: the sum of usage records.

    Recomputed as a whole, never added to. `measured_ms` ÷ `running_ms` is its coverage.
    """

    account = models.ForeignKey(AccountRegistration, on_delete=models.PROTECT, related_name="+")
    sandbox = models.ForeignKey(Sandbox, on_delete=models.PROTECT, related_name="daily_usage")
    day = models.DateField()
    cpu_ns = _sum()
    memory_byte_ms = _sum()
    network_tx_bytes = _sum()
    network_rx_bytes = _sum()
    disk_read_bytes = _sum()
    disk_write_bytes = _sum()
    storage_byte_ms = _sum()
    gpu_ms = _sum()
    cpu_allocated_ns = _sum()
    memory_allocated_byte_ms = _sum()
    running_ms = models.BigIntegerField(default=0)
    measured_ms = models.BigIntegerField(default=0)
    life_count = models.IntegerField(default=0)
    computed_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "daily usage summaries"
        constraints = [
            models.UniqueConstraint(
                fields=["account", "day", "sandbox"], name="summary_of_a_sandbox_once_a_day"
            ),
            models.CheckConstraint(
                condition=Q(measured_ms__gte=0) & Q(measured_ms__lte=F("running_ms")),
                name="a_day_holds_its_running_time_and_that_what_was_measured",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.sandbox} on {self.day}"


class TouchedDay(models.Model):
    """A day, in UTC, long past, in which an account's usage changed: its summaries are stale."""

    account = models.ForeignKey(AccountRegistration, on_delete=models.PROTECT, related_name="+")
    day = models.DateField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "day"], name="day_is_touched_once"),
        ]

    def __str__(self) -> str:
        return f"{self.account_id} on {self.day}"
