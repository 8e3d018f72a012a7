"""What a monitor is told was done since it is counted. It only grows."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from billing.models.columns import amount_column, currency_column
from billing.models.invoices import Invoice


class InvoicedAmount(models.Model):
    """How many invoices became final with a total in one range, and what they add up to.

    The range ends with `up_to` and begins after the next smaller one. Counted in the transaction
    that makes them final; one that is void later stays counted.
    """

    kind = models.CharField(max_length=16, choices=Invoice.Kind)
    currency = currency_column()
    # Empty: more than the largest.
    up_to = amount_column(null=True)
    count = models.BigIntegerField()
    total = amount_column()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["kind", "currency", "up_to"],
                nulls_distinct=False,
                name="amounts_of_a_range_are_counted_once",
            ),
            models.CheckConstraint(condition=Q(count__gt=0), name="counted_amounts_are_some"),
        )

    def __str__(self) -> str:
        return f"{self.kind} up to {self.up_to} {self.currency}"


class FailureCount(models.Model):
    """How often something of billing failed."""

    class Failed(models.TextChoices):
        INVOICE = "invoice", "making an invoice"

    what = models.CharField(max_length=32, choices=Failed, primary_key=True)
    count = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.what}: {self.count}"
