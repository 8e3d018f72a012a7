from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from metering.models.hosts import Host
from metering.models.lives import Life


class Gap(models.Model):
    """Time in which a life ran and a meter was not measured, and why. Never billed."""

    # The meter of a gap in which nobody knows whether the life ran at all.
    WHOLE_LIFE = "life"

    class Reason(models.TextChoices):
        """Why nothing was measured."""

        BEFORE_FIRST_SAMPLE = "before_first_sample"
        HELD_TOO_LONG = "held_too_long"
        ENDED_BETWEEN_READINGS = "ended_between_readings"
        COUNTER_FELL = "counter_fell"
        COLLECTOR_DOWN = "collector_down"
        CLOCK_SKEW = "clock_skew"
        REJECTED = "rejected"
        HOST_SILENT = "host_silent"
        LIMITS_UNKNOWN = "limits_unknown"
        BATCH_LOST = "batch_lost"

    life = models.ForeignKey(Life, on_delete=models.PROTECT, related_name="gaps")
    # memory, storage, gpu, allocated, counters (all of them), or the counter that fell; life:
    # nobody knows whether it ran
    meter = models.CharField(max_length=32)
    start = models.DateTimeField()
    end = models.DateTimeField()
    reason = models.CharField(max_length=32, choices=Reason)
    recorded_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["life", "meter", "start"], name="gap_of_a_meter_starts_once"
            ),
            models.CheckConstraint(
                condition=Q(end__gt=F("start")), name="gap_ends_after_it_starts"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.meter} {self.start} to {self.end}: {self.reason}"


class CounterReset(models.Model):
    """A counter that fell inside a life: one segment ended at `before`, one began at `after`."""

    life = models.ForeignKey(Life, on_delete=models.PROTECT, related_name="counter_resets")
    # The life, or the interface of it.
    series = models.BigIntegerField()
    counter = models.CharField(max_length=32)
    at = models.DateTimeField()
    before = models.BigIntegerField()
    after = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["series", "counter", "at"], name="counter_falls_once_at_a_time"
            ),
            models.CheckConstraint(condition=Q(after__lt=F("before")), name="reset_is_a_fall"),
        ]

    def __str__(self) -> str:
        return f"{self.counter} fell from {self.before} to {self.after}"


class LateUsage(models.Model):
    """Growth in a window that was frozen before it was known; billed as an adjustment.

    Negative where a frozen window turned out to hold too much.
    """

    life = models.ForeignKey(Life, on_delete=models.PROTECT, related_name="late_usage")
    # Empty, or the network interface's name.
    interface = models.CharField(max_length=16, blank=True, default="")
    # The column of the usage record it would have gone to.
    quantity_name = models.CharField(max_length=32)
    window_start = models.DateTimeField()
    quantity = models.DecimalField(max_digits=30, decimal_places=0)
    recorded_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "late usage"
        constraints = [
            models.UniqueConstraint(
                fields=["life", "interface", "quantity_name", "window_start"],
                name="late_usage_of_a_window_in_one_row",
            ),
            models.CheckConstraint(condition=~Q(quantity=0), name="late_usage_is_not_nothing"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity_name} {self.quantity} late for {self.window_start}"


class Refusal(models.Model):
    """Something on a host that is left out, and why; one row for each, however often met."""

    class Reason(models.TextChoices):
        """What was wrong. The detail names the field and the way out."""

        ACCOUNT_MISSING = "account_missing"
        ACCOUNT_MALFORMED = "account_malformed"
        ACCOUNT_UNKNOWN = "account_unknown"
        SANDBOX_MALFORMED = "sandbox_malformed"
        # The life is metered, without a label.
        LABEL_LEFT_OUT = "label_left_out"
        LIFE_UNKNOWN = "life_unknown"
        SAMPLE_UNBELIEVABLE = "sample_unbelievable"
        BATCH_UNREADABLE = "batch_unreadable"
        BATCH_UNFOLDABLE = "batch_unfoldable"
        CLOCK_SKEWED = "clock_skewed"

    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="refusals")
    reason = models.CharField(max_length=32, choices=Reason)
    # The container, life or entry refused.
    subject = models.CharField(max_length=128)
    detail = models.CharField(max_length=500)
    count = models.BigIntegerField(default=1)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["host", "reason", "subject"], name="refusal_once_for_a_subject_and_reason"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.reason}: {self.subject}"
