from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from metering.models.hosts import AccountRegistration, Host


class Sandbox(models.Model):
    """What a customer runs. Its id is the customer's own and unique in the account."""

    account = models.ForeignKey(
        AccountRegistration, on_delete=models.PROTECT, related_name="sandboxes"
    )
    sandbox_id = models.CharField(max_length=128)
    recorded_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "sandboxes"
        constraints = [
            models.UniqueConstraint(
                fields=["account", "sandbox_id"], name="sandbox_id_once_in_an_account"
            ),
        ]

    def __str__(self) -> str:
        return self.sandbox_id


class Life(models.Model):
    """One start of a sandbox, on one host. A restart begins another."""

    class NetworkUnmetered(models.TextChoices):
        """Why a life has no network figures of its own."""

        HOST = "host", "shares the host's network"
        CONTAINER = "container", "shares another container's network"
        NONE = "none", "has no network"

    # samples.life_id of the host and the key: the same wherever it is computed.
    id = models.BigIntegerField(primary_key=True)
    sandbox = models.ForeignKey(Sandbox, on_delete=models.PROTECT, related_name="lives")
    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="lives")
    # For Docker: the 64 hex digits of the container, a slash, StartedAt in ns.
    key = models.CharField(max_length=200)
    container_id = models.CharField(max_length=128)
    started_ns = models.BigIntegerField()
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    # False: it began before its host or account was known; its first sample is the base line.
    counts_from_zero = models.BooleanField()
    network_unmetered = models.CharField(
        max_length=16, choices=NetworkUnmetered, blank=True, default=""
    )
    # Limits as set; null is no limit.
    cpu_limit_nano = models.BigIntegerField(null=True, blank=True)
    memory_limit_bytes = models.BigIntegerField(null=True, blank=True)
    recorded_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "lives"
        constraints = [
            models.UniqueConstraint(fields=["host", "key"], name="life_once_on_a_host"),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True) | Q(ended_at__gte=F("started_at")),
                name="life_ends_after_it_starts",
            ),
        ]
        indexes = [
            models.Index(fields=["host", "container_id"], name="life_by_container"),
        ]

    def __str__(self) -> str:
        return f"{self.sandbox_id} since {self.started_at:%Y-%m-%d %H:%M:%S}"


class LifeReading(models.Model):
    """Where a life stands: its last reading and its base lines. Times in ms since 1970.

    Growth billed = last value − base line + what each CounterReset stepped down.
    """

    life = models.OneToOneField(
        Life, on_delete=models.PROTECT, primary_key=True, related_name="reading"
    )
    # -1: no reading yet.
    read_ms = models.BigIntegerField()
    cpu_ns = models.BigIntegerField()
    base_cpu_ns = models.BigIntegerField()
    disk_read_bytes = models.BigIntegerField()
    base_disk_read_bytes = models.BigIntegerField()
    disk_write_bytes = models.BigIntegerField()
    base_disk_write_bytes = models.BigIntegerField()
    # samples.Known: the counters that have a base line.
    known = models.BigIntegerField()
    memory_bytes = models.BigIntegerField()
    memory_held_until_ms = models.BigIntegerField()
    memory_limit_bytes = models.BigIntegerField()
    # samples.State
    state = models.BigIntegerField()
    sample_count = models.BigIntegerField()
    out_of_order_count = models.BigIntegerField()

    def __str__(self) -> str:
        return f"reading of {self.life_id}"


class InterfaceReading(models.Model):
    """Where one network interface of a life stands."""

    # samples.interface_id of the life and the name.
    interface = models.BigIntegerField(primary_key=True)
    life = models.ForeignKey(Life, on_delete=models.PROTECT, related_name="interfaces")
    name = models.CharField(max_length=16)
    read_ms = models.BigIntegerField()
    rx_bytes = models.BigIntegerField()
    base_rx_bytes = models.BigIntegerField()
    tx_bytes = models.BigIntegerField()
    base_tx_bytes = models.BigIntegerField()
    known = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["life", "name"], name="interface_once_in_a_life"),
        ]

    def __str__(self) -> str:
        return self.name
