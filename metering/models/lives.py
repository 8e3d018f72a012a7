from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q

from metering.models.hosts import AccountRegistration, Host

# A host is silent after ten minutes, and a sandbox of it must have been read by then.
LONGEST_INTERVAL_S = 300


class Sandbox(models.Model):
    """What a customer runs. Its id is the customer's own and unique in the account."""

    account = models.ForeignKey(
        AccountRegistration, on_delete=models.PROTECT, related_name="sandboxes"
    )
    sandbox_id = models.CharField(max_length=128)
    # Seconds between two readings of it; null is the installation's own interval.
    interval_s = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(LONGEST_INTERVAL_S)],
        help_text="Seconds between two readings. Empty: as METERING_INTERVAL says.",
    )
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
    # For Docker: the 64 hex digits of the container, a slash, StartedAt in ns. For other
    # runtimes whatever they call it.
    key = models.CharField(max_length=200)
    container_id = models.CharField(max_length=128)
    started_ns = models.BigIntegerField()
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    # The container was removed, or began another life: nothing is stored for this one any more.
    gone_at = models.DateTimeField(null=True, blank=True)
    # The kernel last ended a process of it for want of memory.
    oom_at = models.DateTimeField(null=True, blank=True)
    # False: it began before its host or account was known; its first sample is the base line.
    counts_from_zero = models.BooleanField()
    network_unmetered = models.CharField(
        max_length=16, choices=NetworkUnmetered, blank=True, default=""
    )
    # Limits as set; null is no limit: then all that the host offers is allocated. In
    # millionths of a cpu.
    cpu_limit_micro = models.BigIntegerField(null=True, blank=True)
    memory_limit_bytes = models.BigIntegerField(null=True, blank=True)
    # Devices held; null: it holds some, and how many is not known.
    gpu_count = models.IntegerField(null=True, blank=True, default=0)
    # The account's own, by name; as they were when the life was recorded. The database's default
    # is for programs of the version before, which know no labels.
    labels = models.JSONField(default=dict, db_default={}, blank=True)
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
            models.Index(
                fields=["host"], condition=Q(gone_at__isnull=True), name="life_that_is_not_gone"
            ),
            # Few of all lives: what a page of an account's sandboxes asks for every few seconds.
            models.Index(
                fields=["sandbox"], condition=Q(ended_at__isnull=True), name="life_that_runs"
            ),
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
    # What is allocated to it: as limited, or as the host offers.
    cpu_limit_micro = models.BigIntegerField()
    memory_limit_bytes = models.BigIntegerField()
    gpu_count = models.BigIntegerField()
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


class StorageReading(models.Model):
    """Where the storage of a life stands. It goes on after the life, until the container goes."""

    life = models.OneToOneField(
        Life, on_delete=models.PROTECT, primary_key=True, related_name="storage"
    )
    # -1: no reading yet.
    read_ms = models.BigIntegerField()
    storage_bytes = models.BigIntegerField()
    storage_held_until_ms = models.BigIntegerField()
    # 1: the container is gone.
    is_gone = models.BigIntegerField()
    out_of_order_count = models.BigIntegerField()

    def __str__(self) -> str:
        return f"storage of {self.life_id}"
