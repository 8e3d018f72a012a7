"""What the desk's home page shows and nobody can add up in a request; made anew all the time."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from billing.models.columns import amount_column, currency_column
from metering.meters import Meter

_METERS = [(meter.value, meter.value) for meter in Meter]


class DeskSlice(models.Model):
    """The accounts whose ids begin with one hexadecimal digit, and when they were added up."""

    number = models.PositiveSmallIntegerField(primary_key=True)
    # Empty: not yet.
    computed_at = models.DateTimeField(null=True, blank=True)
    # So many accounts are in no figure: their prices or rules are no good.
    left_out = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(number__gte=0, number__lte=15), name="desk_slice_is_a_digit"
            ),
        )

    def __str__(self) -> str:
        return f"{self.number:x}"


class DeskDay(models.Model):
    """What a slice's accounts of one currency used of a meter on their local `day`.

    `cost` is before discounts, fees, credit and tax. The days of an invoice add up to its usage
    lines.
    """

    part = models.ForeignKey(DeskSlice, on_delete=models.CASCADE, related_name="days")
    day = models.DateField()
    currency = currency_column()
    meter = models.CharField(max_length=32, choices=_METERS)
    # Base units.
    quantity = models.DecimalField(max_digits=40, decimal_places=0)
    cost = amount_column()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["day", "part", "currency", "meter"], name="desk_day_once_a_slice"
            ),
        )

    def __str__(self) -> str:
        return f"{self.meter} on {self.day}"


class DeskCoverage(models.Model):
    """How long a slice's sandboxes ran on a local day, and for how much gauges were read."""

    part = models.ForeignKey(DeskSlice, on_delete=models.CASCADE, related_name="coverage")
    day = models.DateField()
    running_ms = models.BigIntegerField()
    measured_ms = models.BigIntegerField()

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["day", "part"], name="desk_coverage_once_a_slice"),
        )

    def __str__(self) -> str:
        return f"coverage on {self.day}"


class DeskRunning(models.Model):
    """What a slice's accounts would be asked for if their running periods ended now."""

    part = models.ForeignKey(DeskSlice, on_delete=models.CASCADE, related_name="running")
    currency = currency_column()
    accounts = models.PositiveIntegerField()
    subscription_fee = amount_column()
    usage_fee = amount_column()
    discounts = amount_column()
    credits_used = amount_column()
    tax = amount_column()
    total_amount = amount_column()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["part", "currency"], name="desk_running_once_a_slice_and_currency"
            ),
        )

    def __str__(self) -> str:
        return f"running in {self.currency}"
