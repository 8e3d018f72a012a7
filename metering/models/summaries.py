from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from metering.models.hosts import AccountRegistration
from metering.models.lives import Sandbox


def sum_column() -> models.DecimalField[int, int]:
    """Return a column for a sum of base units: a day of byte-milliseconds passes 64 bits."""
    return models.DecimalField(max_digits=38, decimal_places=0, default=0)


class _DayOfUsage(models.Model):
    """What was used on a day of an account's time zone."""

    account = models.ForeignKey(AccountRegistration, on_delete=models.PROTECT, related_name="+")
    day = models.DateField()
    cpu_ns = sum_column()
    memory_byte_ms = sum_column()
    network_tx_bytes = sum_column()
    network_rx_bytes = sum_column()
    disk_read_bytes = sum_column()
    disk_write_bytes = sum_column()
    storage_byte_ms = sum_column()
    gpu_ms = sum_column()
    cpu_allocated_ns = sum_column()
    memory_allocated_byte_ms = sum_column()
    running_ms = models.BigIntegerField(default=0)
    measured_ms = models.BigIntegerField(default=0)
    life_count = models.IntegerField(default=0)

    class Meta:
        abstract = True


class DailyUsageSummary(_DayOfUsage):
    """What one sandbox used on one day of its account's time zone: the sum of usage records.

    Recomputed as a whole, never added to. `measured_ms` ÷ `running_ms` is its coverage.
    """

    sandbox = models.ForeignKey(Sandbox, on_delete=models.PROTECT, related_name="daily_usage")
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


class DailyUsageTotal(_DayOfUsage):
    """What an account used on one day of its time zone: the sum of its sandboxes' summaries.

    Replaced in the transaction that replaces the summaries, so it is always that sum.
    """

    sandbox_count = models.IntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "day"], name="total_of_an_account_once_a_day"
            ),
            models.CheckConstraint(
                condition=Q(measured_ms__gte=0) & Q(measured_ms__lte=F("running_ms")),
                name="a_total_holds_its_running_time_and_that_what_was_measured",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account_id} on {self.day}"


class SettledDays(models.Model):
    """The days of an account, from `since` to before `until`, whose totals are all there is.

    They were added up when nothing of them could change any more without marking its day. So of
    those that are not marked (TouchedDay), the totals are what the usage records add up to.
    """

    account = models.OneToOneField(
        AccountRegistration, on_delete=models.PROTECT, primary_key=True, related_name="+"
    )
    since = models.DateField()
    until = models.DateField()

    class Meta:
        verbose_name_plural = "settled days"
        constraints = [
            models.CheckConstraint(
                condition=Q(until__gte=F("since")), name="settled_days_end_after_they_begin"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account_id} from {self.since} to before {self.until}"


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
