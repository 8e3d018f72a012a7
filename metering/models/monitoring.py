from __future__ import annotations

from django.db import models

from metering.models.hosts import AccountRegistration, Host
from metering.models.summaries import sum_column


class ToldAccount(models.Model):
    """An account whose usage a monitor is told of by itself: one of the heaviest of late."""

    number = models.AutoField(primary_key=True)
    account = models.OneToOneField(AccountRegistration, on_delete=models.PROTECT, related_name="+")
    since = models.DateTimeField()

    def __str__(self) -> str:
        return str(self.account_id)


class UsageCounter(models.Model):
    """What a monitor is told was used on a host, since this is counted. It only grows.

    Each fold adds its growth once, in its own transaction, to the account's row if the account
    was told of then, else to that of all others. So a change of who is told of moves nothing.
    A host's rows are written by its folds alone: no two wait for each other.
    """

    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="+")
    # An account's id, or `other`.
    told_as = models.CharField(max_length=36)
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

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["host", "told_as"], name="usage_is_counted_once_for_a_host_and_account"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.told_as} on {self.host_id}"
